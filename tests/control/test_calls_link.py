"""What do gateways and runners hear of queued calls on the control link, and when?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from tempfile import TemporaryDirectory

import msgspec
import pytest

from control.test_control_link import EPOCH, WORKLOAD, Caller, Desk, inventory, play, until
from swell.control import loop
from swell.control.calls import CallKeeper
from swell.control.link import SILENT_S
from swell.model.call import Body, Call
from swell.model.demand import IDLE
from swell.model.events import NodeSeen, ReplicaSeen
from swell.model.node import Node
from swell.model.orders import Inventory
from swell.model.replica import Phase
from swell.serve import call_keeper
from swell.wire.calls import (
    CallEnd,
    Ended,
    EndedHeard,
    Grant,
    Holding,
    Many,
    NewCall,
    Resume,
    Revoke,
    Submit,
    Submitted,
)
from swell.wire.link import DemandReport, Elsewhere, Hello, Level, RunnerInventory, RunnerNode, RunnerReplica, Welcome
from swell.wire.settings import Settings

POOL = WORKLOAD.pool
INPUT = Body("application/json", b"[1]")
RESULT = Body("application/json", b"2")
NEW = NewCall(WORKLOAD.key, "f", INPUT)
NODE = RunnerNode(NodeSeen(100.0, Node("n1", 4.0, 4096)))


def calls(scenario: Callable[[Desk], Awaitable[None]]) -> None:
    """With a queue, as a server has it."""

    async def begun(desk: Desk) -> None:
        with TemporaryDirectory(prefix="sw") as home:
            keeper = call_keeper(Settings(home=home), desk.loop.store, desk.clock, desk.loop, desk.link)
            desk.loop.queue = desk.link.queue = keeper
            running = asyncio.create_task(keeper.run())
            try:
                await scenario(desk)
            finally:
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running

    play(begun)


async def runner_of(desk: Desk, *more: object) -> Caller:
    """One that is welcomed and has the replica."""
    runner = await desk.call(Hello("runner", "n"))
    assert await runner.hear() == [Welcome(EPOCH)]
    runner.say(NODE, inventory(), *more)
    return runner


def test_a_call_goes_from_a_gateway_to_a_replica_and_what_came_of_it_is_heard() -> None:
    async def scenario(desk: Desk) -> None:
        runner = await runner_of(desk)
        gateway = await desk.call(Hello("gateway", "g1"), Submit(7, NEW))
        (told,) = await gateway.until(Submitted)
        assert told == Submitted(7, told.id)
        (grant,) = await runner.until(Grant)
        (call,) = grant.calls
        assert (grant.epoch, grant.replica) == (EPOCH, "r1-1")
        assert (call.id, call.method, call.input, call.attempt, call.timeout_s) == (told.id, "f", INPUT, 1, 300.0)
        lease = (call.id, call.token)
        runner.say(Ended((CallEnd(*lease, "r1-1", body=RESULT, cpu_us=3, run_us=4),)))
        assert await runner.until(EndedHeard) == [EndedHeard((lease,))]
        kept = desk.loop.store.call_records.get(call.id)
        assert kept is not None
        assert (kept.state, kept.cpu_us, kept.run_us, kept.pool) == ("done", 3, 4, POOL)
        assert desk.loop.store.call_records.result(call.id) == RESULT
        # Said once more, since the runner did not hear: it is of nobody any more.
        runner.say(Ended((CallEnd(*lease, "r1-1", "exception", "no"),)))
        assert await runner.until(EndedHeard) == [EndedHeard((lease,))]
        assert desk.loop.store.call_records.get(call.id) == kept

    calls(scenario)


def test_of_a_group_the_ids_of_all_its_calls_are_told_in_the_order_of_their_inputs() -> None:
    async def scenario(desk: Desk) -> None:
        inputs = tuple(b"%d" % n for n in range(20))
        group = msgspec.structs.replace(NEW, group=f"fg-{26 * '0'}", many=Many(0, inputs))
        gateway = await desk.call(Hello("gateway", "g1"), Submit(9, group))
        (told,) = await gateway.until(Submitted)
        assert told == Submitted(9, ids=told.ids)
        bodies = [desk.loop.store.call_records.input(id) for id in told.ids or ()]
        assert [body.data for body in bodies if body is not None] == [*inputs]

    calls(scenario)


def test_a_gateway_is_told_why_a_call_is_not_accepted() -> None:
    async def scenario(desk: Desk) -> None:
        gateway = await desk.call(Hello("gateway", "g1"), Submit(8, NewCall("default/a/nobody", "f", INPUT)))
        (told,) = await gateway.until(Submitted)
        assert (told.ask, told.id, told.status, told.code) == (8, "", 404, "unknown_function")

    calls(scenario)


def test_what_waits_is_demand_and_what_a_replica_has_is_told_to_the_only_gateway() -> None:
    async def scenario(desk: Desk) -> None:
        demand = desk.loop.reactor.book.demand
        gateway = await desk.call(Hello("gateway", "g1"), Submit(1, NEW))
        await gateway.until(Submitted)
        assert demand[POOL].held == 1, "it wakes its pool as a held request does"
        assert desk.loop.reactor.book.next_expiry() is None, "and does not expire"
        runner = await runner_of(desk)
        (grant,) = await runner.until(Grant)
        await gateway.until(Elsewhere, lambda told: told.pools == ((POOL, (("r1-1", 1),)),))
        assert (demand[POOL].held, demand[POOL].in_flight) == (0, 1)
        runner.say(Ended((CallEnd(grant.calls[0].id, grant.calls[0].token, "r1-1", body=RESULT),)))
        await gateway.until(Elsewhere, lambda told: told.pools == ((POOL, ()),))
        await until(lambda: demand.get(POOL, IDLE).level == 0)

    calls(scenario)


def test_a_replica_that_gateways_fill_is_given_one_call_and_more_when_they_leave_it() -> None:
    async def scenario(desk: Desk) -> None:
        gateway = await desk.call(Hello("gateway", "g1"))
        gateway.say(DemandReport((Level(POOL, 0, 5, (("r1-1", 5),), 5),), ttl_s=60.0))
        await until(lambda: desk.loop.reactor.book.in_flight(POOL, "r1-1") == 5)
        runner = await runner_of(desk)
        gateway.say(Submit(1, NEW), Submit(2, NEW))
        (first,) = await runner.until(Grant)
        assert len(first.calls) == 1, "it waits in line there"
        runner.say(Ended((CallEnd(first.calls[0].id, first.calls[0].token, "r1-1", body=RESULT),)))
        (second,) = await runner.until(Grant)
        assert len(second.calls) == 1

    calls(scenario)


def test_who_connects_again_is_asked_for_what_it_was_given_and_what_it_lost_is_handed_out_once_more() -> None:
    async def scenario(desk: Desk) -> None:
        gateway = await desk.call(Hello("gateway", "g1"), Submit(1, NEW))
        runner = await runner_of(desk)
        (grant,) = await runner.until(Grant)
        lease = (grant.calls[0].id, grant.calls[0].token)
        runner.writer.close()
        await until(lambda: not desk.link.runners)
        again = await runner_of(desk)
        assert await again.until(Resume) == [Resume(EPOCH, (("r1-1", (lease,)),))]
        again.say(Ended((CallEnd(*lease, "r1-1", "lease_expired", "not here"),)))
        assert await again.until(EndedHeard) == [EndedHeard((lease,))]
        # After its backoff.
        desk.clock.at += 100.0
        desk.loop.queue.tick()  # type: ignore[union-attr]
        (grant,) = await again.until(Grant)
        assert (grant.calls[0].id, grant.calls[0].attempt) == (lease[0], 2)
        assert grant.calls[0].token > lease[1]
        assert gateway

    calls(scenario)


def test_what_a_runner_holds_that_is_of_nobody_it_is_told_to_drop() -> None:
    async def scenario(desk: Desk) -> None:
        runner = await runner_of(desk, Holding((("fc-1", 5),)))
        assert await runner.until(Revoke) == [Revoke((("fc-1", 5),))]

    calls(scenario)


def test_a_runner_that_was_away_for_long_is_to_stop_what_it_has_and_what_it_says_of_that_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "NODE_LEASE_S", 0.01)

    async def scenario(desk: Desk) -> None:
        queue, records = desk.loop.queue, desk.loop.store.call_records
        assert isinstance(queue, CallKeeper)
        gateway = await desk.call(Hello("gateway", "g1"), Submit(1, NEW))
        runner = await runner_of(desk)
        (grant,) = await runner.until(Grant)
        id, old = grant.calls[0].id, grant.calls[0].token
        runner.writer.close()
        await until(lambda: "r1-1" not in desk.loop.reactor.world.replicas)
        desk.clock.at += 5.0
        queue.tick()
        await until(lambda: state(records.get(id)) == "queued")
        again = await runner_of(desk, Holding(((id, old),)))
        assert await again.until(Revoke) == [Revoke(((id, old),))]
        # It had ended before that came: its result is of nobody.
        again.say(Ended((CallEnd(id, old, "r1-1", body=Body("application/json", b"1")),)))
        assert await again.until(EndedHeard) == [EndedHeard(((id, old),))]
        assert state(records.get(id)) == "queued"
        # After its backoff.
        desk.clock.at += 100.0
        queue.tick()
        (grant,) = await again.until(Grant)
        new = grant.calls[0].token
        assert (grant.calls[0].id, new > old) == (id, True)
        for token, result in ((old, b"1"), (new, b"2"), (old, b"1")):
            again.say(Ended((CallEnd(id, token, "r1-1", body=Body("application/json", result)),)))
            assert await again.until(EndedHeard) == [EndedHeard(((id, token),))]
        assert (state(records.get(id)), records.result(id)) == ("done", Body("application/json", b"2"))
        assert gateway

    calls(scenario)


def state(call: Call | None) -> str:
    assert call is not None
    return call.state


def test_a_replica_that_is_gone_has_its_calls_end_unless_its_runner_says_that_it_has_them() -> None:
    async def scenario(desk: Desk) -> None:
        runner = await runner_of(desk)
        gateway = await desk.call(Hello("gateway", "g1"), Submit(1, NEW))
        (grant,) = await runner.until(Grant)
        id = grant.calls[0].id
        runner.say(RunnerReplica(ReplicaSeen(101.0, "r1-1", Phase.GONE, POOL, "serving", "n1")))
        await until(lambda: "r1-1" not in desk.loop.reactor.world.replicas)
        desk.clock.at += 2.0
        desk.loop.queue.tick()  # type: ignore[union-attr]
        kept = desk.loop.store.call_records.get(id)
        assert kept is not None
        assert kept.state == "leased", "what came of it may be on its way"
        desk.clock.at += 2.0
        desk.loop.queue.tick()  # type: ignore[union-attr]

        def error() -> object:
            kept = desk.loop.store.call_records.get(id)
            return kept is not None and kept.error is not None and kept.error.code

        await until(lambda: error() == "replica_died")
        assert gateway

    calls(scenario)


def test_calls_are_not_granted_to_a_runner_that_does_not_read() -> None:
    async def scenario(desk: Desk) -> None:
        runner = await runner_of(desk)
        await until(lambda: desk.link.takes_calls("n1"))
        peer = desk.link.runners["n1"]
        peer.pause_writing()
        assert not desk.link.takes_calls("n1")
        gateway = await desk.call(Hello("gateway", "g1"), Submit(1, NEW))
        (told,) = await gateway.until(Submitted)
        kept = desk.loop.store.call_records.get(told.id)
        assert kept is not None
        assert kept.state == "queued"
        peer.resume_writing()
        (grant,) = await runner.until(Grant)
        assert [call.id for call in grant.calls] == [told.id]

    calls(scenario)


def test_calls_are_not_granted_to_a_runner_that_says_nothing_until_it_speaks_again() -> None:
    async def scenario(desk: Desk) -> None:
        runner = await runner_of(desk)
        await until(lambda: desk.link.takes_calls("n1"))
        desk.link.runners["n1"]._heard_at -= SILENT_S + 1.0
        assert not desk.link.takes_calls("n1")
        gateway = await desk.call(Hello("gateway", "g1"), Submit(1, NEW))
        (told,) = await gateway.until(Submitted)
        assert state(desk.loop.store.call_records.get(told.id)) == "queued"
        runner.say(inventory())
        (grant,) = await runner.until(Grant)
        assert [call.id for call in grant.calls] == [told.id]

    calls(scenario)


def test_the_link_to_a_runner_that_does_not_say_what_it_was_given_is_cut_and_nothing_is_lost_by_that() -> None:
    async def scenario(desk: Desk) -> None:
        queue, records = desk.loop.queue, desk.loop.store.call_records
        assert isinstance(queue, CallKeeper)
        gateway = await desk.call(Hello("gateway", "g1"), Submit(1, NEW))
        runner = await runner_of(desk)
        (grant,) = await runner.until(Grant)
        lease = (grant.calls[0].id, grant.calls[0].token)
        queue.tick()
        for _ in range(5):
            # Not so much at once that control seems to have been stopped itself.
            desk.clock.at += 4.0
            queue.tick()
        await until(lambda: not desk.link.runners)
        again = await runner_of(desk)
        assert await again.until(Resume) == [Resume(EPOCH, (("r1-1", (lease,)),))]
        again.say(Ended((CallEnd(*lease, "r1-1", body=RESULT),)))
        assert await again.until(EndedHeard) == [EndedHeard((lease,))]
        call = records.get(lease[0])
        assert call is not None
        assert (call.state, call.attempts) == ("done", 1)
        assert gateway

    calls(scenario)


def test_an_inventory_comes_before_any_call() -> None:
    async def scenario(desk: Desk) -> None:
        gateway = await desk.call(Hello("gateway", "g1"), Submit(1, NEW))
        await gateway.until(Submitted)
        runner = await desk.call(Hello("runner", "n"))
        runner.say(NODE)
        await until(lambda: "n1" in desk.link.runners)
        assert not desk.link.takes_calls("n1")
        runner.say(RunnerInventory(Inventory("n1", 99.0, 1, ())), inventory())
        await until(lambda: desk.link.takes_calls("n1"))

    calls(scenario)
