"""Is what was spawned worked on by itself, and are its results had as from a call that was waited for? For real."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import pickle
import signal
import subprocess
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import swell
from journey.apps import brief, later
from private_swell import Answer, Failed, PrivateSwell, exchange, wait_until
from swell.wire.http import RESULT_MAX

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LONG_S = 120.0
"""Longer than anything takes."""


STAYING = """
import swell

app = swell.App("staying")


@app.function()
def twice(x: int) -> int:
    return 2 * x


@app.cls()
class Plus:
    n: int = swell.parameter()

    @swell.method()
    def add(self, x: int) -> int:
        return self.n + x
"""


@pytest.fixture(scope="module")
def app(own_server: PrivateSwell) -> Iterator[swell.App]:
    with later.app.run():
        yield later.app


def send(own: PrivateSwell, method: str, path: str, body: object = None, key: str = "", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", own.port, timeout=LONG_S)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if key:
        named["authorization"] = f"Bearer {key}"
    try:
        return exchange(connection, method, path, json.dumps(body).encode() if body is not None else b"", named)
    finally:
        connection.close()


def target(app: swell.App, name: str) -> str:
    return f"/call/{app.registered_functions['add']._resolve().app}/{name}"


def queued(own: PrivateSwell, app: swell.App, name: str, body: object, **headers: str) -> str:
    answer = send(own, "POST", target(app, name), body, swell_async="true", **headers)
    assert answer.status == 202, answer.body
    assert answer.headers["location"] == f"/calls/{answer.value['id']}"
    id: str = answer.value["id"]
    return id


# -- from Python -------------------------------------------------------------------------------------


def test_results_and_exceptions_are_as_from_remote(app: swell.App) -> None:
    assert later.add.spawn(1).get(timeout=LONG_S) == later.add.remote(1) == 2
    assert later.add.spawn(b=3, a=1).get(timeout=LONG_S) == 4
    assert later.halved.spawn(Fraction(1, 3)).get(timeout=LONG_S) == Fraction(1, 6)
    with pytest.raises(LookupError) as raised:
        later.raises.spawn(3).get(timeout=LONG_S)
    with pytest.raises(LookupError) as remote:
        later.raises.remote(3)
    assert raised.value.args == remote.value.args == (3,)
    assert str(raised.value.__cause__) == str(remote.value.__cause__)
    assert "raise LookupError" in str(raised.value.__cause__)
    with pytest.raises(swell.exception.InvalidError):
        later.add.spawn("no", "such", "arguments").get(timeout=LONG_S)


def test_methods_have_their_parameters(app: swell.App) -> None:
    assert later.Scaler().times.spawn(4).get(timeout=LONG_S) == 8
    assert later.Scaler(factor=5).times.spawn(4).get(timeout=LONG_S) == 20


def test_many_are_gathered(app: swell.App) -> None:
    assert swell.FunctionCall.gather(*[later.add.spawn(n) for n in range(30)]) == [n + 1 for n in range(30)]

    async def program() -> list[Any]:
        calls = await asyncio.gather(*(later.add.spawn.aio(n) for n in range(20)))
        return [await call.get.aio(timeout=LONG_S) for call in calls]

    assert asyncio.run(program()) == [n + 1 for n in range(20)]


def test_code_in_replicas_spawns_too(app: swell.App) -> None:
    call = later.chain.spawn(1).get(timeout=LONG_S)
    assert isinstance(call, swell.FunctionCall)
    assert call.get() == 11
    spawned = later.who.spawn()
    assert spawned.get(timeout=LONG_S) == (spawned.object_id, spawned.object_id)
    id, request = later.who.remote()
    assert id is None
    assert request


def test_what_failed_is_tried_again_by_the_server(app: swell.App, tmp_path: Path) -> None:
    log = tmp_path / "tries"
    call = later.at_third.spawn(str(log))
    assert call.get(timeout=LONG_S) == 3
    assert log.read_text().splitlines() == [call.object_id] * 3


def test_one_that_is_cancelled_is_stopped(app: swell.App, tmp_path: Path) -> None:
    mark = tmp_path / "runs"
    call = later.forever.spawn(str(mark))
    wait_until("it runs", mark.exists)
    with pytest.raises(TimeoutError):
        call.get(timeout=0.01)
    call.cancel()
    wait_until("it is stopped", lambda: not mark.exists())
    for _ in range(2):
        with pytest.raises(swell.exception.RemoteError) as raised:
            call.get(timeout=LONG_S)
        assert raised.value.code == "cancelled"
        call.cancel()


@pytest.mark.shows("progress", "done", "total", "message")
def test_what_it_says_of_its_progress_is_shown_and_gives_it_time(
    own_server: PrivateSwell, app: swell.App, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    call = later.told.spawn(str(gate))

    def row() -> Any:
        return send(own_server, "GET", f"/calls/{call.object_id}").value

    wait_until("it says how far it is", lambda: row()["progress"], wait_s=LONG_S)
    begun_at, first = row()["begun_at"], row()["progress"]
    assert first["total"] == 10**6
    assert first["message"] == f"step {first['done']:g}?"
    # Longer than its timeout.
    wait_until("it goes on", lambda: time.time() > begun_at + 4 and row()["progress"] != first, wait_s=LONG_S)
    told = row()
    assert (told["state"], told["attempts"], told["begun_at"]) == ("leased", 1, begun_at)
    assert told["progress"]["done"] > first["done"]
    assert begun_at + 4 < told["deadline_at"] <= told["progress"]["at"] + 3
    assert own_server.run("calls", "show", call.object_id).count("progress: ") == 1
    assert "of 1000000" in own_server.run("calls", "list", "--state", "leased")
    gate.touch()
    assert call.get(timeout=LONG_S) > first["done"]
    assert row()["progress"] is None


def test_progress_gives_no_more_than_the_most_there_is(app: swell.App) -> None:
    with pytest.raises(swell.exception.FunctionTimeoutError, match=r"4 s \(timeout_max= of the function\)"):
        later.never_done.spawn().get(timeout=LONG_S)


def test_whoever_spawned_it_may_be_gone(own_server: PrivateSwell, app: swell.App) -> None:
    name = app.registered_functions["add"]._resolve().app
    script = f"""
import os, swell
print(swell.Function.from_name({name!r}, "add").spawn(41).object_id, flush=True)
os._exit(0)
"""
    environ = {**own_server.environ, **{n: os.environ[n] for n in ("SWELL_URL", "SWELL_KEY")}}
    done = subprocess.run(["python", "-c", script], env=environ, capture_output=True, text=True, check=True)
    assert swell.FunctionCall.from_id(done.stdout.strip()).get(timeout=LONG_S) == 42


def test_what_cannot_wait_in_the_queue_is_refused(own_server: PrivateSwell, app: swell.App) -> None:
    with pytest.raises(swell.Error) as raised:
        later.numbers.spawn()
    assert raised.value.code == "is_generator"
    # Who does not know it hears it from the server.
    refused = send(own_server, "POST", target(app, "numbers"), [3], swell_async="true")
    assert (refused.status, refused.error["code"]) == (400, "bad_request")
    assert "generator" in refused.error["message"]
    with pytest.raises(swell.Error) as raised:
        later.page.spawn()
    assert raised.value.code == "is_web"
    assert send(own_server, "POST", target(app, "gone"), [3], swell_async="true").status == 404
    too_large = r"volume.*Argument b of \S*add \(str\) has 5\d{6} bytes"
    with pytest.raises(swell.exception.RequestSizeError, match=too_large):
        later.add.spawn(1, b="x" * 5_000_000)


# -- over HTTP ---------------------------------------------------------------------------------------


def test_a_call_over_http(own_server: PrivateSwell, app: swell.App) -> None:
    id = queued(own_server, app, "add", {"a": 1}, idempotency_key="one")
    assert queued(own_server, app, "add", {"a": 1}, idempotency_key="one") == id
    result = send(own_server, "GET", f"/calls/{id}/result?wait_s=60")
    assert (result.status, result.value, result.headers["content-type"]) == (200, 2, "application/json")
    assert result.headers["swell-call-state"] == "done"
    row = send(own_server, "GET", f"/calls/{id}").value
    assert (row["id"], row["state"], row["result"], row["attempts"]) == (id, "done", 2, 1)
    assert (row["app"], row["function"]) == (target(app, "add").split("/")[2], "add")
    packed = queued(own_server, app, "add", {"a": 1}, accept="application/msgpack")
    assert send(own_server, "GET", f"/calls/{packed}/result?wait_s=60").body == b"\x02"
    assert send(own_server, "GET", f"/calls/{packed}").value["result"] is None


def test_what_it_says_beside_its_result_stands_in_its_row(own_server: PrivateSwell, app: swell.App) -> None:
    id = queued(own_server, app, "teapot", ["short"])
    row = send(own_server, "GET", f"/calls/{id}?wait_s=60").value
    assert (row["state"], row["result"], row["status"], row["headers"]) == ("done", "short", 418, {"x-mine": "short"})
    result = send(own_server, "GET", f"/calls/{id}/result")
    assert (result.status, result.value, "x-mine" in result.headers) == (200, "short", False)
    plain = send(own_server, "GET", f"/calls/{queued(own_server, app, 'add', [1])}?wait_s=60").value
    assert (plain["result"], plain["status"], plain["headers"]) == (2, None, {})
    assert later.teapot.spawn("stout").get(timeout=LONG_S) == "stout"


def test_what_failed_says_why(own_server: PrivateSwell, app: swell.App) -> None:
    for name, body, status, code in (("raises", [1], 500, "exception"), ("add", ["x"], 422, "bad_arguments")):
        id = queued(own_server, app, name, body)
        result = send(own_server, "GET", f"/calls/{id}/result?wait_s=60")
        assert (result.status, result.error["code"], result.headers["swell-call-state"]) == (status, code, "failed")
        row = send(own_server, "GET", f"/calls/{id}").value
        assert (row["state"], row["error"]["code"]) == ("failed", code)
    unknown = send(own_server, "GET", "/calls/fc-00000000000000000000000000")
    assert (unknown.status, unknown.error["code"]) == (404, "unknown_call")


def test_one_that_is_due_later_waits_and_can_be_cancelled(own_server: PrivateSwell, app: swell.App) -> None:
    id = queued(own_server, app, "add", {"a": 1}, swell_delay="1h")
    waiting = send(own_server, "GET", f"/calls/{id}/result?wait_s=0.01")
    assert (waiting.status, waiting.value["state"], waiting.headers["swell-call-state"]) == (202, "queued", "queued")
    assert send(own_server, "DELETE", f"/calls/{id}").value["state"] == "cancelled"
    assert send(own_server, "GET", f"/calls/{id}/result").error["code"] == "cancelled"


def test_whose_key_may_not_call_the_app_hears_nothing_of_its_calls(own_server: PrivateSwell, app: swell.App) -> None:
    name = target(app, "add").split("/")[2]
    mine, other = (
        own_server.run("key", "create", f"{name}-{at}", "--scope", scope).strip()
        for at, scope in enumerate((f"call:default/{name}", "call:default/other"))
    )
    id = queued(own_server, app, "add", {"a": 1}, authorization=f"Bearer {mine}")
    assert send(own_server, "GET", f"/calls/{id}?wait_s=60", key=mine).value["result"] == 2
    for method, path in (("GET", f"/calls/{id}"), ("GET", f"/calls/{id}/result"), ("DELETE", f"/calls/{id}")):
        refused = send(own_server, method, path, key=other)
        assert (refused.status, refused.error["code"]) == (404, "unknown_call")
    pickled = send(
        own_server, "POST", target(app, "add"), [1], mine, swell_async="true", accept="application/x-swell-pickle"
    )
    assert (pickled.status, pickled.error["code"]) == (401, "no_key")
    # The SDK does without, and the results are its own.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWELL_KEY", mine)
        assert swell.Function.from_name(name, "add").spawn(4).get(timeout=LONG_S) == 5


# -- the command line --------------------------------------------------------------------------------


def test_the_command_line_tells_of_calls(own_server: PrivateSwell, app: swell.App) -> None:
    name = target(app, "add").split("/")[2]
    good, bad = queued(own_server, app, "add", {"a": 1}), later.raises.spawn(3).object_id
    pickled = later.add.spawn(5)
    for id in (good, bad, pickled.object_id):
        send(own_server, "GET", f"/calls/{id}?wait_s=60")
    listed = own_server.run("calls", "list", name, "-n", "3").splitlines()
    # By their ids, which begin with the millisecond in which they were accepted.
    ids = sorted((good, bad, pickled.object_id), reverse=True)
    assert [line.split()[0] for line in listed[1:]] == ids
    (failed,) = (line for line in listed if bad in line)
    assert "failed" in failed
    assert "LookupError" in failed
    newest = json.loads(own_server.run("calls", "list", name, "--state", "failed", "-n", "1", "--json"))
    assert [row["id"] for row in newest] == [bad]
    older = own_server.run("calls", "list", name, "--before", ids[1])
    assert ids[2] in older
    assert ids[0] not in older
    assert ids[1] not in older
    assert own_server.run("calls", "show", good).splitlines()[-1] == "2"
    assert own_server.run("calls", "show", pickled.object_id).splitlines()[-1] == "6"
    assert json.loads(own_server.run("calls", "show", good, "--json"))["result"] == 2
    assert f"swell calls retry {bad}" in own_server.run("why", bad)
    assert "raise LookupError" in own_server.run("logs", name, "--request", bad)
    assert "queued again" in own_server.run("calls", "retry", bad)
    wait_until("it failed again", lambda: send(own_server, "GET", f"/calls/{bad}").value["state"] == "failed")
    assert f"{good} had ended before: it is done." in own_server.run("calls", "cancel", good)


def test_dead_letters_are_looked_at_mended_and_tried_again(
    own_server: PrivateSwell, app: swell.App, tmp_path: Path
) -> None:
    name = target(app, "add").split("/")[2]
    wrong, pickled = queued(own_server, app, "add", {"a": "x"}), later.halved.spawn("none").object_id

    def ended(id: str) -> str:
        return str(send(own_server, "GET", f"/calls/{id}?wait_s=60").value["state"])

    assert [ended(id) for id in (wrong, pickled)] == ["failed", "failed"]
    assert own_server.run("calls", "show", wrong).splitlines()[-1] == 'input: {"a": "x"}'
    assert own_server.run("calls", "show", pickled).splitlines()[-1] == 'input: ["none"]'
    row = json.loads(own_server.run("calls", "show", wrong, "--json"))
    assert (row["state"], row["input_type"], row["input"]) == ("failed", "application/json", {"a": "x"})
    own_server.run("calls", "retry", wrong, "--input", '{"a": 2, "b": 3}')
    assert ended(wrong) == "done"
    assert own_server.run("calls", "show", wrong).splitlines()[-1] == "5"
    # What is more than plain data is mended by a program, in the file.
    file = tmp_path / "input"
    own_server.run("calls", "show", pickled, "--input", str(file))
    args, kwargs = pickle.loads(file.read_bytes())
    assert (args, kwargs) == (("none",), {})
    file.write_bytes(pickle.dumps(((Fraction(1, 2),), {})))
    own_server.run("calls", "retry", pickled, "--input", f"@{file}")
    assert swell.FunctionCall.from_id(pickled).get() == Fraction(1, 4)
    # Of one that is done nothing is left to be shown or tried.
    with pytest.raises(Failed, match="is not kept"):
        own_server.run("calls", "show", wrong, "--input", "-")
    # Many at once; none of them twice, though each fails again at once.
    bad = [later.raises.spawn(n).object_id for n in range(5)]
    assert {ended(id) for id in bad} == {"failed"}
    letters = json.loads(own_server.run("calls", "list", name, "--state", "failed", "-n", "1000", "--json"))
    count = sum(row["function"] == "raises" for row in letters)
    said = f"{count} calls are queued again.\n"
    assert own_server.run("calls", "retry", "--app", name, "--function", "raises", "--since", "1h") == said
    assert {ended(id) for id in bad} == {"failed"}


# -- what changes meanwhile --------------------------------------------------------------------------


def test_calls_of_an_app_that_is_stopped_wait_for_it(own_server: PrivateSwell, tmp_path: Path) -> None:
    program = tmp_path / "staying.py"
    program.write_text(STAYING)
    for delay_s in (1, 4, 16, 64):
        own_server.run("deploy", str(program))
        delay = {"swell_async": "true", "swell_delay": str(delay_s)}
        plain, variant = (
            send(own_server, "POST", f"/call/staying/{name}", [4], **delay).value["id"]
            for name in ("twice", "Plus.add?n=30")
        )
        own_server.run("app", "stop", "staying")
        if send(own_server, "GET", f"/calls/{plain}").value["due_at"] > time.time():
            break  # It was stopped before the calls were due.
    wait_until(
        "both are due", lambda: send(own_server, "GET", f"/calls/{variant}").value["due_at"] < time.time(), wait_s=120
    )
    assert send(own_server, "GET", f"/calls/{plain}?wait_s=1").value["state"] == "queued"
    said = "it waits for a replica: nothing of that name is deployed"
    assert said in " ".join(own_server.run("calls", "show", plain).split())
    assert said in " ".join(own_server.run("calls", "show", variant).split())
    own_server.run("deploy", str(program))
    assert send(own_server, "GET", f"/calls/{plain}/result?wait_s=60").value == 8
    # Nobody has called it so since.
    assert send(own_server, "GET", f"/calls/{variant}/result?wait_s=60").value == 34


def test_what_waits_when_a_program_ends_is_cancelled_and_says_why(own_server: PrivateSwell) -> None:
    with brief.app.run():
        name = brief.app.registered_functions["one"]._resolve().app
        answer = send(own_server, "POST", f"/call/{name}/one", [], swell_async="true", swell_delay="1h")
    result = send(own_server, "GET", f"/calls/{answer.value['id']}/result?wait_s=60")
    assert (result.status, result.error["code"]) == (409, "cancelled")
    assert "program" in result.error["message"]


def test_what_came_with_a_key_runs_though_that_has_ended_and_as_long_as_its_function_may(
    own_server: PrivateSwell, app: swell.App, tmp_path: Path
) -> None:
    name, own = target(app, "add").split("/")[2], (own_server.home / "key").read_text().strip()

    def row(id: str) -> Any:
        return send(own_server, "GET", f"/calls/{id}", key=own).value

    for delay_s in (2, 8, 32):
        scope = ("--scope", f"call:default/{name}", "--timeout", "30s")
        key = own_server.run("key", "create", f"{name}-{delay_s}", *scope).strip()
        mine = {"authorization": f"Bearer {key}"}
        runs = queued(own_server, app, "forever", {"mark": str(tmp_path / f"{delay_s}")}, **mine)
        wait_until("it runs", lambda: row(runs)["deadline_at"], wait_s=60)
        assert row(runs)["deadline_at"] - row(runs)["begun_at"] == pytest.approx(600.0)
        id = queued(own_server, app, "add", {"a": 1}, **mine, swell_delay=str(delay_s))
        own_server.run("key", "revoke", f"{name}-{delay_s}")
        assert send(own_server, "GET", f"/calls/{id}", key=key).error["code"] == "key_revoked"
        in_time = row(id)["due_at"] > time.time()
        assert row(runs)["state"] == "leased"
        assert send(own_server, "DELETE", f"/calls/{runs}", key=own).value["state"] == "cancelled"
        if in_time:
            break  # It was revoked before the call was due.
    assert send(own_server, "GET", f"/calls/{id}/result?wait_s=60", key=own).value == 2


def test_large_results_are_had_whole_whatever_restarts(own_server: PrivateSwell, app: swell.App) -> None:
    size = 20 * 1024**2
    call = later.zeros.spawn(size)
    folder = own_server.home / "results"
    assert call.get(timeout=LONG_S) == bytes(size)
    (kept,) = folder.iterdir()
    assert kept.stat().st_size > size
    assert "large, of" in own_server.run("calls", "show", call.object_id)
    # Nothing that is so large is in the database, nor of what is to be told.
    assert (own_server.home / "control.db").stat().st_size < size
    wait_until("the runner need not keep it", lambda: not list(own_server.home.glob("run/e/*.result")))
    more = [later.zeros.spawn(size + n) for n in range(2)]
    os.kill(own_server.server("control"), signal.SIGKILL)
    os.kill(own_server.server("runner"), signal.SIGKILL)
    assert [len(result) for result in swell.FunctionCall.gather(*more)] == [size, size + 1]
    assert call.get(timeout=LONG_S) == bytes(size)
    assert [len(each) for each in later.zeros.map([5, size, 7])] == [5, size, 7]
    assert sorted(map(len, later.zeros.map([size, 3], order_outputs=False))) == [3, size]
    assert [len(each) for each in later.zeros.spawn_map([size, 1]).iter()] == [size, 1]


def test_a_result_that_is_too_large_for_the_queue_says_what_to_do(app: swell.App) -> None:
    size = RESULT_MAX + 1
    with pytest.raises(swell.exception.SerializationError, match=r"more than 64 MiB.* volume.*\.remote\(\)"):
        list(later.zeros.map([1, size]))
    assert later.zeros.remote(size) == bytes(size)


def test_a_call_that_kills_its_replica_takes_none_of_those_beside_it_along(app: swell.App) -> None:
    names = ["one", "poison", "two", "three"]
    calls = [later.among.spawn(name) for name in names]
    with pytest.raises(swell.exception.RemoteError, match="the last of 4 attempts"):
        calls[1].get(timeout=LONG_S)
    for name, call in zip(names, calls, strict=True):
        assert name == "poison" or call.get(timeout=LONG_S) == name


def test_a_call_is_queued_as_its_caller_wants_and_runs_no_longer(
    own_server: PrivateSwell, app: swell.App, tmp_path: Path
) -> None:
    marks = [str(tmp_path / mark) for mark in "ab"]
    spawned = later.forever.with_queueing(timeout=0.5, priority=3, delay=0.1).spawn(marks[0])
    over_http = queued(own_server, app, "forever", [marks[1]], swell_timeout="0.5")
    with pytest.raises(swell.exception.FunctionTimeoutError, match=r"0\.5 s \(timeout of this call\)"):
        spawned.get()
    row = send(own_server, "GET", f"/calls/{spawned.object_id}").value
    assert (row["state"], row["priority"], row["attempts"]) == ("failed", 3, 1)
    assert row["due_at"] - row["accepted_at"] == pytest.approx(0.1, abs=0.001)
    row = send(own_server, "GET", f"/calls/{over_http}?wait_s=60").value
    assert (row["state"], row["error"]["code"]) == ("failed", "deadline")
    wait_until("both were stopped", lambda: not any(Path(mark).exists() for mark in marks))
    # No less than its function gives is no more than that; and one key is one call.
    once = later.add.with_queueing(timeout=10_000, idempotency_key="mine")
    assert once.spawn(1) == once.spawn(1)
    assert once.spawn(1).get() == 2
    assert list(later.add.with_queueing(priority=-1).map(range(3))) == [1, 2, 3]


def test_options_are_of_spawned_calls_too(app: swell.App, tmp_path: Path) -> None:
    mark = tmp_path / "runs"
    with pytest.raises(swell.exception.FunctionTimeoutError):
        later.forever.with_options(timeout=1).spawn(str(mark)).get(timeout=LONG_S)
    wait_until("it is stopped", lambda: not mark.exists())


# -- what dies meanwhile -----------------------------------------------------------------------------


def test_control_may_die_while_calls_wait_run_and_are_waited_for(own_server: PrivateSwell, app: swell.App) -> None:
    calls = [later.add.spawn(n) for n in range(20)]
    os.kill(own_server.server("control"), signal.SIGKILL)
    # New ones are accepted as soon as there is one again; nobody has to do anything for that.
    calls += [later.add.spawn(n) for n in range(20, 40)]
    assert swell.FunctionCall.gather(*calls) == [n + 1 for n in range(40)]


def test_a_call_whose_replica_dies_is_tried_again(own_server: PrivateSwell, app: swell.App, tmp_path: Path) -> None:
    mark = tmp_path / "runs"
    call = later.forever.spawn(str(mark))
    wait_until("it runs", lambda: mark.exists() and mark.read_text())
    pid = int(mark.read_text())
    mark.unlink()
    os.kill(pid, signal.SIGKILL)
    wait_until("it runs again", lambda: mark.exists() and mark.read_text() not in ("", str(pid)))
    row = send(own_server, "GET", f"/calls/{call.object_id}").value
    assert (row["state"], row["attempts"], row["error"]["code"]) == ("leased", 2, "replica_died")
    assert "while it had the call (its process crashed: " in row["error"]["message"]
    call.cancel()
    wait_until("it is stopped", lambda: not mark.exists())
    assert time.time() >= row["accepted_at"]
