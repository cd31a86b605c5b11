"""Is what waits in the queue, or for it, bounded, and is who comes too much told?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import suppress

import pytest

from control.calls_place import Place, new
from control.test_calls import STOPPED, code, hasten, run
from swell.control.inbox import BATCH, EACH_BYTES, WAITING_BYTES_MAX, Inbox
from swell.control.rounds import New
from swell.model.call import Body, Call, Work
from swell.model.errors import SwellError


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


def test_no_more_calls_of_one_function_wait_than_may() -> None:
    async def scenario(place: Place) -> None:
        place.keeper._tallies._queued_max = 5
        place.deploy("b")
        told = await asyncio.gather(*(answered(place.keeper.accept(new())) for _ in range(9)))
        assert told == [""] * 5 + ["too_many_queued"] * 4
        first, *_ = place.store.call_records.newest("", "queued", 9)
        assert await code(place.keeper.accept(new(idempotency_key="k", delay_s=9.0))) == "too_many_queued"
        assert await answered(place.keeper.accept(new("b"))) == "", "of another function there is room"
        assert await place.keeper.cancel(first.id, STOPPED)
        assert await answered(place.keeper.accept(new(delay_s=9.0))) == ""
        await place.crash()
        await place.open()
        place.keeper._tallies._queued_max = 5
        await place.settle()
        assert await code(place.keeper.accept(new())) == "too_many_queued"
        place.start("a")
        await place.settle()
        assert await answered(place.keeper.accept(new())) == "", "what a replica has does not wait"

    run(scenario)


async def answered(act: Awaitable[object]) -> str:
    """The code of the error, or nothing."""
    try:
        await act
    except SwellError as error:
        return error.code
    return ""


def test_calls_that_wait_to_be_written_take_a_bounded_memory_however_small_their_inputs_are() -> None:
    async def scenario() -> None:
        inbox = Inbox()
        small = [Work(Call("fc-1", "default/a/f", "f", 0.0, 0.0), Body("x", b"12345"))] * BATCH
        most = WAITING_BYTES_MAX // (EACH_BYTES * BATCH)
        with suppress(SwellError):
            for _ in range(10 * most):
                inbox.accept(small)
        assert most >= sum(len(new.works) for new in iter_news(inbox)) / BATCH >= most - 1
        inbox.accept(small)
        inbox.put_back_asked(inbox.take_news(), [])
        assert len(inbox.take_news()) == 1

    asyncio.run(scenario())


def iter_news(inbox: Inbox) -> Iterator[New]:
    """All that wait."""
    while taken := inbox.take_news():
        yield from taken
