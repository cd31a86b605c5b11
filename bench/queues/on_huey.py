"""A task of huey, in SQLite. QUEUE_DURABLE: each commit is synced.

Results are asked for every 5 ms, which is more often than it does unless it is told so.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import Any

from huey import SqliteHuey

huey = SqliteHuey("bench", filename=os.environ["QUEUE_FILE"], fsync=bool(os.environ.get("QUEUE_DURABLE")))
opened = nullcontext


@huey.task()
def nothing() -> bool:
    """Not None: that would be no result."""
    return True


def submit() -> Any:
    return nothing()


def wait(call: Any) -> None:
    call.get(blocking=True, timeout=300, backoff=1.0, max_delay=0.005)


def wait_all(calls: list[Any]) -> None:
    for call in calls:
        wait(call)
