"""A call in Swell's durable queue. Accepted: it is on disk, synced."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import swell

nothing = swell.Function.from_name("bench-queue", "nothing")
opened = nullcontext


def submit() -> Any:
    return nothing.spawn()


def wait(call: Any) -> None:
    call.get()


def wait_all(calls: list[Any]) -> None:
    swell.FunctionCall.gather(*calls)
