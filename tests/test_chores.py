"""Does a periodic task of control survive what goes wrong once?"""

from __future__ import annotations

import asyncio

import pytest

from swell.control.chores import every
from swell.model.errors import SwellError


@pytest.mark.parametrize("error", [RuntimeError("once"), OSError("once"), SwellError("state_full", "once")])
def test_a_chore_that_fails_once_is_logged_and_done_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        done = asyncio.Event()
        tries = 0

        async def chore() -> None:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise error
            done.set()

        task = asyncio.create_task(every(0.0, chore))
        await asyncio.wait_for(done.wait(), 30.0)
        task.cancel()

    asyncio.run(scenario())
    assert "once" in caplog.text
