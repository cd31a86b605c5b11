"""What must every engine do? Runs against each adapter of the `Engine` port, inside a `Rig`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from swell.decide.powers import POWERS
from swell.model.events import ReplicaSeen
from swell.model.orders import Inventory, StartOrder, StopOrder
from swell.model.ports import Engine, Fact
from swell.model.replica import NEXT, OVER, Phase, Role
from swell.model.workload import Revision, pool_key


class Rig(Protocol):
    """One engine with whatever it needs to run, and a hand on its time and its control."""

    engine: Engine
    epoch: int
    """Of the control whose link is open."""
    facts: list[Fact]
    """Everything heard, in order."""

    def revision(self) -> Revision:
        """Something that starts without fault."""
        ...

    def broken(self) -> Revision:
        """Something that fails while it loads. What is started from here on may all fail so."""
        ...

    async def until(self, true: Callable[[], Any]) -> None:
        """Let time pass until it is so; fails when that takes too long."""
        ...

    async def crash(self, replica: str) -> None:
        """Its process dies."""
        ...

    async def lose(self) -> None:
        """The node loses all it has, templates too, at once and without a word; then it is there again."""
        ...

    async def replace_control(self, epoch: int) -> None:
        """A new control of this epoch takes over; `engine` is its own from then on."""
        ...

    def made(self, replica: str) -> int:
        """Processes that were ever made for it."""
        ...

    async def close(self) -> list[str]:
        """End everything; what was left behind, which should be nothing."""
        ...


Make = Callable[[], AbstractAsyncContextManager[Rig]]

numbers = itertools.count(1)


def start(
    rig: Rig,
    role: Role = "serving",
    template: str | None = None,
    replica: str | None = None,
    revision: Revision | None = None,
) -> str:
    id = replica or f"r{rig.epoch:x}-{next(numbers):x}"
    revision = revision or rig.revision()
    pool = pool_key("default/app/f", revision.id)
    rig.engine.apply(StartOrder(id, pool, role, "local", revision, template), rig.epoch)
    return id


def stop(rig: Rig, replica: str, grace_s: float = 5.0) -> None:
    rig.engine.apply(StopOrder(replica, "idle", grace_s), rig.epoch)


def seen(rig: Rig, replica: str) -> list[ReplicaSeen]:
    return [fact for fact in rig.facts if isinstance(fact, ReplicaSeen) and fact.replica == replica]


async def phase(rig: Rig, replica: str, *phases: Phase) -> ReplicaSeen:
    """Its first report of one of these phases."""

    def found() -> list[ReplicaSeen]:
        return [fact for fact in seen(rig, replica) if fact.phase in phases]

    await rig.until(found)
    return found()[0]


def holds(rig: Rig) -> dict[str, ReplicaSeen]:
    """What the newest inventory says is live."""
    inventory = rig.engine.inventory()
    return {r.replica: r for r in inventory.replicas if r.phase not in OVER} if inventory is not None else {}


def run(make: Make, scenario: Callable[[Rig], Awaitable[None]]) -> None:
    async def main() -> None:
        async with make() as rig:
            await scenario(rig)
            # However it went, phases only went forward.
            for replica in {fact.replica for fact in rig.facts if isinstance(fact, ReplicaSeen)}:
                phases = [fact.phase for fact in seen(rig, replica)]
                assert all(b is a or b in NEXT[a] for a, b in itertools.pairwise(phases)), phases
            assert await rig.close() == []

    asyncio.run(main())


class EngineSuite:
    """Subclass it and give a fixture `make`."""

    def test_it_has_a_name_and_declares_no_power_that_nobody_can_ask_for(self, make: Make) -> None:
        async def scenario(rig: Rig) -> None:
            assert rig.engine.name
            assert rig.engine.capabilities <= POWERS

        run(make, scenario)

    def test_a_start_becomes_ready_and_is_in_the_inventory(self, make: Make) -> None:
        async def scenario(rig: Rig) -> None:
            a = start(rig)
            ready = await phase(rig, a, Phase.READY, *OVER)
            assert (ready.phase, ready.role, ready.node) == (Phase.READY, "serving", "local")
            assert ready.address
            await rig.until(lambda: holds(rig).get(a, ready).phase is Phase.READY and a in holds(rig))

        run(make, scenario)

    def test_repeated_starts_make_one_process(self, make: Make) -> None:
        async def scenario(rig: Rig) -> None:
            a = start(rig)
            for _ in range(5):
                start(rig, replica=a)
            await phase(rig, a, Phase.READY)
            start(rig, replica=a)
            await rig.until(lambda: a in holds(rig))
            assert rig.made(a) == 1

        run(make, scenario)

    def test_a_stop_drains_and_is_told_with_its_reason(self, make: Make) -> None:
        async def scenario(rig: Rig) -> None:
            a = start(rig)
            await phase(rig, a, Phase.READY)
            for _ in range(3):
                stop(rig, a)
            over = await phase(rig, a, *OVER)
            assert (over.phase, over.reason) == (Phase.GONE, "idle")
            assert Phase.DRAINING in {fact.phase for fact in seen(rig, a)}
            await rig.until(lambda: a not in holds(rig))

        run(make, scenario)

    def test_what_has_ended_is_not_brought_back_by_a_late_order(self, make: Make) -> None:
        async def scenario(rig: Rig) -> None:
            a = start(rig)
            await phase(rig, a, Phase.READY)
            stop(rig, a)
            await phase(rig, a, Phase.GONE)
            start(rig, replica=a)
            b = start(rig)
            await phase(rig, b, Phase.READY)
            await rig.until(lambda: b in holds(rig))
            assert a not in holds(rig)
            assert rig.made(a) == 1

        run(make, scenario)

    def test_a_stop_that_overtakes_its_start_wins(self, make: Make) -> None:
        async def scenario(rig: Rig) -> None:
            a = f"r{rig.epoch:x}-{next(numbers):x}"
            stop(rig, a)
            start(rig, replica=a)
            b = start(rig)
            await phase(rig, b, Phase.READY)
            await rig.until(lambda: b in holds(rig))
            assert a not in holds(rig)
            assert rig.made(a) == 0

        run(make, scenario)

    def test_a_stop_during_the_start_ends_it(self, make: Make) -> None:
        async def scenario(rig: Rig) -> None:
            a = start(rig)
            stop(rig, a)
            over = await phase(rig, a, *OVER)
            assert over.reason == "idle"
            assert Phase.READY not in {fact.phase for fact in seen(rig, a)}

        run(make, scenario)

    def test_a_crash_is_told_with_a_reason(self, make: Make) -> None:
        async def scenario(rig: Rig) -> None:
            a = start(rig)
            await phase(rig, a, Phase.READY)
            await rig.crash(a)
            over = await phase(rig, a, *OVER)
            assert (over.phase, over.reason) == (Phase.GONE, "crashed")

        run(make, scenario)

    def test_forks_of_a_template_become_ready_and_outlive_it(self, make: Make) -> None:
        async def scenario(rig: Rig) -> None:
            t = start(rig, role="template")
            # Some are ordered before it is loaded, some after.
            forks = [start(rig, template=t) for _ in range(2)]
            await phase(rig, t, Phase.READY)
            forks += [start(rig, template=t) for _ in range(2)]
            for fork in forks:
                assert (await phase(rig, fork, Phase.READY, *OVER)).phase is Phase.READY
            assert {rig.made(id) for id in (t, *forks)} == {1}
            stop(rig, t)
            await phase(rig, t, Phase.GONE)
            await rig.until(lambda: t not in holds(rig) and set(forks) <= holds(rig).keys())

        run(make, scenario)

    def test_a_fork_of_a_template_that_ends_first_is_started_all_the_same(self, make: Make) -> None:
        async def scenario(rig: Rig) -> None:
            t = start(rig, role="template")
            a = start(rig, template=t)
            stop(rig, t)
            assert (await phase(rig, a, Phase.READY, *OVER)).phase is Phase.READY
            b = start(rig, template=t)
            assert (await phase(rig, b, Phase.READY, *OVER)).phase is Phase.READY

        run(make, scenario)

    def test_what_waits_for_a_template_fails_with_it(self, make: Make) -> None:
        async def scenario(rig: Rig) -> None:
            revision = rig.broken()
            t = start(rig, role="template", revision=revision)
            forks = [start(rig, template=t, revision=revision) for _ in range(2)]
            failed = await phase(rig, t, *OVER)
            assert failed.reason
            assert {(await phase(rig, fork, *OVER)).reason for fork in forks} == {failed.reason}
            assert {rig.made(fork) for fork in forks} == {0}, "what cannot be loaded is not loaded once more"

        run(make, scenario)

    def test_a_new_control_finds_what_runs(self, make: Make) -> None:
        async def scenario(rig: Rig) -> None:
            a = start(rig)
            await phase(rig, a, Phase.READY)
            rig.facts.clear()
            await rig.replace_control(rig.epoch + 1)
            await rig.until(lambda: a in holds(rig))
            inventory = next(fact for fact in rig.facts if isinstance(fact, Inventory))
            assert [r.phase for r in inventory.replicas if r.replica == a] == [Phase.READY]
            assert rig.made(a) == 1
            stop(rig, a)
            assert (await phase(rig, a, *OVER)).reason == "idle"

        run(make, scenario)

    def test_orders_of_a_control_that_was_replaced_are_refused(self, make: Make) -> None:
        async def scenario(rig: Rig) -> None:
            a = start(rig)
            await phase(rig, a, Phase.READY)
            await rig.replace_control(rig.epoch + 1)
            # The new one has ordered something; then the old one's words arrive.
            b = start(rig)
            await phase(rig, b, Phase.READY)
            revision = rig.revision()
            ghost = StartOrder("r1-fff", pool_key("default/app/f", revision.id), "serving", "local", revision)
            rig.engine.apply(ghost, rig.epoch - 1)
            rig.engine.apply(StopOrder(a, "stale", 0.0), rig.epoch - 1)
            c = start(rig)
            await phase(rig, c, Phase.READY)
            await rig.until(lambda: c in holds(rig))
            assert {a, b, c} == holds(rig).keys()
            assert {fact.phase for fact in seen(rig, a)} <= {Phase.READY, Phase.STARTING}
            assert seen(rig, "r1-fff") == []

        run(make, scenario)

    def test_what_was_lost_without_a_word_is_in_no_inventory_and_its_pool_can_start_again(self, make: Make) -> None:
        async def scenario(rig: Rig) -> None:
            t = start(rig, role="template")
            await phase(rig, t, Phase.READY)
            lost = [start(rig, template=t), start(rig)]
            for replica in lost:
                await phase(rig, replica, Phase.READY)
            await rig.until(lambda: {t, *lost} <= holds(rig).keys())
            before = len(rig.facts)
            await rig.lose()
            await rig.until(lambda: any(isinstance(fact, Inventory) for fact in rig.facts[before:]))
            assert holds(rig) == {}
            # Nobody said how they ended: that they are not in it is all there is.
            told = [fact for fact in rig.facts[before:] if isinstance(fact, ReplicaSeen)]
            assert [fact for fact in told if fact.replica in (t, *lost)] == []
            # A fork of the template that is no more, and a fresh one.
            for replica in (start(rig, template=t), start(rig)):
                assert (await phase(rig, replica, Phase.READY, *OVER)).phase is Phase.READY
            stop(rig, lost[0])
            await rig.until(lambda: len(holds(rig)) == 2)

        run(make, scenario)

    def test_a_good_revision_builds(self, make: Make) -> None:
        async def scenario(rig: Rig) -> None:
            lines: list[str] = []
            report = await rig.engine.build(rig.revision(), lines.append)
            assert report.ok, report

        run(make, scenario)
