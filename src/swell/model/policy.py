"""The server's own limits and fixed policies: each with a default and a unit in its name."""

from __future__ import annotations

import msgspec


class Policy(msgspec.Struct, frozen=True):
    """Settings that decisions take as an argument. `swell up --set name=value` or swell.toml [policy]."""

    templates: bool = True
    """Keep loaded templates to fork replicas from."""
    template_idle_s: float = 600.0
    """A template goes when its pool was not used for this long."""
    template_memory_share: float = 0.5
    """Share of a node's memory that templates may hold; beyond it the longest unused goes first."""
    restart_backoff_s: float = 1.0
    """A pool whose start failed is started again after this long, doubled each time…"""
    restart_backoff_max_s: float = 60.0
    """…up to this long."""
    failing_max: int = 3
    """Starts of a pool that fail in a row before its callers are refused until the next try is due."""
    failing_wait_s: float = 5.0
    """They are refused sooner once failed starts took this long in all, or one its whole start-up time."""
    stop_grace_s: float = 30.0
    """A drain longer than the input's own timeout plus this is cut."""
    preempt_grace_s: float = 30.0
    """A job that gives way to one of a higher priority has so long to keep what it has done, and is cut then."""
    roll_wait_s: float = 30.0
    """A new revision that finds no room beside the one before it waits this long for some; then that one gives way."""
    reclaim_after_s: float = 1.0
    """Under pressure a replica idle for at least this long may go before its `idle_s`."""
