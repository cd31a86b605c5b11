"""Is what came of a queued call lost with a connection, with a runner's memory, or where a replica keeps no more?"""

from __future__ import annotations

from typing import Any

import pytest
from queued_place import Place, call, files, lease, turns, until
from test_queued_hand import all_told, busy, play

from swell.model.workload import Batch, Method
from swell.runtime import keeping
from swell.runtime.arguments import Arguments
from swell.runtime.batched import Batched, Batches
from swell.runtime.hooks import hooks_of
from swell.runtime.http import ConnectionExchange
from swell.runtime.runner.queued import hand, lane


def test_what_ended_without_a_runner_is_had_by_the_next_however_late_its_replica_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane, "FETCH_S", 0.0)
    monkeypatch.setattr(lane, "LATE_S", 0.0)

    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        one = call()
        place.grant(replica.id, one)
        await busy(replica, 1)
        place.kill()
        await turns()
        replica.end(replica.working[0], "in time")
        await busy(replica, 0)
        place.start()
        # As one whose loop another input blocks: what is asked is not answered.
        asked: list[ConnectionExchange] = []
        monkeypatch.setattr(replica.service, "accept", asked.append)
        place.returns(replica)
        await until(lambda: asked)
        await turns()
        assert not place.told
        replica.keeping.fetch(asked[0])
        await all_told(place, 1)
        assert (place.told[lease(one)].code, place.told[lease(one)].body.data) == ("", b'"in time"')

    play(scenario)


@pytest.mark.parametrize("code", ["deadline", "cancelled"])
def test_what_was_stopped_is_told_alike_by_the_next_runner(code: str) -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        one = call()
        place.grant(replica.id, one)
        await busy(replica, 1)
        if code == "cancelled":
            place.revoke(lease(one))
        else:
            (late,) = place.calls._hands[replica.id].running
            late._late()
        await all_told(place, 1)
        await busy(replica, 0)
        place.kill()
        place.told.clear()
        place.start()
        place.returns(replica)
        place.resume(replica.id, lease(one))
        await turns()
        assert {at: end.code for at, end in place.told.items()} == {lease(one): code}
        place.hear(lease(one))
        assert not list(files(place))

    play(scenario)


def test_what_was_noted_down_and_cannot_be_read_was_an_attempt() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        noted, never = call(), call()
        place.kill()
        (place.home.call_ends / f"{noted.id}-1").write_bytes(b"half of it")
        place.start()
        place.returns(replica)
        place.resume(replica.id, lease(noted), lease(never))
        assert {at: end.code for at, end in place.told.items()} == {
            lease(noted): "lease_expired",
            lease(never): "drained",
        }
        assert not list(files(place))

    play(scenario)


def test_a_connection_that_breaks_costs_nothing_while_its_replica_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand, "REST_S", 0.001)

    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        one = call()
        place.grant(replica.id, one)
        await busy(replica, 1)
        before = set(replica.connections)
        for connection in before:
            connection._transport.abort()
        await until(lambda: replica.connections - before)
        replica.end(replica.working[0], "had")
        await all_told(place, 1)
        assert (place.told[lease(one)].code, place.told[lease(one)].body.data) == ("", b'"had"')
        assert set(replica.begun.values()) == {1}
        assert not place.calls._hands[replica.id]._breaks
        place.hear(lease(one))
        assert not replica.keeping.listed()

    play(scenario)


def test_an_answer_whose_connections_all_break_is_asked_for_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand, "REST_S", 0.001)
    asked: list[bytes] = []

    def breaks(exchange: ConnectionExchange) -> None:
        asked.append(exchange.request.target)
        exchange.abort()

    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        one = call()
        place.grant(replica.id, one)
        await busy(replica, 1)
        monkeypatch.setattr(replica.service, "accept", breaks)
        for connection in list(replica.connections):
            connection._transport.abort()
        await all_told(place, 1)
        assert place.told[lease(one)].code == "lease_expired"
        assert asked == [b"/kept"] * hand.BREAKS_MAX
        # It is tried again elsewhere: here it is stopped.
        place.hear(lease(one))
        await busy(replica, 0)

    play(scenario)


def test_a_replica_of_an_earlier_version_keeps_nothing_and_is_not_told_to_forget_it() -> None:
    async def scenario(place: Place) -> None:
        earlier, other = [await place.replica(2) for _ in range(2)]
        earlier.earlier = True
        for replica in (earlier, other):
            ends, breaks = call(), call()
            place.grant(replica.id, ends)
            await busy(replica, 1)
            replica.end(replica.working[0])
            await until(lambda ends=ends: lease(ends) in place.told)
            place.hear(lease(ends))
            place.grant(replica.id, breaks)
            await busy(replica, 1)
            for connection in list(replica.connections):
                connection._transport.abort()
            if replica is earlier:
                await until(lambda breaks=breaks: lease(breaks) in place.told)
                assert place.told[lease(breaks)].code == "replica_died"
                place.hear(lease(breaks))
        assert (earlier.forgets, other.forgets) == (0, 1)

    play(scenario)


def test_a_replica_that_is_full_of_what_it_keeps_is_asked_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "KEPT_MAX", 1)
    monkeypatch.setattr(hand, "REST_S", 0.001)

    async def scenario(place: Place) -> None:
        replica = await place.replica(2)
        first, second = call(), call()
        place.grant(replica.id, first, second)
        await busy(replica, 1)
        await until(lambda: place.calls._hands[replica.id]._failures > 3)
        replica.end(replica.working[0])
        await all_told(place, 1)
        assert len(replica.begun) == 1
        place.hear(*place.told)
        await until(lambda: len(replica.begun) == 2)
        replica.end(replica.working[0])
        await all_told(place, 2)
        assert [place.told[lease(each)].code for each in (first, second)] == ["", ""]

    play(scenario)


@pytest.mark.parametrize("asks", ["the one that sent it", "the next one", "the next one, later"])
def test_what_is_given_back_before_its_batch_began_was_no_attempt_whoever_asks_for_it(asks: str) -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(2)

        async def work(names: Any) -> list[str]:
            return [await replica.work(name) for name in names]

        method = Method("work", batch=Batch(1, 60_000))
        face = Batched(method, work, Arguments("work", work))
        batches = face.batches = Batches(replica.context, method, work, hooks_of(work))
        replica.service.add_call(face)
        place.grant(replica.id, call(), call())
        await until(lambda: len(replica.keeping.listed()) == 2 and replica.working)
        (runs,) = [one for one in replica.keeping.listed() if f"{one.id}/1" == replica.working[0].name]
        (waits,) = [one for one in replica.keeping.listed() if one.id != runs.id]
        keeps = list(replica.keeping._kept.values())
        if asks != "the one that sent it":
            place.kill()
            await until(lambda: not any(keep._listener for keep in keeps))
        if asks == "the next one":
            place.start()
            place.returns(replica)
            await until(lambda: all(keep._listener for keep in keeps))
        replica.slots.close("it cannot be stopped")
        batches.give_back()
        assert {one.id: one.ended for one in replica.keeping.listed()} == {runs.id: False, waits.id: True}
        if asks == "the next one, later":
            place.start()
            place.returns(replica)
            place.resume(replica.id, (runs.id, 1), (waits.id, 1))
        await all_told(place, 1)
        replica.end(replica.working[0])
        await all_told(place, 2)
        assert (place.told[runs.id, 1].code, place.told[waits.id, 1].code) == ("", "drained")
        place.hear(*place.told)
        assert not replica.keeping.listed()

    play(scenario)
