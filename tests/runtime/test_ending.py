"""When does a replica end for inputs that it cannot stop?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from node import Node, alive, call, run, within

from swell.model.policy import Policy
from swell.model.replica import Phase
from swell.runtime.runner.children import Child, Ending
from swell.runtime.runner.ending import Endings
from swell.wire.child import Stuck


class Told:
    """What a replica that is ready sends, and what control is told of it."""

    def __init__(self, grace_s: float) -> None:
        self.child = Child("r1-1", "pool", "serving", None, 60.0, 0.0)
        self.child.phase = Phase.READY
        self.reported: list[tuple[Phase, str]] = []
        owner: Any = SimpleNamespace(settings=SimpleNamespace(policy=Policy(stop_grace_s=grace_s)), report=self.report)
        self.endings = Endings(owner, lambda _seen: None)

    def report(self, child: Child) -> None:
        seen = child.seen("n")
        self.reported.append((seen.phase, seen.reason))

    def stuck(self, *requests: str, ending: bool = False) -> None:
        self.endings.stuck(self.child, Stuck(requests, ending))


def test_what_returns_in_time_ends_nothing() -> None:
    async def scenario() -> None:
        told = Told(60.0)
        child = told.child
        told.stuck("a")
        since = child.stuck["a"]
        told.stuck("a", "b")
        # Each counts from when it was listed itself.
        assert child.stuck["a"] == since <= child.stuck["b"]
        assert child.seen("n").stuck == 2
        first = child.timers["stuck"].when()
        told.stuck("b")
        assert child.timers["stuck"].when() >= first
        told.stuck()
        assert (child.timers, child.phase, child.ending) == ({}, Phase.READY, None)

    asyncio.run(scenario())


def test_what_does_not_has_its_replica_drain() -> None:
    async def scenario() -> None:
        told = Told(0.0)
        child = told.child
        told.stuck("a")
        async with asyncio.timeout(30):
            while not told.reported:  # noqa: ASYNC110 — nothing tells us of it
                await asyncio.sleep(0.001)
        assert told.reported == [(Phase.DRAINING, "stuck")]
        assert child.ending == Ending("stuck", "request a")
        # Others may be in the way, too, and its exit hooks are not waited for for ever.
        told.stuck("a", "b")
        assert child.ending == Ending("stuck", "request a")
        assert "leaving" not in child.timers
        told.stuck("a", "b", ending=True)
        assert "leaving" in child.timers
        child.cancel_timers()

    asyncio.run(scenario())


def test_one_that_drains_anyway_is_told_nothing_more() -> None:
    async def scenario() -> None:
        told = Told(0.0)
        told.child.phase = Phase.DRAINING
        told.stuck("a")
        assert (told.child.timers, told.child.ending, told.reported) == ({}, None, [])

    asyncio.run(scenario())


NEVER_LEAVES = """
import time
class C:
    def f(self):
        time.sleep(600)
    def bye(self):
        print("goodbye", flush=True)
        time.sleep(600)
"""


@pytest.mark.slow
def test_exit_hooks_beside_what_cannot_be_stopped_have_the_grace_of_a_stop() -> None:
    async def scenario(node: Node) -> None:
        a = await node.ready(node.start(node.revision(NEVER_LEAVES, "C", exit=("bye",))))
        assert (await within(call(a.address, remaining_ms=300)))[0] == 504
        gone = await node.gone(a.replica)
        assert gone.reason == "stuck"
        assert not alive(a.pid or 0)
        # Others are not sent there meanwhile.
        assert Phase.DRAINING in {seen.phase for seen in node.seen(a.replica)}
        await node.until(lambda: any(line["text"] == "goodbye" for line in node.log()))

    run(scenario, policy=Policy(stop_grace_s=1.0))


BESIDE = """
import os, time
class C:
    def f(self, until):
        print("begun", flush=True)
        while not os.path.exists(until):
            time.sleep(0.01)
        return "done"
    def sleep(self):
        time.sleep(600)
    def bye(self):
        print("goodbye", flush=True)
"""


@pytest.mark.slow
def test_what_cannot_be_stopped_beside_others_ends_its_replica_once_they_are_done(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        revision = node.revision(BESIDE, "C", methods=["f", "sleep"], exit=("bye",), max_inputs=2)
        a = await node.ready(node.start(revision))
        body = msgspec.json.encode({"until": str(tmp_path / "over")})
        beside = asyncio.create_task(call(a.address, "f", body, remaining_ms=60_000))
        await node.until(lambda: any(line["text"] == "begun" for line in node.log()))
        assert (await within(call(a.address, "sleep", remaining_ms=300)))[0] == 504
        await node.until(lambda: any(seen.phase is Phase.DRAINING for seen in node.seen(a.replica)))
        assert next(seen for seen in node.seen(a.replica) if seen.phase is Phase.DRAINING).reason == "stuck"
        (tmp_path / "over").touch()
        assert (await within(beside))[0] == 200
        assert (await node.gone(a.replica)).reason == "stuck"
        await node.until(lambda: any(line["text"] == "goodbye" for line in node.log()))

    run(scenario, policy=Policy(stop_grace_s=3.0))
