"""What does control do while its disk has no room for its state? It waits and looks again; all that runs goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from swell.model.errors import SwellError

LOOK_S = 1.0
"""How often it is looked whether there is room."""
T = TypeVar("T")


async def once_there_is_room(
    do: Callable[[], T],
    say: Callable[[str], None],
    stopped: Callable[[], Coroutine[Any, Any, None]],
    look_s: float = LOOK_S,
) -> T | None:
    """What `do` returns, as soon as it is not refused for lack of space; None where it was `stopped` before.

    That it waits is said once, in the words of the refusal. Raises what else `do` raises: waiting mends none of it.
    """
    told = asyncio.create_task(stopped())
    waits = False
    try:
        while not told.done():
            try:
                return do()
            except SwellError as error:
                if error.code != "state_full":
                    raise
                if not waits:
                    waits = True
                    say(error.message)
            await asyncio.wait([told], timeout=look_s)
        return None
    finally:
        told.cancel()
