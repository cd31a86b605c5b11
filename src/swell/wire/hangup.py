"""Has the other side of a connection closed it? Asked of the kernel, from any thread: the loop may not know yet."""

from __future__ import annotations

import select
from typing import Any

_HUNG_UP = select.POLLHUP | getattr(select, "POLLRDHUP", 0)


def hung_up(transport: Any) -> bool:
    """Of a transport of asyncio's or uvloop's; False once it is closed here."""
    descriptor = transport.get_extra_info("socket").fileno()
    if descriptor < 0:
        return False
    asked = select.poll()
    asked.register(descriptor, _HUNG_UP)
    return any(event & _HUNG_UP for _, event in asked.poll(0))
