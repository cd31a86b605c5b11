"""How is something asked that may never answer, and who else asks for something does not wait for it?

A database or a mount that hangs keeps the thread that asks it, for good. The event loop's own threads are few, and are
what deploys and all else need. So a source has a thread of its own, one at most, however often it is opened anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class OwnThread:
    """Runs one thing after the other. A process that ends does not wait for it."""

    def __init__(self, name: str) -> None:
        """`name` is what debuggers show."""
        self._name = name
        self._asked: Future[Any] | None = None
        """What was begun last."""

    async def run(self, work: Callable[[], T], most_s: float | None = None) -> T:
        """What `work` returns, once all has returned that was asked before. Who is cancelled waits for neither.
        ConnectionError where that takes more than `most_s`; without, it may take as long as it does."""
        try:
            async with asyncio.timeout(most_s) as bound:
                while self._asked is not None and not self._asked.done():
                    with suppress(Exception):
                        await asyncio.wrap_future(self._asked)
                return await asyncio.wrap_future(self._begin(work))
        except TimeoutError:
            if not bound.expired():
                raise
            raise ConnectionError(f"there is no answer for {most_s:g} s") from None

    def _begin(self, work: Callable[[], T]) -> Future[T]:
        asked: Future[T] = Future()
        # From now on nobody takes it back: it is done when its thread says so.
        asked.set_running_or_notify_cancel()
        Thread(target=_answer, args=(asked, work), name=self._name, daemon=True).start()
        self._asked = asked
        return asked


def _answer(asked: Future[T], work: Callable[[], T]) -> None:
    try:
        made = work()
    except BaseException as error:
        asked.set_exception(error)
    else:
        asked.set_result(made)
