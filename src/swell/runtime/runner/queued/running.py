"""Since when do queued calls run, and how far are they? What control is told of that every few seconds."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice

import msgspec

from swell.wire.calls import MESSAGE_MAX, Granted, Lease, Progress, Running
from swell.wire.child import Report

TOLD_MAX = 1000
"""Calls that control is told of at a time: those that have run for longest."""


class Begun:
    """All calls that were sent to replicas and have not ended."""

    def __init__(self) -> None:
        self._running: dict[Lease, Running] = {}
        """In the order in which they began."""

    def begin(self, call: Granted, now: float) -> None:
        """It was sent to its replica."""
        self._running[call.id, call.token] = Running(call.id, call.token, now)

    def hear(self, lease: Lease, report: Report, redact: Callable[[str], str], now: float) -> None:
        """Its code says how far it is. Whoever got hold of a replica may say anything."""
        running = self._running.get(lease)
        if running is None:
            return
        ago_s = report.ago_s if 0 <= report.ago_s <= now - running.begun_at else 0.0
        message = redact(report.message)[:MESSAGE_MAX].replace("\0", "?")
        progress = Progress(now - ago_s, _finite(report.done), _finite(report.total), message)
        self._running[lease] = msgspec.structs.replace(running, progress=progress)

    def end(self, lease: Lease) -> bool:
        """It does not run, or not any more. Did it?"""
        return self._running.pop(lease, None) is not None

    def told(self) -> tuple[Running, ...]:
        """What control is told of."""
        return tuple(islice(self._running.values(), TOLD_MAX))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
