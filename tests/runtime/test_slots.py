"""Are deadlines kept whatever the work of others does?"""

from __future__ import annotations

import asyncio
import faulthandler
import time
from collections.abc import Iterator

import pytest

from swell.runtime.slots import Slots


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """The watchdog ends its process later if the loop is seen to stand still: here that would be pytest's."""
    yield
    faulthandler.cancel_dump_traceback_later()


class Piece:
    """Work that says what it was told, and raises where it is to."""

    alone = True
    on_loop = False

    def __init__(self, name: str, in_s: float, told: list[str], raises_in: str = "") -> None:
        self.request = name
        self.deadline = time.monotonic() + in_s
        self._told = told
        self._raises_in = raises_in

    def _tell(self, what: str) -> None:
        self._told.append(f"{self.request} {what}")
        if what == self._raises_in:
            raise RuntimeError(f"{self.request} in {what}")

    def interrupt(self, attempt: int) -> None:
        if attempt == 0:
            self._tell("interrupt")

    def expire(self) -> None:
        self._tell("expire")

    def left(self) -> bool:
        return False


@pytest.mark.parametrize("where", ["expire", "interrupt"])
def test_what_one_input_raises_at_its_deadline_is_nothing_to_the_others(where: str) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        told: list[str] = []
        raised: list[str] = []
        loop.set_exception_handler(lambda _loop, context: raised.append(str(context["exception"])))
        slots = Slots(4, 60.0, loop, lambda _requests: None)
        pieces = [Piece("bad", 0.02, told, where), Piece("equal", 0.02, told), Piece("later", 0.1, told)]
        pieces[1].deadline = pieces[0].deadline
        for piece in pieces:
            slots.take(piece)
        async with asyncio.timeout(30):
            while not {"equal interrupt", "later interrupt"} <= {*told}:  # noqa: ASYNC110 — nothing tells us of it
                await asyncio.sleep(0.01)
        assert raised == [f"bad in {where}"]
        for piece in pieces:
            slots.end(piece)

    asyncio.run(scenario())


@pytest.mark.parametrize("last", [True, False], ids=["it is left", "it is listed last"])
def test_what_cannot_be_stopped_is_not_waited_for(last: bool) -> None:
    async def scenario() -> None:
        listed: list[tuple[str, ...]] = []
        slots = Slots(2, 0.02, asyncio.get_running_loop(), listed.append)
        deaf, other = Piece("deaf", 60.0, []), Piece("other", 60.0, [])
        slots.take(deaf)
        slots.take(other)
        slots.close("idle")
        emptied = asyncio.ensure_future(slots.emptied())
        if not last:
            slots.end(other)
        slots.stop(deaf)
        await asyncio.sleep(0)
        assert not emptied.done()
        async with asyncio.timeout(30):
            while not listed:  # noqa: ASYNC110 — nothing tells us of it
                await asyncio.sleep(0.001)
            if last:
                await asyncio.sleep(0)
                assert not emptied.done()
                slots.end(other)
            await emptied
        assert (slots.running, slots.stuck) == ({deaf}, ("deaf",))
        slots.end(deaf)
        assert slots.stuck == ()
        assert listed == [("deaf",), ()]

    asyncio.run(scenario())


class Giving(Piece):
    """Work at the end of which the code of others, in their threads, tells of progress."""

    expired_at = 0.0
    others: tuple[Giving, ...] = ()

    def expire(self) -> None:
        super().expire()
        self.expired_at = time.monotonic()
        for other in self.others:
            if not other.expired_at:
                other.deadline = self.expired_at + 0.2


def test_a_deadline_that_moves_at_the_last_moment_has_moved() -> None:
    async def scenario() -> None:
        told: list[str] = []
        slots = Slots(2, 60.0, asyncio.get_running_loop(), lambda _requests: None)
        one, other = Giving("one", 0.02, told), Giving("other", 0.02, told)
        other.deadline = one.deadline
        one.others, other.others = (other,), (one,)
        slots.take(one)
        slots.take(other)
        async with asyncio.timeout(30):
            while not (one.expired_at and other.expired_at):  # noqa: ASYNC110 — nothing tells us of it
                await asyncio.sleep(0.01)
        last = max(one, other, key=lambda piece: piece.expired_at)
        assert last.expired_at >= last.deadline
        slots.end(one, other)

    asyncio.run(scenario())
