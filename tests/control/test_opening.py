"""Does control wait while there is no room for its state, for nothing else, and no longer than it is wanted?"""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.control.opening import once_there_is_room
from swell.model.errors import SwellError

FULL = SwellError("state_full", "There is no space left.", status=507)
OTHERS = st.sampled_from(
    [SwellError("state_damaged", "It is damaged."), SwellError("state_locked", "It is locked."), OSError("else")]
)


@given(st.integers(0, 5), st.none() | OTHERS, st.none() | st.integers(0, 7))
def test_only_lack_of_space_waits_and_is_said_once(full: int, then: Exception | None, stop_at: int | None) -> None:
    """It is full so often and then opened, or refused for another reason; told to stop while it is tried, perhaps."""
    said: list[str] = []
    tries = 0

    async def wait() -> int | None:
        stopped = asyncio.Event()

        def do() -> int:
            nonlocal tries
            tries += 1
            if tries == stop_at:
                stopped.set()
            if tries <= full:
                raise FULL
            if then is not None:
                raise then
            return tries

        async def told() -> None:
            await stopped.wait()

        return await once_there_is_room(do, said.append, told, look_s=0.0)

    given_up = stop_at is not None and 0 < stop_at <= full
    if then is not None and not given_up:
        with pytest.raises(type(then)) as caught:
            asyncio.run(wait())
        assert caught.value is then
    else:
        assert asyncio.run(wait()) == (None if given_up else full + 1)
    assert tries == (stop_at if given_up else full + 1)
    assert said == ([FULL.message] if full else [])
