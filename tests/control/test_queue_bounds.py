"""Is what waits in the queue, or for it, bounded, and is who comes too much told?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import suppress

import pytest

from control.calls_place import Place, new
from control.test_calls import STOPPED, code, hasten, run
from swell.control.call_desk import CallDesk
from swell.control.inbox import BATCH, EACH_BYTES, WAITING_BYTES_MAX, Inbox
from swell.control.rounds import New
from swell.model.call import Body, Call, CallError, Change, Failed, Work, call_id
from swell.model.errors import SwellError
from swell.wire.call_rows import Retried


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


def test_very_many_dead_letters_are_tried_again_a_page_at_a_time() -> None:
    """As `swell calls retry --app` does."""

    async def scenario(place: Place) -> None:
        desk = CallDesk(place.keeper, place.store.call_records, lambda _workload: "")
        ids = await fail_many(place, 1500)
        early, page, pages, most = set(ids[:100]), Retried(0), [], 0
        change = place.keeper._inbox.change

        def counted(asked: Change) -> asyncio.Future[Call | None]:
            nonlocal most
            most = max(most, len(place.keeper._inbox._changes) + 1)
            return change(asked)

        place.keeper._inbox.change = counted  # type: ignore[method-assign]
        while not pages or page.before:
            page = await desk.retry_many("default", "a", "", 2.0, 200, page.before, None)
            pages.append(page.retried)
        assert (sum(pages), len(pages), most) == (1400, 8, 200)
        states = {call.id: call.state for call in place.store.call_records.newest("", None, 2000)}
        assert {id for id, state in states.items() if state == "failed"} == early
        assert place.keeper._tallies.queued == {"default/a/f": 1400}

    run(scenario)


async def fail_many(place: Place, count: int) -> list[str]:
    """Dead letters, of which a hundred ended a while before the others; the oldest first."""
    calls, ids = place.store.store.calls, []
    for first in range(0, count, 100):
        works = [
            Work(Call(call_id(at, bytes(10)), "default/a/f", "f", 0.0, 0.0), Body("x", b"1"))
            for at in range(first, first + 100)
        ]
        ids += calls.add(works)
        leased = calls.lease("default/a/f", 100, 1.0, 1, "r", "p")
        error = CallError("exception", "no")
        calls.finish([Failed(each.call.id, 1, 1.0 if not first else 5.0, error) for each in leased])
    return ids
