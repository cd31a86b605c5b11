"""What is told of nodes over HTTP?"""

from __future__ import annotations

import msgspec


class GpuRow(msgspec.Struct, frozen=True):
    """One device."""

    id: str
    """What `CUDA_VISIBLE_DEVICES` calls it."""
    model: str
    memory_mib: int
    """0: not known."""
    free: bool
    """No replica has it."""


class NodeRow(msgspec.Struct, frozen=True):
    """GET /api/nodes → list of these; what `swell node list --json` prints."""

    id: str
    alive: bool
    cpu: float
    """Cores it has."""
    cpu_left: float
    """Of those that replicas may ask for, `cpu_overcommit` times as many, what nobody has."""
    memory_mib: int
    """Memory that replicas may be promised."""
    memory_left_mib: float
    gpus: tuple[GpuRow, ...]
    spot: bool
    """It may be taken away at any time, as its operator says."""
    leaving_at: float | None
    """Nothing new is placed on it, and then it goes (seconds since the epoch); None: it stays."""
