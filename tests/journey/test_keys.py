"""Do API keys and limits hold on a real platform: over restarts, without control, and with nothing leaked?"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from private_swell import JSON, Answer, PrivateSwell, exchange, private_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = """
import time

import swell

app = swell.App("shop")


@app.function()
@swell.concurrent(max_inputs=100)
def greet(name: str = "you") -> str:
    return f"hello {name}"


@app.function()
@swell.concurrent(max_inputs=100)
@swell.limit(rate="1/day", burst=30)
def rare() -> str:
    return "once"


@app.cls()
@swell.concurrent(max_inputs=100)
@swell.limit(concurrency=4, body_max="1KB")
class Few:
    @swell.method()
    def until(self, file: str) -> str:
        import os

        while not os.path.exists(file):
            time.sleep(0.01)
        return "done"


@app.function()
@swell.concurrent(max_inputs=100)
@swell.limit(rate="4/s", burst=1)
def paced(n: int) -> int:
    return n * n


@app.function()
@swell.concurrent(max_inputs=100)
def steps(n: int):
    yield from range(n)


@app.function(image=swell.Image.debian_slim())
def none() -> None:
    print("nothing to see")
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSwell]:
    file = tmp_path_factory.mktemp("shop") / "shop.py"
    file.write_text(PROGRAM)
    with private_swell() as swell:
        swell.run("deploy", str(file))
        yield swell


def made(swell: PrivateSwell, name: str, *words: str) -> str:
    """A new key, as the command prints it."""
    printed = swell.run("key", "create", name, *words)
    assert printed.startswith("swk_")
    assert printed.count("\n") == 1
    return printed.strip()


def asked(
    swell: PrivateSwell, key: str, path: str, value: object = None, method: str = "POST", **headers: str
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", swell.port, timeout=60)
    try:
        sent = {"Content-Type": JSON, **headers, **({"Authorization": f"Bearer {key}"} if key else {})}
        body = json.dumps(value or {}).encode() if method == "POST" else None
        return exchange(connection, method, path, body, sent)
    finally:
        connection.close()


def said(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.error["code"] if answer.status >= 400 else ""


def swell_with(swell: PrivateSwell, key: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command run by whoever has that key alone."""
    environ = {**swell.environ, "SWELL_KEY": key, "SWELL_URL": f"http://127.0.0.1:{swell.port}"}
    return subprocess.run(["swell", *words], env=environ, capture_output=True, text=True, timeout=60)


def test_a_key_that_may_call_calls_its_app_and_sees_it_and_no_more(shop: PrivateSwell) -> None:
    key = made(shop, "caller", "--scope", "call:default/shop")
    assert asked(shop, key, "/call/shop/greet", {"name": "Ada"}).value == "hello Ada"
    for command in (("app", "list"), ("ps",), ("usage",), ("logs", "shop"), ("why", "--app", "shop")):
        done = swell_with(shop, key, *command)
        assert done.returncode == 0, done.stderr
    for command, lacking in (
        (("app", "stop", "shop"), "deploy:default/shop"),
        (("logs", "other"), "call:default/other"),
        (("key", "list"), "admin:NAMESPACE/APP"),
        (("key", "create", "more", "--scope", "call:default/shop"), "admin:NAMESPACE/APP"),
    ):
        done = swell_with(shop, key, *command)
        assert done.returncode == 1
        assert f"lacks the scope {lacking}" in done.stderr, done.stderr
    shop.run("key", "revoke", "caller")
    assert said(asked(shop, key, "/call/shop/greet")) == (401, "key_revoked")
    assert "was revoked" in swell_with(shop, key, "app", "list").stderr


def test_who_may_not_deploy_is_told_the_scope_for_that_app(shop: PrivateSwell, tmp_path: Path) -> None:
    key = made(shop, "visitor", "--scope", "call:default/shop")
    program = tmp_path / "kiosk.py"
    program.write_text(
        'import swell\n\napp = swell.App("kiosk")\n\n\n@app.function()\ndef two() -> int:\n    return 2\n'
    )
    for words, lacking in (
        (("deploy", str(program)), "deploy:default/kiosk"),
        (("deploy", str(program), "--namespace", "team", "--name", "other"), "deploy:team/other"),
        (("run", str(program)), "deploy:default/*"),
    ):
        refused = swell_with(shop, key, *words)
        assert refused.returncode == 1
        assert f"lacks the scope {lacking}:" in refused.stderr
        assert f"`swell key create NAME --scope {lacking}`" in refused.stderr


def test_a_key_that_may_deploy_puts_its_own_app_in_place(shop: PrivateSwell, tmp_path: Path) -> None:
    key = made(shop, "deployer", "--scope", "deploy:default/mine", "--expires", "1d")
    program = tmp_path / "mine.py"
    program.write_text(
        'import swell\n\napp = swell.App("mine")\n\n\n@app.function()\ndef two() -> int:\n    return 2\n'
    )
    done = swell_with(shop, key, "deploy", str(program))
    assert done.returncode == 0, done.stderr
    assert swell_with(shop, key, "call", "mine/two").stdout.strip() == "2"
    refused = swell_with(shop, key, "deploy", str(program), "--name", "other")
    assert "lacks the scope deploy:default/other" in refused.stderr
    assert swell_with(shop, key, "app", "stop", "mine").returncode == 0


CALLER = """
import swell

greet = swell.Function.from_name("shop", "greet")
print(greet.remote("Ada"), "|", greet.remote(name="Bo"), "|", greet.remote())
print(list(swell.Function.from_name("shop", "steps").remote_gen(3)))
print(list(swell.Function.from_name("shop", "paced").map([1, 2, 3])))
for given, words in (((("Ada",), {"name": "Bo"}), "all arguments by position"), (((object(),), {}), "plain data")):
    try:
        greet.remote(*given[0], **given[1])
    except swell.Error as error:
        assert words in str(error), error
    else:
        raise AssertionError(given)
"""


def test_python_callers_with_a_key_that_may_call_send_plain_data_and_wait_for_limits(shop: PrivateSwell) -> None:
    key = made(shop, "python", "--scope", "call:default/shop")
    environ = {**shop.environ, "SWELL_KEY": key, "SWELL_URL": f"http://127.0.0.1:{shop.port}"}
    done = subprocess.run([sys.executable, "-c", CALLER], env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["hello Ada | hello Bo | hello you", "[0, 1, 2]", "[1, 4, 9]"]
    assert done.stderr.count("paced waits for a limit: Requests of shop/paced come faster") == 1


def test_a_limit_of_a_key_is_exact_whoever_comes_at_once(shop: PrivateSwell) -> None:
    key = made(shop, "slow", "--scope", "call:default/*", "--rate", "1/day", "--burst", "25")
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: asked(shop, key, "/call/shop/greet"), range(60)))
    assert Counter(map(said, answers)) == {(200, ""): 25, (429, "rate_limited"): 35}
    refused = next(answer for answer in answers if answer.status == 429)
    assert 80_000 < int(refused.headers["retry-after"]) <= 86_400
    assert "the key slow (" in refused.error["message"]
    assert "1/day, 25 at once" in refused.error["message"]


@pytest.mark.shows("limit", "rate", "burst")
def test_a_limit_of_a_function_is_exact_whoever_comes_at_once(shop: PrivateSwell) -> None:
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda _: asked(shop, "", "/call/shop/rare"), range(60)))
    assert Counter(map(said, answers)) == {(200, ""): 30, (429, "rate_limited"): 30}


@pytest.mark.shows("limit", "concurrency", "body_max")
def test_so_many_at_a_time_and_bodies_no_longer(shop: PrivateSwell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first, refused = threading.Event(), []

    def call(_: int) -> Answer:
        answer = asked(shop, "", "/call/shop/Few.until", {"file": str(gate)})
        if answer.status == 429:
            refused.append(answer)
            first.set()
        return answer

    with ThreadPoolExecutor(6) as callers:
        answers = [callers.submit(call, n) for n in range(6)]
        try:
            assert first.wait(60)
            wait_until("two are refused", lambda: len(refused) == 2, wait_s=60)
        finally:
            gate.touch()
        found = Counter(said(answer.result()) for answer in answers)
    assert found == {(200, ""): 4, (429, "too_many_in_flight"): 2}
    long = asked(shop, "", "/call/shop/Few.until", {"file": "x" * 2000})
    assert said(long) == (413, "body_too_large")
    assert "1000 bytes (body_max of shop/Few)" in long.error["message"]


def test_every_limit_is_listed_with_its_source(shop: PrivateSwell) -> None:
    made(shop, "measured", "--scope", "call:default/shop", "--concurrency", "9", "--expires", "2h")
    rows = json.loads(shop.run("limits", "--json"))
    found = {(row["owner"].partition(" (")[0], row["name"]): (row["value"], row["source"]) for row in rows}
    assert found["key measured", "concurrency"] == (9, "swell key create")
    assert found["shop/Few", "concurrency"] == (4, "@swell.limit")
    assert found["shop/greet", "max_inputs"] == (100, "program")
    assert found["server", "hold_max"] == (1000, "default")
    shown = shop.run("limits")
    assert "too_many_in_flight" in shown
    assert "key measured" in shown
    until = time.strftime("%Y-%m-%d %H:", time.gmtime(found["key measured", "expires_at"][0]))
    assert re.search(rf"expires_at +{until}\d\d:\d\d +UTC ", shown)
    shop.run("key", "revoke", "measured")


def test_keys_work_without_control_and_outlive_every_process(idle: PrivateSwell, tmp_path: Path) -> None:
    program = tmp_path / "shop.py"
    program.write_text(PROGRAM)
    idle.run("up", "-d")
    idle.run("deploy", str(program))
    key, other = (made(idle, name, "--scope", "call:default/shop") for name in ("kept", "dropped"))
    assert asked(idle, key, "/call/shop/greet").status == 200
    control = idle.server("control")
    os.kill(control, signal.SIGSTOP)
    try:
        assert asked(idle, key, "/call/shop/greet").status == 200
        assert said(asked(idle, key[:-1] + "a" * (key[-1] != "a") + "b" * (key[-1] == "a"), "/call/shop/greet")) == (
            401,
            "bad_key",
        )
    finally:
        os.kill(control, signal.SIGCONT)
    idle.run("key", "revoke", "dropped")
    os.kill(control, signal.SIGKILL)
    os.kill(idle.server("gateway"), signal.SIGKILL)
    wait_until("all is back", lambda: back(idle, key), wait_s=60)
    assert said(asked(idle, other, "/call/shop/greet")) == (401, "key_revoked")
    idle.run("down")
    idle.run("up", "-d")
    assert asked(idle, key, "/call/shop/greet").status == 200
    listed = json.loads(idle.run("key", "list", "--json"))
    assert [(row["name"], row["state"]) for row in listed] == [("kept", "works"), ("dropped", "revoked")]


def back(swell: PrivateSwell, key: str) -> bool:
    try:
        return asked(swell, key, "/call/shop/greet").status == 200
    except OSError:
        return False


def test_no_secret_of_a_key_is_anywhere_on_disk(shop: PrivateSwell) -> None:
    key = made(shop, "hidden", "--scope", "call:default/*")
    assert asked(shop, key, "/call/shop/none").status == 200
    assert asked(shop, key, "/call/shop/nothing").status == 404
    request = asked(shop, key, "/call/shop/none").request
    wait_until("its record", lambda: why(shop, request), wait_s=120)
    id, secret = key.removeprefix("swk_").split("_")
    assert why(shop, request)["key"] == id
    assert id in swell_with(shop, (shop.home / "key").read_text().strip(), "why", request).stdout
    shop.run("key", "revoke", id)
    files = [path for path in shop.home.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {"control.db", "control.db-wal", "swell.log"} <= {path.name for path in files}
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
    assert [path for path in files if path.name.startswith("control.db") and id.encode() in path.read_bytes()]


def why(swell: PrivateSwell, request: str) -> Any:
    answer = asked(swell, (swell.home / "key").read_text().strip(), f"/api/requests/{request}", method="GET")
    return answer.value if answer.status == 200 else None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("create", "x"), "Missing option '--scope'"),
        (("create", "x", "--scope", "call"), "'call' is no scope: it says over which apps"),
        (("create", "x", "--scope", "read:default/a"), "it begins with call, deploy or admin"),
        (("create", "a/b", "--scope", "admin"), "its name must have"),
        (("create", "x", "--scope", "admin", "--rate", "fast"), "'fast' is no rate such as '100/s'"),
        (("create", "x", "--scope", "admin", "--burst", "5"), "burst without a rate"),
        (("create", "x", "--scope", "admin", "--body-max", "1TB"), "is no size above 0 such as"),
        (("create", "x", "--scope", "admin", "--expires", "0"), "is not a length of time above 0"),
        (("revoke", "nobody"), "There is no key 'nobody'"),
    ],
)
def test_what_cannot_be_asked_is_told_in_a_sentence(shop: PrivateSwell, words: tuple[str, ...], told: str) -> None:
    done = subprocess.run(["swell", "key", *words], env=shop.environ, capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 2)
    assert told in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_of_a_request_that_a_key_may_not_see_it_is_told_as_of_one_that_is_not_kept(shop: PrivateSwell) -> None:
    key = made(shop, "stranger", "--scope", "call:default/elsewhere")
    request = asked(shop, "", "/call/shop/none").request
    wait_until("its record", lambda: why(shop, request), wait_s=120)
    never = f"{request.partition('-')[0]}-ffffff"
    told = []
    for id in (request, never):
        answer = asked(shop, key, f"/api/requests/{id}", method="GET")
        told.append((said(answer), answer.error["message"].replace(id, "ID")))
    assert told[0] == told[1]
    assert told[0][0][0] == 404


def test_a_key_counts_at_the_api_too(shop: PrivateSwell) -> None:
    key = made(shop, "counted", "--scope", "call:default/shop", "--rate", "1/day", "--burst", "3")
    answers = [said(asked(shop, key, "/api/apps", method="GET")) for _ in range(4)]
    assert answers == [(200, "")] * 3 + [(429, "rate_limited")]
    assert said(asked(shop, key, "/call/shop/greet")) == (429, "rate_limited")


def test_a_key_that_was_made_with_another_has_its_limits_and_its_end(shop: PrivateSwell) -> None:
    team = made(shop, "team", "--scope", "admin:default/*", "--rate", "1/day", "--burst", "6", "--expires", "1d")
    created = swell_with(shop, team, "key", "create", "member", "--scope", "call:default/shop")
    assert created.returncode == 0, created.stderr
    member = created.stdout.strip()
    assert f"and no longer than {team.split('_')[1]}, whose limits are its own, too" in created.stderr
    refused = swell_with(shop, team, "key", "create", "longer", "--scope", "call:default/shop", "--expires", "2d")
    assert "it would outlive" in refused.stderr
    # Two were asked with the one, four are left for both.
    answers = [said(asked(shop, member, "/call/shop/greet")) for _ in range(5)]
    assert answers == [(200, "")] * 4 + [(429, "rate_limited")]
    revoked = shop.run("key", "revoke", "team")
    assert f"So end the keys that were made with it: {member.split('_')[1]} (member)." in revoked
    assert said(asked(shop, member, "/call/shop/greet")) == (401, "key_revoked")
    listed = {row["name"]: row for row in json.loads(shop.run("key", "list", "--json"))}
    assert listed["member"]["made_by"] == team.split("_")[1]
    assert listed["member"]["state"] == "revoked"


def test_use_is_summed_by_key(shop: PrivateSwell) -> None:
    key = made(shop, "frequent", "--scope", "call:default/shop")
    for _ in range(30):
        assert asked(shop, key, "/call/shop/greet").status == 200
    assert said(asked(shop, key, "/call/shop/Few.until", {})) == (422, "bad_arguments")

    def row() -> dict[str, Any]:
        rows = json.loads(shop.run("usage", "--by", "key", "--json"))
        return next((each for each in rows if each["name"] == "frequent"), {})

    wait_until("all are counted", lambda: row().get("requests") == 31, wait_s=120)
    assert row()["key"] == key.split("_")[1]
    assert row()["errors"] == 1
    assert row()["cpu_s"] > 0
    assert row()["cost_usd"] > 0
    shown = shop.run("usage", "--by", "key", "--since", "1h")
    assert f"frequent ({key.split('_')[1]})" in shown
    assert "total" in shown
    # Who may call is told of the ids of those who called, not of their names.
    seen = swell_with(shop, key, "usage", "--by", "key", "--json")
    assert [each["requests"] for each in json.loads(seen.stdout) if each["key"] == row()["key"]] == [31]
    assert "frequent" not in seen.stdout


def test_the_source_that_is_kept_has_a_limit(tmp_path: Path) -> None:
    program = tmp_path / "large.py"
    program.write_text(PROGRAM)
    with private_swell(blobs_max_gib=0.0001) as swell:
        swell.run("deploy", str(program))
        noise = os.urandom(200_000).hex()
        program.write_text(f'{PROGRAM}\nNOISE = "{noise}"\n')
        key = made(swell, "deployer", "--scope", "deploy:default/shop")
        refused = swell_with(swell, key, "deploy", str(program))
        assert refused.returncode == 1
        assert "(blobs_max_gib)" in refused.stderr
        assert asked(swell, key, "/call/shop/greet").value == "hello you"
        rows = {row["name"]: row for row in json.loads(swell.run("limits", "--json"))}
        limit = rows["blobs_max_gib"]
        assert (limit["value"], limit["unit"], limit["source"]) == (0.0001, "GiB", "flag")
        assert limit["codes"] == ["blobs_full"]
