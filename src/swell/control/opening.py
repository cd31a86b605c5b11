"""What does control do while its disk has no room for its state, or its database is away or another's? It waits and
looks again; all that runs goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from swell.model.errors import SwellError

LOOK_S = 1.0
"""How often it is looked whether it can be opened now."""
PASSING = ("state_full", "state_unreachable", "state_locked")
"""What time may mend."""

T = TypeVar("T")


async def once_there_is_room(
    do: Callable[[], T],
    waits: Callable[[SwellError], None],
    stopped: Callable[[], Coroutine[Any, Any, None]],
    look_s: float = LOOK_S,
) -> T | None:
    """What `do`, in a thread, returns as soon as it is not refused for what passes; None where it was `stopped` before.

    That it `waits` is told once, with the refusal. Raises what else `do` raises: waiting mends none of it.
    """
    over = asyncio.create_task(stopped())
    told = False
    try:
        while not over.done():
            try:
                return await asyncio.to_thread(do)
            except SwellError as error:
                if error.code not in PASSING:
                    raise
                if not told:
                    told = True
                    waits(error)
            await asyncio.wait([over], timeout=look_s)
        return None
    finally:
        over.cancel()
