"""Where replicas can be placed: a machine, or a pod or Ray node that a runner reports."""

from __future__ import annotations

import msgspec

from swell.model.gpu import Gpu
from swell.model.isolation import LAYERS
from swell.model.resources import Room


class Node(msgspec.Struct, frozen=True):
    """One place, as its runner reports it. What decides today are its capacity and whether it is alive; the rest tells
    kinds of places apart once there are several."""

    id: str
    cpu: float
    """Cores it has."""
    memory_mib: int
    """Memory replicas may be promised, MiB."""
    alive: bool = True
    cpu_overcommit: float = 1.0
    """Sum of CPU requests may reach `cpu * cpu_overcommit`: CPU gives way, memory does not."""
    labels: tuple[tuple[str, str], ...] = ()
    """Zone, rack and the like."""
    provider: str = "local"
    price_per_hour_usd: float = 0.0
    spot: bool = False
    """It may be taken away at any time."""
    lacks: tuple[tuple[str, str], ...] = tuple((layer, "its runner does not say") for layer in (*LAYERS, "volumes"))
    """Layers of a sandbox that it cannot put up, and "volumes" where it cannot mount those, each with why not."""
    leaving_at: float | None = None
    """Until then it is there (seconds since the epoch): nothing new is placed on it. None: it stays."""
    gpus: tuple[Gpu, ...] = ()
    """Its devices, in their order on the machine."""
    within: str | None = None
    """The pod or machine of another system that its runner is in; None = the machine itself."""

    def room(self) -> Room:
        """Its capacity with nothing placed."""
        cpu, memory_mib = self.cpu * self.cpu_overcommit, float(self.memory_mib)
        cores = self.cpu if self.cpu_overcommit != 1 else None
        devices = {gpu.id: 1 for gpu in self.gpus}
        return Room(self.id, cpu, memory_mib, set(), cpu, memory_mib, cores, self.gpus, devices)
