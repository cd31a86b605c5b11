"""Does a deploy cost a request? What serves goes on until its successor is ready, on a real platform.

`SWELL_DEPLOYS` makes the run under load longer.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from journey.callers import events
from private_swell import Failed, PrivateSwell, unstarted_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEPLOYS = int(os.environ.get("SWELL_DEPLOYS", "50"))
KILL_EVERY = 12
"""One deploy in so many meets a control that is killed."""
WAYS = ("kept", "new", "stream") * 2
"""How callers call: on one connection, on a new one each time, or for answers that come bit by bit."""
BODIES = (b"{}",) * 3 + (b"{}" + b" " * 40_000,) * 3
"""What each of them sends. Of the long ones a replica may have read a part when it closes its door."""

PROGRAM = """
import asyncio, os
import swell

app = swell.App("roll")


@app.cls({options})
@swell.concurrent(max_inputs=4)
class Roll:
    @swell.enter()
    def begin(self):
        {begin}

    @swell.method()
    async def version(self) -> int:
        await asyncio.sleep(0.01)
        return {version}

    @swell.method()
    async def versions(self):
        for _ in range(5):
            await asyncio.sleep(0.02)
            yield {version}
"""
WARM = "min_containers=1, max_containers=3"

Deploy = Callable[..., str]


@pytest.fixture
def swell(request: pytest.FixtureRequest) -> Iterator[PrivateSwell]:
    """With as many gateways as the test asks for; one where it does not."""
    gateways = str(getattr(request, "param", 1))
    settings = ("roll_wait_s=2", "cpu_overcommit=1", "restarts_within_s=1")
    with unstarted_swell() as made:
        made.run("up", "-d", "--gateways", gateways, *(word for each in settings for word in ("--set", each)))
        yield made
        print(made.log(200))


@pytest.fixture
def deploy(swell: PrivateSwell, tmp_path: Path) -> Deploy:
    """Deploys a program that answers with its version; returns what was printed."""

    def deploy(version: int, *words: str, begin: str = "pass", options: str = WARM) -> str:
        file = tmp_path / "roll.py"
        file.write_text(PROGRAM.format(version=version, begin=begin, options=options))
        return swell.run("deploy", *words, str(file))

    return deploy


def version(swell: PrivateSwell) -> int:
    with swell.connect() as client:
        return int(client.call("roll/Roll.version").value)


@dataclass
class Calls:
    """What callers got who call one after the other, as fast as they can."""

    port: int
    over: threading.Event = field(default_factory=threading.Event)
    answers: list[list[tuple[float, int]]] = field(default_factory=lambda: [[] for _ in WAYS])
    """By caller: when it was asked, and the version that answered."""
    failed: list[str] = field(default_factory=list)

    def call(self, way: str, body: bytes, mine: list[tuple[float, int]]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        method = "versions" if way == "stream" else "version"
        while not self.over.is_set():
            begun = time.monotonic()
            try:
                connection.request("POST", f"/call/roll/Roll.{method}", body)
                answer = connection.getresponse()
                got = answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(f"{way}: {error!r}")
                return
            if answer.status != 200:
                self.failed.append(f"{way}: {answer.status} {got[:300].decode(errors='replace')}")
                continue
            whole = [*events(got)] if way == "stream" else [("message", json.loads(got))] * 5 + [("end", None)]
            told = {data for event, data in whole if event == "message"}
            if len(told) == 1 and [event for event, _ in whole] == ["message"] * 5 + ["end"]:
                mine.append((begun, told.pop()))
            else:
                self.failed.append(f"{way}: {got!r}")
            if way == "new":
                connection.close()


@contextmanager
def callers(port: int) -> Iterator[Calls]:
    calls = Calls(port)
    threads = [threading.Thread(target=calls.call, args=one) for one in zip(WAYS, BODIES, calls.answers, strict=True)]
    for thread in threads:
        thread.start()
    try:
        yield calls
    finally:
        calls.over.set()
        for thread in threads:
            thread.join()


def test_no_request_fails_while_an_app_is_deployed_again_and_again(swell: PrivateSwell, deploy: Deploy) -> None:
    deploy(1)
    done: list[tuple[float, int]] = []
    with callers(swell.port) as calls:
        for number in range(2, DEPLOYS + 2):
            if number % KILL_EVERY == 0:
                threading.Timer(0.3, os.kill, (swell.server("control"), signal.SIGKILL)).start()
            # Whose control is killed may have to be made again.
            wait_until("it is deployed", lambda number=number: deploys(deploy, number), wait_s=120, pause_s=0.2)
            done.append((time.monotonic(), number))
    assert calls.failed == []
    assert min(map(len, calls.answers)) > 0
    for mine in calls.answers:
        told = [version for _, version in mine]
        assert told == sorted(told), "a caller was answered by a version before that which answered it last"
        for at, number in done:
            after = [version for begun, version in mine if begun > at]
            assert not after or min(after) >= number, f"v{number} was deployed, and an older one answered"


@pytest.mark.parametrize("swell", [2], indirect=True, ids=["two gateways"])
def test_no_request_fails_while_versions_are_promoted_and_taken_back(swell: PrivateSwell, deploy: Deploy) -> None:
    """What takes over was made ready beside, and what is rolled back to is started anew."""
    deploy(1)
    now: list[tuple[float, int]] = [(time.monotonic(), 1)]
    with callers(swell.port) as calls:
        for number in range(2, 2 + max(3, DEPLOYS // 10)):
            deploy(number, "--strategy", "blue-green")
            swell.run("app", "promote", "roll")
            now.append((time.monotonic(), number))
            swell.run("app", "rollback", "roll")
            now.append((time.monotonic(), number - 1))
            deploy(number)
            now.append((time.monotonic(), number))
    assert calls.failed == []
    for mine in calls.answers:
        assert mine
        for at, version in mine:
            before = [number for since, number in now if since <= at][-1:]
            after = [number for since, number in now if since > at][:1]
            assert version in (*before, *after), "of those that had the traffic then, or were about to"


def deploys(deploy: Deploy, number: int) -> bool:
    try:
        deploy(number)
    except Failed:
        return False
    return True


def test_what_does_not_start_changes_nothing_and_is_told(swell: PrivateSwell, deploy: Deploy) -> None:
    deploy(1)
    assert version(swell) == 1
    with pytest.raises(Failed, match="v2 does not start") as failed:
        deploy(2, begin="raise RuntimeError('no weights')")
    told = " ".join(str(failed.value).split())
    assert "no weights; v1 still serves. `swell logs roll` has what it wrote." in told
    assert version(swell) == 1
    said = swell.run("app", "list")
    assert "roll/Roll: v2 does not start" in said
    assert "no weights; v1 still serves." in " ".join(said.split())
    assert [line.split()[1] for line in said.splitlines() if line.startswith("roll ")] == ["1"]
    assert "v1        100%" in swell.run("app", "traffic", "roll")
    assert "v2 does not start" in swell.run("ps")
    _, broken, old, _, *why = swell.run("app", "history", "roll").splitlines()
    assert (broken.split()[0], old.split()[0]) == ("v2", "v1*")
    assert "Roll: v2 does not start" in " ".join(why)
    # Nor does a control that begins anew take it for what serves.
    os.kill(swell.server("control"), signal.SIGKILL)
    wait_until("v2 was tried again", lambda: "v2 does not start" in listed(swell))
    assert version(swell) == 1
    deploy(3)
    assert version(swell) == 3
    wait_until("v1 is gone", lambda: len({one["revision"] for one in swell.serving()}) == 1)
    assert "does not start" not in swell.run("app", "list")
    # What never had the traffic is passed over.
    assert "roll is v4 now" in swell.run("app", "rollback", "roll")
    assert version(swell) == 1


def listed(swell: PrivateSwell) -> str:
    try:
        return swell.run("app", "list")
    except Failed:
        return ""


@pytest.mark.shows("App.deploy", "strategy")
def test_recreated_it_gives_way_at_once(swell: PrivateSwell, deploy: Deploy) -> None:
    deploy(1)
    assert version(swell) == 1
    deploy(2, "--strategy", "recreate", begin="raise RuntimeError('no weights')")
    with pytest.raises(Failed, match="no weights"):
        version(swell)


def test_where_there_is_no_room_for_both_the_one_before_gives_way(swell: PrivateSwell, deploy: Deploy) -> None:
    large = f"min_containers=1, max_containers=1, cpu={0.7 * (os.cpu_count() or 1)}"
    deploy(1, options=large)
    wait_until("v1 is warm", lambda: any(one["phase"] == "ready" for one in swell.serving()))
    with callers(swell.port) as calls:
        deploy(2, options=large)
        assert version(swell) == 2
    assert calls.failed == []


def test_what_nobody_uses_is_not_started_to_take_over(swell: PrivateSwell, deploy: Deploy) -> None:
    deploy(1, options="")
    deploy(2, options="")
    assert swell.serving() == []
    assert version(swell) == 2
