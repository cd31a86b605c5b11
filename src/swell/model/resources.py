"""What a replica needs and what a node has: CPU, memory, GPUs, and TCP ports it must own."""

from __future__ import annotations

import msgspec


class Needs(msgspec.Struct, frozen=True):
    """What one replica asks for. Requests place it; limits, where set, are enforced."""

    cpu: float = 0.125
    """Cores requested."""
    cpu_limit: float | None = None
    """Cores it may use at most (cgroup quota where permitted); None = no quota."""
    memory_mib: int = 128
    """Memory requested, MiB."""
    memory_limit_mib: int | None = None
    """Memory it may use at most, MiB; beyond it the kernel kills the replica."""
    gpu: tuple[str, ...] = ()
    """Acceptable GPU kinds in order of preference, e.g. ("L4", "A100:2"). Empty = none."""
    ports: tuple[int, ...] = ()
    """TCP ports on the node's loopback that only one replica can own at a time."""


class Room(msgspec.Struct):
    """Free capacity of one node while a plan is being made. Mutable on purpose: a plan spends it."""

    cpu: float
    memory_mib: float
    ports: set[int]

    def lacks(self, needs: Needs) -> str | None:
        """The first thing that does not fit, as a sentence fragment; None when all fits."""
        if needs.gpu:
            return f"has no GPU of kind {' or '.join(needs.gpu)}"
        # A hair of slack: sums of decimal CPU shares must not refuse the last one that fits exactly.
        if needs.cpu > self.cpu + 1e-9:
            return f"has {max(self.cpu, 0.0):g} of {needs.cpu:g} cores free"
        if needs.memory_mib > self.memory_mib + 1e-9:
            return f"has {max(self.memory_mib, 0.0):g} of {needs.memory_mib} MiB memory free"
        taken = self.ports.intersection(needs.ports)
        if taken:
            return f"has port {min(taken)} taken by another replica"
        return None

    def take(self, needs: Needs) -> None:
        self.cpu -= needs.cpu
        self.memory_mib -= needs.memory_mib
        self.ports.update(needs.ports)

    def give_back(self, needs: Needs) -> None:
        self.cpu += needs.cpu
        self.memory_mib += needs.memory_mib
        self.ports.difference_update(needs.ports)
