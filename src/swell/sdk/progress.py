"""How far is a map? One line on a terminal, for those that take longer than a moment."""

from __future__ import annotations

import operator
import os
import sys
import time
from collections.abc import AsyncIterable
from typing import Any, TextIO

AFTER_S = 2.0
"""Nothing is shown of what is over by then."""
AGAIN_S = 0.2
"""The line is written so often at most."""
WIDTH = 24
"""Of the bar, in characters."""


class Progress:
    """Of one map. It is told of each result, and writes on the terminal that standard error is, where it is one."""

    def __init__(self, name: str, total: int | None, out: TextIO | None = None) -> None:
        """`total`: inputs, where that is known."""
        self._name = name
        self._total = total
        out = sys.stderr if out is None else out
        shown = os.environ.get("SWELL_PROGRESS", "1").lower() not in ("0", "false", "no", "off")
        self._out = out if shown and out is not None and out.isatty() else None
        self._began_at = time.monotonic()
        self._next_at = self._began_at + AFTER_S
        self._done = 0
        self._written = False

    def step(self) -> None:
        """One more result was given."""
        self._done += 1
        if self._out is not None and time.monotonic() >= self._next_at:
            self._write(self._out)

    def close(self) -> None:
        """It is over: the terminal is as it was."""
        if self._out is not None and self._written:
            self._out.write("\r\x1b[K")
            self._out.flush()

    def _write(self, out: TextIO) -> None:
        now = time.monotonic()
        self._next_at = now + AGAIN_S
        self._written = True
        out.write(f"\r{self.line(now)}\x1b[K")
        out.flush()

    def line(self, now: float) -> str:
        """What is shown at that time (monotonic)."""
        per_s = self._done / max(now - self._began_at, 1e-9)
        if not self._total:
            return f"{self._name}: {self._done} ({per_s:.0f}/s)"
        full = min(self._done * WIDTH // self._total, WIDTH)
        left_s = max(self._total - self._done, 0) / max(per_s, 1e-9)
        bar = "#" * full + "." * (WIDTH - full)
        return f"{self._name}: [{bar}] {self._done}/{self._total} ({per_s:.0f}/s, {_time(left_s)} left)"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def total_of(sources: tuple[Any, ...]) -> int | None:
    """How many inputs these give side by side, where all of them know; they are not read."""
    if any(isinstance(source, AsyncIterable) or not hasattr(source, "__len__") for source in sources):
        return None
    return min((operator.length_hint(source) for source in sources), default=None)
