"""Where replicas can be placed: a machine, or a pod or Ray node that a runner reports."""

from __future__ import annotations

import msgspec

from swell.model.resources import Room


class Node(msgspec.Struct, frozen=True):
    """Capacity and labels of one place, as its runner reports them."""

    id: str
    cpu: float
    """Cores it has."""
    memory_mib: int
    """Memory replicas may be promised, MiB."""
    alive: bool = True
    cpu_overcommit: float = 1.0
    """Sum of CPU requests may reach `cpu * cpu_overcommit`: CPU gives way, memory does not."""
    labels: tuple[tuple[str, str], ...] = ()
    provider: str = "local"
    price_per_hour_usd: float = 0.0
    spot: bool = False
    within: str | None = None

    def room(self) -> Room:
        """Its capacity with nothing placed."""
        cpu, memory_mib = self.cpu * self.cpu_overcommit, float(self.memory_mib)
        return Room(self.id, cpu, memory_mib, set(), cpu_whole=cpu, memory_whole_mib=memory_mib)
