"""Does control wait while there is no room for its state, for nothing else, and no longer than it is wanted?"""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.control.opening import once_there_is_room
from swell.model.errors import SwellError

PASSES = st.sampled_from(
    [
        SwellError("state_full", "There is no space left.", status=507),
        SwellError("state_unreachable", "It is away.", status=503),
        SwellError("state_locked", "The former control's connection is not over.", status=503),
    ]
)
OTHERS = st.sampled_from(
    [SwellError("state_damaged", "It is damaged."), SwellError("state_other", "It is another."), OSError("else")]
)


@given(st.integers(0, 5), PASSES, st.none() | OTHERS, st.none() | st.integers(0, 7))
def test_only_what_passes_is_waited_for_and_said_once(
    full: int, passes: SwellError, then: Exception | None, stop_at: int | None
) -> None:
    """So it is so often, and then it is opened, or refused for another reason; perhaps it is told to stop meanwhile."""
    said: list[SwellError] = []
    tries = 0

    async def wait() -> int | None:
        stopped = asyncio.Event()

        def do() -> int:
            nonlocal tries
            tries += 1
            if tries == stop_at:
                stopped.set()
            if tries <= full:
                raise passes
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
    assert said == ([passes] if full else [])
