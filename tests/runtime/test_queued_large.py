"""Is a result that is too large to be sent to control there until control has it, whatever dies or is full?"""

from __future__ import annotations

import hashlib
import shutil

import pytest
from queued_place import Place, Replica, call, files, lease, turns, until
from test_queued_hand import all_told, busy, play

from swell.runtime.runner.queued import answer, ends, hand
from swell.wire.calls import Granted

SIZE = 300_000
"""More than a socket takes at once, too."""


@pytest.fixture(autouse=True)
def small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "RESULT_INLINE_MAX", 1000)
    monkeypatch.setattr(hand, "REST_S", 0.001)
    monkeypatch.setattr(hand, "REST_MAX_S", 0.001)


def large(one: Granted) -> str:
    return one.id * (SIZE // len(one.id))


async def worked(place: Place, replica: Replica, one: Granted) -> None:
    place.grant(replica.id, one)
    await busy(replica, 1)
    replica.end(replica.working[0], large(one))


def check(place: Place, one: Granted) -> None:
    """It is told of, and where it should be."""
    end = place.told[lease(one)]
    body = f'"{large(one)}"'.encode()
    assert (end.code, end.body.data, end.size) == ("", b"", len(body))
    assert end.body.digest == f"sha256-{hashlib.sha256(body).hexdigest()}"
    assert place.home.call_result(*lease(one)).read_bytes() == body


def test_it_is_in_a_file_until_that_is_heard() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        ones = [call(), call()]
        for number, one in enumerate(ones, 1):
            await worked(place, replica, one)
            await all_told(place, number)
        for one in ones:
            check(place, one)
        assert place.sends == [0, 0]
        place.hear(lease(ones[0]))
        assert list(files(place)) == [place.home.call_result(*lease(ones[1])).name]
        check(place, ones[1])
        place.hear(lease(ones[1]))
        assert not list(files(place))
        await until(lambda: not replica.keeping.listed())

    play(scenario)


@pytest.mark.parametrize("away", [False, True])
def test_the_next_runner_has_it_and_leaves_nothing_of_others(away: bool) -> None:
    """Where control was away it is noted down, with its file; else its replica has it yet."""

    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        one = call()
        if away:
            place.leave()
        await worked(place, replica, one)
        await until(lambda: lease(one) in place.calls._ends)
        place.kill()
        await turns()
        assert replica.keeping.listed() == () if away else replica.keeping.listed()
        (place.home.call_ends / ".part-xyz").write_bytes(b"half")
        (place.home.call_ends / "fc-9-1.result").write_bytes(b"nobody's")
        place.told.clear()
        place.here = True
        place.start()
        place.returns(replica)
        await all_told(place, 1)
        check(place, one)
        assert set(replica.begun.values()) == {1}
        place.hear(lease(one))
        assert not list(files(place))

    play(scenario)


def test_a_full_disk_costs_no_result() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        one = call()
        shutil.rmtree(place.home.call_ends)
        await worked(place, replica, one)
        await until(lambda: replica.keeping.listed() and not replica.working)
        await turns(300)
        assert not place.told
        place.home.call_ends.mkdir()
        await all_told(place, 1)
        check(place, one)
        assert set(replica.begun.values()) == {1}

    play(scenario)


def test_of_one_that_is_cancelled_while_there_is_no_room_nothing_is_left() -> None:
    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        one = call()
        shutil.rmtree(place.home.call_ends)
        await worked(place, replica, one)
        await until(lambda: replica.keeping.listed() and not replica.working)
        place.revoke(lease(one))
        await all_told(place, 1)
        assert place.told[lease(one)].code == "cancelled"
        place.home.call_ends.mkdir()
        await turns(300)
        place.hear(lease(one))
        await until(lambda: not replica.keeping.listed())
        assert not list(files(place))

    play(scenario)


def test_files_that_wait_to_be_heard_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "KEPT_MAX", SIZE)

    async def scenario(place: Place) -> None:
        replica = await place.replica(1)
        first, second = call(), call()
        await worked(place, replica, first)
        await all_told(place, 1)
        place.grant(replica.id, second)
        await turns(300)
        assert not replica.working
        place.hear(lease(first))
        await busy(replica, 1)

    play(scenario)
