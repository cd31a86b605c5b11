"""Whose is what is there for a while only? A program, wherever it runs: what it owns ends with it."""

from __future__ import annotations

import msgspec


class Owner(msgspec.Struct, frozen=True):
    """A process; its pid alone may have been given to another since, or mean another elsewhere."""

    pid: int
    start_ticks: int
    """Clock ticks after boot at which it started; 0 where the system does not say."""
    machine: str = ""
    """Where its pid is its own (`wire/identity.machine`); empty: where the server is, as older clients suppose."""
