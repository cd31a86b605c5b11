"""What becomes of queued calls at a real runner, whatever of it, of its replicas or of control ends?"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import msgspec
import pytest
from node import Node, alive, kill, run, within
from queued_place import Rival

from swell.model.call import Body
from swell.model.events import ReplicaSeen
from swell.model.replica import Phase
from swell.model.workload import Batch, Method
from swell.wire.calls import CallEnd, EndedHeard, Grant, Granted, Lease, NewCall, Resume, Revoke

pytestmark = pytest.mark.slow

SERVICE = """
import asyncio, os
async def f(seconds=0, says="done"):
    print(f"at work {says}", flush=True)
    await asyncio.sleep(seconds)
    if says == "raise":
        raise ValueError("no")
    return [says, os.getpid()]
"""
LONG = "[600]"
numbers = itertools.count(1)


class Queue:
    """Control's queue: what it is told, in the order in which it comes with what is told of replicas."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.told: list[CallEnd | ReplicaSeen] = []
        self.holding: tuple[Lease, ...] = ()
        self.welcomes = 0
        self.kept: Callable[[Sequence[str]], Collection[str]] = set
        node.link.queue = self
        node.hear = lambda fact: self.told.append(fact) if isinstance(fact, ReplicaSeen) else None

    async def accept(self, new: NewCall) -> str:
        raise AssertionError(new)

    def heard_ends(self, node: str, ends: Iterable[CallEnd]) -> None:
        assert node == "local"
        self.told += ends

    def heard_holding(self, _node: str, leases: Iterable[Lease], _running: object) -> None:
        self.holding = tuple(leases)

    def welcomed(self, _node: str) -> None:
        self.welcomes += 1

    def roomy(self) -> None: ...

    # -- what is said ------------------------------------------------------------------------

    def grant(self, replica: str, *bodies: str, epoch: int | None = None, timeout_s: float = 60.0) -> list[Lease]:
        calls = tuple(
            Granted(f"fc-{next(numbers)}", 7, "f", Body("application/json", body.encode()), "", timeout_s)
            for body in bodies
        )
        self.say(Grant(self.node.epoch if epoch is None else epoch, replica, calls))
        return [(each.id, each.token) for each in calls]

    def say(self, message: Any) -> None:
        assert self.node.link.send("local", message)

    def end(self, lease: Lease) -> CallEnd | None:
        ends = [one for one in self.told if isinstance(one, CallEnd) and (one.id, one.token) == lease]
        assert all(one == ends[0] for one in ends)
        return ends[0] if ends else None

    async def ended(self, *leases: Lease) -> list[CallEnd]:
        await self.node.until(lambda: all(self.end(lease) for lease in leases))
        return [end for lease in leases if (end := self.end(lease)) is not None]

    async def at_work(self, number: int) -> None:
        await self.node.until(lambda: sum(row["text"].startswith("at work") for row in self.node.log()) == number)


def test_calls_are_worked_on_as_many_at_a_time_as_there_are_slots() -> None:
    async def scenario(node: Node) -> None:
        queue = Queue(node)
        replica = await node.ready(node.start(node.revision(SERVICE, max_inputs=2)))
        leases = queue.grant(replica.replica, *(f'[0.01, "{number}"]' for number in range(20)), '[0, "raise"]')
        ends = await queue.ended(*leases)
        assert [end.body.data for end in ends[:20]] == [f'["{number}",{replica.pid}]'.encode() for number in range(20)]
        assert (ends[20].code, ends[20].message) == ("exception", "ValueError: no")
        assert all(end.run_us > 0 for end in ends)
        assert all(end.replica == replica.replica for end in ends)
        await node.until(lambda: set(queue.holding) == set(leases))
        queue.say(EndedHeard(tuple(leases[:20])))
        await node.until(lambda: queue.holding == (leases[20],))
        queue.say(EndedHeard((leases[20],)))

    run(scenario)


def test_gateways_and_the_queue_share_the_slots() -> None:
    source = """
    import asyncio
    now = most = 0
    async def f(name):
        global now, most
        now += 1
        most = max(now, most)
        await asyncio.sleep(0.01)
        now -= 1
        return most
    """

    async def scenario(node: Node) -> None:
        queue = Queue(node)
        replica = await node.ready(node.start(node.revision(source, max_inputs=2)))
        path = replica.address.removeprefix("unix:")
        leases = queue.grant(replica.replica, *['["q"]'] * 30)
        rivals = [Rival(path, "g", "f") for _ in range(30)]
        await within(asyncio.gather(*(rival.task for rival in rivals)))
        assert {rival.status for rival in rivals} == {200}
        ends = await queue.ended(*leases)
        assert {end.code for end in ends} == {""}
        assert max(int(end.body.data) for end in ends) == 2

    run(scenario)


def test_a_replica_that_is_killed_costs_what_it_ran_and_tells_before_that_it_is_over() -> None:
    async def scenario(node: Node) -> None:
        queue = Queue(node)
        replica = await node.ready(node.start(node.revision(SERVICE)))
        done, runs, waits = queue.grant(replica.replica, "[0]", LONG, LONG)
        await queue.at_work(2)
        kill(replica.pid or 0)
        await node.gone(replica.replica)
        assert [end.code for end in await queue.ended(done, runs, waits)] == ["", "replica_died", "drained"]
        over = next(at for at, one in enumerate(queue.told) if isinstance(one, ReplicaSeen) and one.phase is Phase.GONE)
        assert not any(isinstance(one, CallEnd) for one in queue.told[over:])

    run(scenario)


def test_a_replica_that_takes_one_input_tells_its_answer_before_it_is_over() -> None:
    async def scenario(node: Node) -> None:
        queue = Queue(node)
        revision = node.revision(SERVICE, single_use=True)
        for _ in range(5):
            replica = await node.ready(node.start(revision))
            (lease,) = queue.grant(replica.replica, "[0]")
            assert (await node.gone(replica.replica)).reason == "served"
            end = queue.end(lease)
            assert end is not None
            assert end.code == ""

    run(scenario)


def test_a_replica_that_is_told_to_end_finishes_what_it_runs_and_gives_back_the_rest() -> None:
    async def scenario(node: Node) -> None:
        queue = Queue(node)
        replica = await node.ready(node.start(node.revision(SERVICE)))
        runs, waits = queue.grant(replica.replica, '[0.7, "runs"]', LONG)
        await queue.at_work(1)
        node.stop(replica.replica, grace_s=30.0)
        (given_back,) = await queue.ended(waits)
        assert given_back.code == "drained"
        (end,) = await queue.ended(runs)
        assert end.code == ""
        assert (await node.gone(replica.replica)).reason == "idle"
        (late,) = queue.grant(replica.replica, "[0]")
        assert (await queue.ended(late))[0].code == "drained"

    run(scenario)


def test_what_nobody_wants_any_more_is_stopped() -> None:
    async def scenario(node: Node) -> None:
        queue = Queue(node)
        replica = await node.ready(node.start(node.revision(SERVICE)))
        runs, waits, next_one = queue.grant(replica.replica, LONG, LONG, '[0, "next"]')
        await queue.at_work(1)
        queue.say(Revoke((runs, waits)))
        assert [end.code for end in await queue.ended(runs, waits, next_one)] == ["cancelled", "cancelled", ""]
        await queue.at_work(2)

    run(scenario)


def test_control_may_be_away_for_a_while() -> None:
    """What ends meanwhile is told to the next one, and what runs or waits is not disturbed."""

    async def scenario(node: Node) -> None:
        queue = Queue(node)
        replica = await node.ready(node.start(node.revision(SERVICE)))
        leases = queue.grant(replica.replica, *(f'[0.05, "{number}"]' for number in range(6)))
        await queue.ended(leases[0])
        await node.link.close()
        await node.until(lambda: not node.connected.is_set())
        await queue.at_work(6)
        await node.until(lambda: len(list(node.home.call_ends.iterdir())) >= 5)
        node.epoch = 2
        await node.open_link()
        queue = Queue(node)
        await within(node.connected.wait())
        assert [end.code for end in await queue.ended(*leases[1:])] == [""] * 5
        queue.say(EndedHeard(tuple(leases)))
        await node.until(lambda: not list(node.home.call_ends.iterdir()))
        # One of an earlier control is not obeyed.
        (old,) = queue.grant(replica.replica, "[0]", epoch=1)
        (new,) = queue.grant(replica.replica, "[0]")
        await queue.ended(new)
        assert queue.end(old) is None

    run(scenario)


def test_the_next_runner_takes_what_the_one_before_had_not_told_and_what_goes_on() -> None:
    async def scenario(node: Node) -> None:
        queue = Queue(node)
        replica = await node.ready(node.start(node.revision(SERVICE, max_inputs=3)))
        done, runs, endless, wanted, waits = queue.grant(
            replica.replica, '[0.3, "done"]', '[6, "runs"]', LONG, LONG, LONG
        )
        await queue.at_work(4)
        await node.link.close()
        await node.until(lambda: list(node.home.call_ends.glob("fc-*")))
        await node.kill_runner()
        await node.open_link()
        queue = Queue(node)
        node.facts.clear()
        await node.start_runner()
        await node.until(lambda: queue.welcomes)
        leases = (done, runs, endless, wanted, waits)
        queue.say(Resume(1, ((replica.replica, leases),)))
        # What was not begun was no attempt; all else goes on, and is had by somebody all the time.
        assert [end.code for end in await queue.ended(done, waits)] == ["", "drained"]
        await node.until(lambda: set(queue.holding) >= {runs, endless, wanted})
        queue.say(Revoke((endless,)))
        assert [end.code for end in await queue.ended(endless, runs)] == ["cancelled", ""]
        assert queue.end(wanted) is None
        # What was revoked is stopped: its slot is free for another.
        again = queue.grant(replica.replica, '[0, "again"]', '[0, "again"]')
        assert [end.code for end in await queue.ended(*again)] == ["", ""]
        await queue.at_work(6)
        assert alive(replica.pid or 0)
        queue.say(Revoke((wanted,)))
        await queue.ended(wanted)
        queue.say(EndedHeard((*leases, *again)))
        await node.until(lambda: not list(node.home.call_ends.iterdir()))

    run(scenario)


def test_what_a_replica_answered_while_there_was_no_runner_is_told_by_the_next_also_where_it_ends() -> None:
    source = """
    import asyncio, os, pathlib
    async def f(path):
        print("at work", flush=True)
        while not os.path.exists(path + ".go"):
            await asyncio.sleep(0.01)
        with open(path, "a") as file:
            file.write("ran")
        return "answer"
    """

    async def scenario(node: Node) -> None:
        queue = Queue(node)
        revision = node.revision(source)
        paths = [node.home.root / name for name in ("stays", "ends")]
        stays, ends = [await node.ready(node.start(revision)) for _ in range(2)]
        both = (stays, ends)
        leases = [
            lease for one, path in zip(both, paths, strict=True) for lease in queue.grant(one.replica, f'["{path}"]')
        ]
        await queue.at_work(2)
        node.stop(ends.replica, grace_s=60.0)
        await node.until(lambda: any(seen.phase is Phase.DRAINING for seen in node.seen(ends.replica)))
        await node.kill_runner()
        for path in paths:
            path.with_name(path.name + ".go").touch()
        await node.until(lambda: all(path.exists() for path in paths))
        node.facts.clear()
        await node.start_runner()
        await node.until(lambda: queue.welcomes)
        queue.say(Resume(1, ((stays.replica, (leases[0],)), (ends.replica, (leases[1],)))))
        assert [end.code for end in await queue.ended(*leases)] == ["", ""]
        assert [path.read_text() for path in paths] == ["ran", "ran"]
        queue.say(EndedHeard(tuple(leases)))
        await node.gone(ends.replica)

    run(scenario)


def test_a_runner_that_ends_in_order_tells_what_came_of_calls() -> None:
    async def scenario(node: Node) -> None:
        queue = Queue(node)
        replica = await node.ready(node.start(node.revision(SERVICE)))
        runs, waits = queue.grant(replica.replica, '[0.5, "last"]', LONG)
        await queue.at_work(1)
        assert await node.stop_runner() == 0
        assert [end.code for end in await queue.ended(runs, waits)] == ["", "drained"]
        # Nobody said that it was heard: it is there for the next one.
        assert len(list(node.home.call_ends.iterdir())) == 2

    run(scenario)


def test_forks_and_batches_take_calls_of_the_queue_too() -> None:
    source = """
    import threading

    others = threading.Event()

    def f(xs):
        # The first waits for nobody to be begun; it is not over before the others have come, and run beside it.
        others.set() if len(xs) > 1 else others.wait(60)
        return [[x, len(xs)] for x in xs]
    """

    async def scenario(node: Node) -> None:
        queue = Queue(node)
        # Room for two batches, and for one that fills.
        revision = node.revision(source, max_inputs=12)
        entry = msgspec.structs.replace(revision.entry, methods=(Method("f", batch=Batch(4, 60_000)),))
        revision = msgspec.structs.replace(revision, entry=entry)
        template = await node.ready(node.start(revision, role="template"))
        replica = await node.ready(node.start(revision, template=template.replica))
        leases = queue.grant(replica.replica, *(f"[{number}]" for number in range(5)))
        ends = await queue.ended(*leases)
        told = [msgspec.json.decode(end.body.data) for end in ends]
        assert [number for number, _ in told] == list(range(5))
        assert sorted(together for _, together in told) == [1, 4, 4, 4, 4]

    run(scenario)
