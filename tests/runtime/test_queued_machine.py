"""Whatever happens around it, is each hand-out of a queued call told to have ended once, and as it did?

A runner's calls with real doors of replicas, in one loop; gateways that fill the same slots; replicas that drain and
die, or break their connections, or keep no deadline; a control that goes away, comes back, forgets to hear and takes
calls back; a runner that is killed.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from queued_place import FAILED, Place, Replica, Rival, call, files, lease, turns, until

from swell.model.replica import Phase
from swell.runtime.runner.queued import hand
from swell.runtime.runner.queued.lane import Lane
from swell.wire.calls import Granted, Lease

pytestmark = pytest.mark.slow

picks = st.integers(0, 1000)
MUST_GO = ("preempted", "shutdown")


class Queue(RuleBasedStateMachine):
    """Control, gateways and replicas around one runner."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))
        self.granted: dict[Lease, tuple[Granted, Replica]] = {}
        self.results: dict[str, str] = {}
        """What the code of each hand-out said at its end, by its name."""
        self.heard: set[Lease] = set()
        self.revoked: set[Lease] = set()
        self.late: set[Lease] = set()
        """The runner waited for these no longer."""
        self.broke: set[Lease] = set()
        """Connections that these were on, or may have been, broke while their replica lived."""
        self.gave_way: set[str] = set()
        """Code of these, by name, raised after its replica had been told that it must go."""
        self.over: list[Replica] = []
        self.replicas: list[Replica] = []
        self.rivals: list[Rival] = []

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        async def both() -> None:
            await work
            await turns()

        self.loop.run_until_complete(both())

    @initialize()
    def begin(self) -> None:
        async def made() -> None:
            self.place = Place(self.root)

        self.run(made())

    @property
    def carried(self) -> list[tuple[Lane, Granted]]:
        if not hasattr(self, "place"):
            return []
        return [each for one in self.place.calls._hands.values() for each in one.running.items()]

    # -- what happens ----------------------------------------------------------------------------

    @rule(slots=st.integers(1, 3))
    @precondition(lambda self: len(self.place.replicas) < 3)
    def replica_starts(self, slots: int) -> None:
        async def started() -> None:
            self.replicas.append(await self.place.replica(slots))

        self.run(started())

    @rule(pick=picks, number=st.integers(1, 5), size=st.sampled_from([0, 100, 20_000, 300_000]))
    @precondition(lambda self: self.place.here and self.replicas)
    def grant(self, pick: int, number: int, size: int) -> None:
        """Also to one that is over: that is told to control later than it happens."""
        replica = self.replicas[pick % len(self.replicas)]
        calls = [call(size=size) for _ in range(number)]
        self.granted |= {lease(each): (each, replica) for each in calls}

        async def granted() -> None:
            self.place.grant(replica.id, *calls)

        self.run(granted())

    @rule(pick=picks)
    @precondition(lambda self: self.place.here and set(self.granted) - self.heard)
    def grant_again(self, pick: int) -> None:
        waits = sorted(set(self.granted) - self.heard)
        each, replica = self.granted[waits[pick % len(waits)]]

        async def granted() -> None:
            # What a runner before had, or told, control does not give again.
            if lease(each) not in self.place.told:
                self.place.grant(replica.id, each)

        self.run(granted())

    @rule(pick=picks, error=st.booleans())
    @precondition(lambda self: any(replica.working for replica in self.replicas))
    def code_ends(self, pick: int, error: bool) -> None:
        working = [(replica, one) for replica in self.replicas for one in replica.working]
        replica, one = working[pick % len(working)]
        said = f"{len(self.results)}"
        self.results[one.name] = said
        if error and replica.told_to_end in MUST_GO:
            self.gave_way.add(one.name)

        async def ended() -> None:
            replica.end(one, said, said if error else "")

        self.run(ended())

    @rule(pick=picks)
    @precondition(lambda self: self.place.replicas)
    def gateway_sends(self, pick: int) -> None:
        replica = list(self.place.replicas.values())[pick % len(self.place.replicas)]

        async def sent() -> None:
            self.rivals.append(Rival(replica.path, f"g{len(self.rivals)}"))

        self.run(sent())

    @rule(pick=picks, reason=st.sampled_from(["idle", *MUST_GO]))
    @precondition(lambda self: any(not replica.told_to_end for replica in self.place.replicas.values()))
    def replica_drains(self, pick: int, reason: str) -> None:
        there = [replica for replica in self.place.replicas.values() if not replica.told_to_end]
        replica = there[pick % len(there)]

        async def drained() -> None:
            self.place.drain(replica, reason)

        self.run(drained())

    @rule(pick=picks, late=st.booleans())
    @precondition(lambda self: self.place.replicas)
    def replica_dies(self, pick: int, late: bool) -> None:
        """That is seen by its connections first, or by its process."""
        replica = list(self.place.replicas.values())[pick % len(self.place.replicas)]

        async def died() -> None:
            replica.die()
            if late:
                await turns()
            self.place.notice(replica)

        self.run(died())

    @rule(pick=picks)
    @precondition(lambda self: any(not replica.awaited for replica in self.place.replicas.values()))
    def connections_break(self, pick: int) -> None:
        replicas = [replica for replica in self.place.replicas.values() if not replica.awaited]
        replica = replicas[pick % len(replicas)]
        self.broke |= {at for at, (_, one) in self.granted.items() if one is replica} - set(self.place.told)

        async def broke() -> None:
            for connection in list(replica.connections):
                connection._transport.abort()

        self.run(broke())

    @rule(pick=picks)
    @precondition(lambda self: self.carried)
    def call_is_late(self, pick: int) -> None:
        """Its replica should have stopped it by now."""
        lane, each = self.carried[pick % len(self.carried)]
        self.late.add(lease(each))

        async def late() -> None:
            lane._late()

        self.run(late())

    @rule(pick=picks)
    @precondition(lambda self: self.place.here and set(self.granted) - self.heard)
    def revoke(self, pick: int) -> None:
        waits = sorted(set(self.granted) - self.heard)
        one = waits[pick % len(waits)]
        self.revoked.add(one)

        async def revoked() -> None:
            self.place.revoke(one)

        self.run(revoked())

    @rule(pick=picks)
    @precondition(lambda self: self.place.here and set(self.place.told) - self.heard)
    def hear(self, pick: int) -> None:
        told = sorted(set(self.place.told) - self.heard)
        some = told[: pick % len(told) + 1]
        self.heard |= set(some)

        async def heard() -> None:
            self.place.hear(*some)

        self.run(heard())

    @rule()
    @precondition(lambda self: self.place.here)
    def control_goes(self) -> None:
        async def gone() -> None:
            self.place.leave()

        self.run(gone())

    @rule()
    @precondition(lambda self: not self.place.here)
    def control_comes(self) -> None:
        async def back() -> None:
            self.place.come_back()
            self.resume()

        self.run(back())

    def resume(self) -> None:
        """It asks after all that it has not heard of, and still wants."""
        for at in sorted(set(self.granted) - self.heard - self.revoked):
            self.place.resume(self.granted[at][1].id, at)

    @rule()
    def runner_is_killed(self) -> None:
        """What a replica that is there has begun, or has answered and control has not heard, is not lost."""

        async def killed() -> None:
            place = self.place
            ended = set(place.calls._ends)
            if not place.here:
                assert {f"{id}-{token}" for id, token in ended} == set(files(place))
            place.kill()
            place.start()
            if not place.here:
                assert set(place.calls._ends) == ended
            else:
                self.resume()

        self.run(killed())

    @rule(pick=picks)
    @precondition(lambda self: any(replica.awaited for replica in self.place.replicas.values()))
    def replica_returns(self, pick: int) -> None:
        awaited = [replica for replica in self.place.replicas.values() if replica.awaited]

        async def returned() -> None:
            self.place.returns(awaited[pick % len(awaited)])

        self.run(returned())

    # -- what holds --------------------------------------------------------------------------------

    @invariant()
    def never_more_than_slots(self) -> None:
        for replica in self.replicas:
            assert replica.most <= replica.max_inputs

    @invariant()
    def all_that_is_granted_is_somewhere(self) -> None:
        if not hasattr(self, "place"):
            return
        calls = self.place.calls
        held = {(id, token) for id, tokens in calls._held.items() for token in tokens}
        assert not held & set(calls._ends)
        awaited = {lease for leases in calls._awaited.values() for lease in leases}
        assert not held & awaited
        kept = {lease for replica in self.place.replicas.values() for lease in replica.keeping._kept}
        waits = set(self.granted) - self.heard - set(self.place.told)
        if self.place.here:
            assert waits <= held | set(calls._ends) | awaited | kept

    @invariant()
    def nothing_is_begun_twice(self) -> None:
        assert all(count == 1 for replica in self.replicas for count in replica.begun.values())

    @invariant()
    def it_is_told_as_it_was(self) -> None:
        if not hasattr(self, "place"):
            return
        assert self.place.repeated == []
        for at, end in self.place.told.items():
            each, replica = self.granted[at]
            name = f"{each.id}/{each.token}"
            begun = any(one.startswith(name) for one in replica.begun)
            said = next((said for one, said in self.results.items() if one.startswith(name)), None)
            if end.code in FAILED:
                assert not any(one.startswith(name) for one in self.gave_way)
            match end.code:
                case "":
                    assert end.body.data == f'"{said}"'.encode()
                case "exception":
                    assert end.message == f"ValueError: {said}"
                case "preempted":
                    assert replica.told_to_end in MUST_GO
                    assert at in self.late or replica.dead or end.message == f"ValueError: {said}"
                case "drained":
                    assert not begun
                    assert self.place.killed or replica.phase is not Phase.READY
                case "replica_died":
                    assert replica.dead
                case "cancelled":
                    assert at in self.revoked
                case "deadline":
                    assert at in self.late
                case "lease_expired":
                    assert at in self.broke or (self.place.killed and replica.dead)
                case _:
                    raise AssertionError(end)

    def teardown(self) -> None:
        try:
            if hasattr(self, "place"):
                self.loop.run_until_complete(self.settle())
        finally:
            self.loop.close()
            shutil.rmtree(self.root)

    async def settle(self) -> None:
        """All code ends; then all is told, and heard, and nothing is left."""
        place = self.place
        if not place.here:
            place.come_back()
            self.resume()

        for replica in list(place.replicas.values()):
            if replica.awaited:
                place.returns(replica)

        def step() -> bool:
            for replica in self.replicas:
                for one in [*replica.working]:
                    if not one.over.done():
                        self.results[one.name] = "late"
                        replica.end(one, "late")
            # Also what it heard from a runner before: each time that it is told.
            place.hear(*place.told)
            self.heard |= set(place.told)
            kept = any(replica.keeping._kept for replica in place.replicas.values())
            over = self.heard == set(self.granted) and not kept and not set(place.calls._ends)
            return over and all(rival.task.done() for rival in self.rivals)

        await until(step, "all to be told")
        self.it_is_told_as_it_was()
        assert not place.calls._held
        assert not set(place.calls._ends)
        assert not list(files(place))
        for replica in place.replicas.values():
            assert replica.keeping.bytes == 0
        await place.close()


def test_each_hand_out_is_told_to_have_ended_once_and_as_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand, "REST_S", 0.001)
    monkeypatch.setattr(hand, "LEAVING_S", 0.01)
    run_state_machine_as_test(
        Queue,
        settings=settings(
            max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
