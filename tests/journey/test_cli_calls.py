"""What does a user see of a deployed app from the shell: deploy, call, ps, app, logs, why, usage?"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from journey.callers import ask, key
from private_swell import PrivateSwell, unstarted_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = """
import os
import time

import swell

app = swell.App("shop", tags={"team": "till", "area": "front"})

@app.function()
def price(item: str, count: int = 1) -> dict:
    print("pricing", item)
    return {"item": item, "total": 2 * count}

@app.function()
def items(to: int = 3):
    for n in range(to):
        yield {"n": n}

@app.function()
def fail() -> None:
    raise RuntimeError("sold out")

@app.cls(image=swell.Image.debian_slim().env({"OPENING": "@OPENING@"}), timeout=120)
class Till:
    @swell.enter()
    def open(self) -> None:
        while not os.path.exists(os.environ["OPENING"]):
            time.sleep(0.01)

    @swell.method()
    def count(self) -> int:
        return 7

@app.function()
def size(picture: bytes) -> int:
    return len(picture)
"""
FIELDS = {"id", "workload", "revision", "role", "phase", "node", "pid", "age_s", "in_flight"}


@pytest.fixture(scope="module")
def shop(own_swell: PrivateSwell, tmp_path_factory: pytest.TempPathFactory) -> PrivateSwell:
    path = tmp_path_factory.mktemp("shop") / "shop.py"
    path.write_text(PROGRAM.replace("@OPENING@", str(own_swell.home / "opening")))
    own_swell.run("deploy", str(path))
    return own_swell


def swell(server: PrivateSwell, *words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["swell", *words], env=server.environ, input=said, capture_output=True, text=True, timeout=120
    )


def called(server: PrivateSwell, *words: str) -> str:
    """The id of a call's request."""
    done = swell(server, "call", "-v", *words)
    return next(line.split()[1] for line in done.stderr.splitlines() if line.startswith("Swell-Request-Id"))


def test_deploy_lists_workloads_and_a_line_to_try(own_swell: PrivateSwell, tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    path.write_text(PROGRAM.replace('"shop"', '"other"'))
    done = swell(own_swell, "deploy", str(path), "--name", "corner")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:6]]
    names = ("Till.count", "fail", "items", "price", "size")
    assert rows == [[name, "new", f"http://127.0.0.1:{own_swell.port}/call/corner/{name}"] for name in names]
    line = done.stdout.partition("Try: ")[2]
    tried = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)
    assert json.loads(tried.stdout) == {"item": "…", "total": 2}
    same = swell(own_swell, "deploy", str(path), "--name", "corner").stdout.splitlines()
    assert [line.split()[1] for line in same[1:6]] == ["unchanged"] * 5
    path.write_text(PROGRAM.replace('"shop"', '"other"').replace("size", "weight"))
    again = swell(own_swell, "deploy", str(path), "--name", "corner").stdout.splitlines()
    assert [line.split()[:2] for line in again[1:7]] == [
        ["Till.count", "changed"],
        ["fail", "changed"],
        ["items", "changed"],
        ["price", "changed"],
        ["weight", "new"],
        ["size", "removed"],
    ]
    assert swell(own_swell, "app", "stop", "corner").stdout == "corner is stopped.\n"


def test_the_tags_of_an_app_are_listed(shop: PrivateSwell) -> None:
    assert all("  area=front team=till" in line for line in shop.run("app", "list").splitlines() if "shop" in line)
    (app,) = (row for row in json.loads(shop.run("app", "list", "--json")) if row["name"] == "shop")
    assert app["tags"] == [["area", "front"], ["team", "till"]]


def test_a_deploy_that_cannot_be_imported_changes_nothing(shop: PrivateSwell, tmp_path: Path) -> None:
    before = shop.run("app", "list", "--json")
    path = tmp_path / "shop.py"
    path.write_text(PROGRAM + "\nprice.nonsense()\n")
    done = swell(shop, "deploy", str(path))
    assert done.returncode == 1
    assert "price.nonsense()" in done.stderr
    assert "AttributeError" in done.stderr
    assert _revisions(shop.run("app", "list", "--json")) == _revisions(before)


def test_call_prints_the_bare_result_wherever_the_arguments_come_from(shop: PrivateSwell, tmp_path: Path) -> None:
    expected = {"item": "tea", "total": 4}
    words = '{"item": "tea", "count": 2}'
    (tmp_path / "words.json").write_text(words)
    assert json.loads(swell(shop, "call", "shop/price", words).stdout) == expected
    assert json.loads(swell(shop, "call", "shop/price", '["tea", 2]').stdout) == expected
    assert json.loads(swell(shop, "call", "shop/price", "-", said=words).stdout) == expected
    assert json.loads(swell(shop, "call", "default/shop/price", f"@{tmp_path}/words.json").stdout) == expected


def test_a_namespace_is_named_alike_by_every_command(own_swell: PrivateSwell, tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    path.write_text(PROGRAM)
    other = ("--namespace", "branch")
    own_swell.run("deploy", str(path), "--name", "kiosk", *other)
    assert json.loads(own_swell.run("call", "kiosk/price", '["tea"]', *other))["total"] == 2
    assert json.loads(own_swell.run("call", "branch/kiosk/price", '["tea"]'))["total"] == 2
    assert "in namespace 'default'" in swell(own_swell, "call", "kiosk/price", '["tea"]').stderr
    assert "branch/kiosk" in own_swell.run("ps", "kiosk", *other)
    assert {row["workload"] for row in json.loads(own_swell.run("ps", "--json", *other))} == {"branch/kiosk/price"}
    assert json.loads(own_swell.run("ps", "--json", "--namespace", "elsewhere")) == []
    for words in (["ps", "kiosk"], ["logs", "kiosk"], ["why", "--app", "kiosk"]):
        assert "in namespace 'elsewhere'" in swell(own_swell, *words, "--namespace", "elsewhere").stderr
    own_swell.run("app", "stop", "kiosk", *other)


def test_a_call_that_takes_long_says_on_a_terminal_what_it_waits_for(shop: PrivateSwell) -> None:
    ours, theirs = pty.openpty()
    environ = {**shop.environ, "TERM": "xterm", "COLUMNS": "200"}
    words = ["swell", "call", "shop/Till.count"]
    with (
        subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=theirs) as shown,
        subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as piped,
    ):
        os.close(theirs)
        said = b""
        while b"waiting for a replica: " not in said or b" is starting" not in said:
            said += os.read(ours, 4096)
        (shop.home / "opening").touch()
        assert shown.communicate(timeout=120) == (b"7\n", None)
        assert piped.communicate(timeout=120) == (b"7\n", b"")
    os.close(ours)
    assert b"Calling shop/Till.count" in said


def test_what_takes_long_says_on_a_terminal_what_is_under_way(tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    path.write_text(PROGRAM)
    with unstarted_swell() as server:
        for words, title in (
            (["up", "-d"], "Starting the server"),
            (["deploy", str(path)], f"Deploying {path}"),
            (["run", f"{path}::price", "--item", "tea"], "Starting price"),
            (["down"], "Stopping the server"),
        ):
            code, said = on_a_terminal(server, *words)
            assert (code, title in said) == (0, True), said


def on_a_terminal(server: PrivateSwell, *words: str) -> tuple[int, str]:
    """Exit code of a command, and what its standard error, a terminal, showed."""
    ours, theirs = pty.openpty()
    environ = {**server.environ, "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(["swell", *words], env=environ, stdout=subprocess.DEVNULL, stderr=theirs) as shown:
        os.close(theirs)
        said = b""
        # Once nobody has it open for writing, reading a terminal is an error.
        with suppress(OSError):
            while part := os.read(ours, 4096):
                said += part
        shown.wait(120)
    os.close(ours)
    return shown.returncode, said.decode()


def test_call_prints_items_line_by_line(shop: PrivateSwell) -> None:
    lines = swell(shop, "call", "shop/items", '{"to": 2}').stdout.splitlines()
    assert [json.loads(line) for line in lines] == [{"n": 0}, {"n": 1}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["shop/price"], "item"),
        (["shop/prise", "{}"], "price"),
        (["shap/price", "{}"], "shop"),
        (["shop/price", '{"item": 1, "count": "many"}'], "count"),
        (["shop/fail"], "swell logs --request"),
    ],
)
def test_a_call_that_fails_says_why_in_a_sentence(shop: PrivateSwell, words: list[str], said: str) -> None:
    done = swell(shop, "call", *words)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert said in done.stderr


def test_ps_lists_replicas_and_says_when_there_is_none(shop: PrivateSwell) -> None:
    swell(shop, "call", "shop/items")
    rows = json.loads(shop.run("ps", "--json"))
    assert rows
    assert all(set(row) >= FIELDS for row in rows)
    heads, *lines = shop.run("ps").splitlines()
    assert heads.split()[:3] == ["ID", "WORKLOAD", "ROLE"]
    assert {line.split()[0] for line in lines} >= {row["id"] for row in rows if row["role"] == "serving"}


def test_the_log_of_one_request(shop: PrivateSwell) -> None:
    request = called(shop, "shop/price", '{"item": "this one"}')
    called(shop, "shop/price", '{"item": "another"}')
    wait_until(
        "it is logged", lambda: "pricing this one" in swell(shop, "logs", "--request", request).stdout, wait_s=30
    )
    assert "another" not in swell(shop, "logs", "shop", "--request", request).stdout
    both = swell(shop, "logs", "shop", "--since", "10m").stdout
    assert "pricing this one" in both
    assert "pricing another" in both
    now = time.monotonic()
    time.sleep(0.5)
    # By the time it is asked this is later than both.
    later = swell(shop, "logs", "shop", "--since", f"{time.monotonic() - now:.2f}s")
    assert (later.returncode, "pricing" in later.stdout) == (0, False), later
    line = json.loads(swell(shop, "logs", "--request", request, "--json").stdout.splitlines()[0])
    assert (line["request"], line["text"]) == (request, "pricing this one")


def test_the_log_of_an_app_that_never_was_is_an_error(shop: PrivateSwell) -> None:
    for words in (["shap"], ["shap", "-f"], ["other/shop"]):
        done = swell(shop, "logs", *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert "There is no app" in done.stderr
    assert "shop" in swell(shop, "logs", "shap").stderr


def test_on_a_terminal_a_followed_log_shows_where_live_begins(shop: PrivateSwell) -> None:
    ours, theirs = pty.openpty()
    words = ["swell", "logs", "shop", "-f"]
    with subprocess.Popen(words, env=shop.environ, stdout=subprocess.PIPE, stderr=theirs) as following:
        os.close(theirs)
        said = b""
        while b"live, Ctrl-C ends" not in said:
            said += os.read(ours, 4096)
        assert following.poll() is None
        following.terminate()
    os.close(ours)


def test_a_followed_log_goes_on(shop: PrivateSwell) -> None:
    following = subprocess.Popen(
        ["swell", "logs", "shop", "-f", "--tail", "0"], env=shop.environ, stdout=subprocess.PIPE, text=True
    )
    assert following.stdout is not None
    seen: list[str] = []
    reader = threading.Thread(target=seen.extend, args=(following.stdout,))
    reader.start()
    try:
        wait_until("it follows", lambda: _sells(shop, "first") and any("pricing first" in line for line in seen))
        wait_until("it goes on", lambda: _sells(shop, "second") and any("pricing second" in line for line in seen))
    finally:
        following.terminate()
        reader.join(60)
        following.communicate()
    assert following.returncode == -signal.SIGTERM


def test_why_tells_steps_reasons_and_cost(shop: PrivateSwell) -> None:
    request = called(shop, "shop/fail")
    wait_until("it is kept", lambda: swell(shop, "why", request).returncode == 0, wait_s=120)
    told = shop.run("why", request)
    for word in (request, "shop/fail", "500 exception", "held", "run", "started for", "per million such requests"):
        assert word in told
    assert json.loads(shop.run("why", request, "--json"))["request"] == request
    unknown = swell(shop, "why", "nothing-1")
    assert unknown.returncode == 1
    assert "'nothing-1' is no request's id" in unknown.stderr
    forgotten = swell(shop, "why", "0123456789ab-1")
    assert forgotten.returncode == 1
    assert "Request 0123456789ab-1 is not kept." in forgotten.stderr
    # Only what may still come is waited for: an id of the gateway that runs, not one of another.
    fresh = f"/api/requests/{request.partition('-')[0]}-ffffff"
    for path, code in (("/api/requests/0123456789ab-1", "not_kept"), (fresh, "not_yet")):
        reply = ask(shop, "GET", path, headers=key(shop))
        assert (reply.status, reply.error["code"]) == (404, code)


def test_why_of_a_cold_request_is_the_same_after_a_restart_of_control(own_swell: PrivateSwell, tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    path.write_text(PROGRAM)
    own_swell.run("deploy", str(path), "--name", "kiosk")
    request = called(own_swell, "kiosk/price", '["tea"]')
    before = json.loads(own_swell.run("why", request, "--json"))
    assert before["cold"] is True
    assert len([step for step in before["steps"] if step["what"].startswith("  ")]) > 3
    control = own_swell.server("control")
    os.kill(control, signal.SIGKILL)
    wait_until("control is back", lambda: swell(own_swell, "ps").returncode == 0, wait_s=60)
    assert own_swell.server("control") != control
    after = json.loads(own_swell.run("why", request, "--json"))
    assert (after["steps"], after["reasons"][:1]) == (before["steps"], before["reasons"][:1])
    own_swell.run("app", "stop", "kiosk")


def test_why_points_to_what_ended_a_replica_under_a_request(own_swell: PrivateSwell, tmp_path: Path) -> None:
    path = tmp_path / "frail.py"
    path.write_text(
        'import os, time, swell\n\napp = swell.App("frail")\n\n@app.function()\ndef crash():\n    os._exit(3)\n'
        "\n@app.function()\ndef stream():\n    yield 1\n    time.sleep(0.5)\n    os.kill(os.getpid(), 9)\n"
        '\n@app.function()\ndef spoiled():\n    yield 1\n    raise ValueError("bad")\n'
    )
    own_swell.run("deploy", str(path))
    said = swell(own_swell, "call", "frail/crash").stderr
    assert "swell logs" not in said
    # The caller is told what it was, without asking.
    assert "(its process crashed: exit code 3)" in said
    assert (said.count("exit code 3"), said.count("swell why")) == (1, 1)
    cut = swell(own_swell, "call", "frail/stream").stderr
    assert "its process crashed: signal 9 (SIGKILL)" in cut
    assert "More: `swell why " in cut
    failed = swell(own_swell, "call", "frail/spoiled").stderr
    assert re.search(r"More: `swell logs --request (\S+)`, `swell why \1`\.", failed), failed
    request = said.partition("swell why ")[2].partition("`")[0]
    assert "- it is gone since: its process crashed\n- exit code 3" in own_swell.run("why", request)
    own_swell.run("app", "stop", "frail")


def test_why_finds_the_newest_requests(shop: PrivateSwell) -> None:
    request = called(shop, "shop/fail")
    wait_until("it is listed", lambda: request in shop.run("why"), wait_s=120)
    line = next(line for line in shop.run("why", "--app", "shop").splitlines() if line.startswith(request))
    assert line.split()[2:5] == ["shop/fail", "500", "exception"]
    assert json.loads(shop.run("why", "--app", "shop", "--json"))[0]["id"] == request
    unknown = swell(shop, "why", "--app", "elsewhere")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "There is no app 'elsewhere'" in unknown.stderr
    assert "shop" in unknown.stderr


def test_usage_by_workload_app_and_pool(shop: PrivateSwell) -> None:
    swell(shop, "call", "shop/size", "[]")
    swell(shop, "call", "shop/items")
    wait_until("it is counted", lambda: _requests(shop, "items") > 0, wait_s=120)
    told = shop.run("usage", "--since", "1h")
    assert told.startswith("Since ")
    assert any(line.endswith("  shop/items") for line in told.splitlines())
    assert told.splitlines()[-3].endswith("  total")
    assert told.splitlines()[-1].startswith("COST is in ")
    assert any(line.endswith("  shop") for line in shop.run("usage", "--by", "app").splitlines())
    assert "shop/items@rv-" in shop.run("usage", "--by", "pool")


def test_an_app_that_is_not_there_cannot_be_stopped(shop: PrivateSwell) -> None:
    done = swell(shop, "app", "stop", "shap")
    assert done.returncode == 1
    assert "shop" in done.stderr


def test_a_command_that_takes_an_app_says_so_of_a_function(shop: PrivateSwell) -> None:
    for words in (["app", "stop"], ["why", "--app"], ["logs"], ["ps"]):
        for named, app in (("shop/price", "shop"), ("default/shop/price", "default/shop")):
            done = swell(shop, *words, named)
            assert done.returncode == 2
            assert f"{' '.join(words)} takes an app: swell {' '.join(words)} {app}\n" in done.stderr
    assert swell(shop, "ps", "shap").stderr.startswith("Error: There is no app 'shap'. There are: ")
    assert "shop/" not in swell(shop, "ps", "default/shap").stdout


def test_ps_of_one_app_has_no_others(shop: PrivateSwell) -> None:
    swell(shop, "call", "shop/items")
    assert {row["workload"].split("/")[1] for row in json.loads(shop.run("ps", "shop", "--json"))} == {"shop"}


def test_the_timing_and_cost_of_a_stream_are_told_at_its_end(shop: PrivateSwell) -> None:
    done = swell(shop, "call", "-v", "shop/items")
    told = dict(line.split(": ", 1) for line in done.stderr.splitlines())
    assert {"held", "run", "total"} <= {part.split(";")[0] for part in told["Server-Timing"].split(", ")}
    assert float(told["Swell-Cost-Usd"]) > 0


def _sells(shop: PrivateSwell, item: str) -> bool:
    with shop.connect() as client:
        return client.call("shop/price", {"item": item}).status == 200


def _requests(shop: PrivateSwell, name: str) -> int:
    pools = json.loads(shop.run("usage", "--by", "pool", "--json"))
    return sum(pool["requests"] for pool in pools if f"shop/{name}@" in pool["pool"])


def _revisions(listing: str) -> list[list[tuple[str, str]]]:
    """What is deployed, without what changes by itself."""
    return [[(row["name"], row["revision"]) for row in app["workloads"]] for app in json.loads(listing)]
