"""Does what hangs in a source's thread hang nobody else, nor more than that one thread?"""

from __future__ import annotations

import asyncio
import threading

import pytest

from swell.sources.threads import OwnThread

NAME = "swell-test"


def there() -> int:
    """Threads of that name."""
    return sum(each.name == NAME for each in threading.enumerate())


def test_what_hangs_is_told_of_and_what_comes_after_it_waits_for_it() -> None:
    async def run() -> None:
        asking, go = OwnThread(NAME), threading.Event()
        try:
            for _ in range(3):
                with pytest.raises(ConnectionError, match=r"no answer for 0\.05 s"):
                    await asking.run(go.wait, 0.05)
                assert there() == 1
            later = asyncio.create_task(asking.run(lambda: "later"))
            # Whoever else needs a thread has one.
            assert await asyncio.to_thread(lambda: 7) == 7
            assert not later.done()
        finally:
            go.set()
        assert await later == "later"

    asyncio.run(run())


def test_what_is_raised_is_told_and_who_leaves_does_not_take_it_along() -> None:
    async def run() -> None:
        asking, go, ended = OwnThread(NAME), threading.Event(), threading.Event()

        def work() -> None:
            go.wait()
            ended.set()
            raise OSError("nobody hears of it")

        leaving = asyncio.create_task(asking.run(work))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        go.set()

        def times_out() -> None:
            assert ended.is_set(), "one after the other"
            raise TimeoutError("of the mount")

        with pytest.raises(TimeoutError, match="of the mount"):
            await asking.run(times_out, 60.0)

    asyncio.run(run())
