"""Has the other side of a connection closed it? Asked of the kernel, from any thread: the loop may not know yet."""

from __future__ import annotations

import select
from typing import Any

_HALF = getattr(select, "POLLRDHUP", 0)
_WHOLE = select.POLLHUP


def hung_up(transport: Any) -> bool:
    """Of a transport of asyncio's or uvloop's; False once it is closed here."""
    return _state(transport) != 0


def half_closed(transport: Any) -> bool:
    """Is its sending side closed, and the other not? A process that dies closes both."""
    return _state(transport) == _HALF != 0


def _state(transport: Any) -> int:
    descriptor = transport.get_extra_info("socket").fileno()
    if descriptor < 0:
        return 0
    asked = select.poll()
    asked.register(descriptor, _HALF | _WHOLE)
    return next((event & (_HALF | _WHOLE) for _, event in asked.poll(0)), 0)
