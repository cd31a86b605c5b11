"""What a replica needs and what a node has: CPU, memory, GPUs, and TCP ports it must own."""

from __future__ import annotations

import msgspec

SLACK = 1e-9
"""Sums of decimal CPU shares must not refuse the last one that fits exactly."""
TIMES_MAX = 1_000_000


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

    @property
    def of_template(self) -> Needs:
        """A template's share of it: the memory, but neither CPU nor ports."""
        return Needs(cpu=0.0, memory_mib=self.memory_mib)


class Room(msgspec.Struct):
    """Free capacity of one node while a plan is being made. Mutable on purpose: a plan spends it."""

    node: str
    cpu: float
    memory_mib: float
    ports: set[int]
    """Those in use."""
    cpu_whole: float
    """Of the node when nothing is placed on it."""
    memory_whole_mib: float
    cores: float | None = None
    """Those that `cpu_whole` is a multiple of (`cpu_overcommit`); None = it is no multiple."""

    def copy(self) -> Room:
        whole = (self.cpu_whole, self.memory_whole_mib, self.cores)
        return Room(self.node, self.cpu, self.memory_mib, set(self.ports), *whole)

    def lacks(self, needs: Needs) -> str | None:
        """The first thing that does not fit, as a sentence about who asks; None when all fits."""
        if needs.gpu:
            return f"it asks for a GPU of kind {' or '.join(needs.gpu)}; node {self.node} has none"
        if needs.cpu > self.cpu + SLACK:
            free = _free(self.cpu, self.cpu_whole)
            times = f" ({_short(self.cores)} times cpu_overcommit)" if self.cores is not None else ""
            return f"it asks for {needs.cpu:g} cores; node {self.node} has {free}{times}"
        if needs.memory_mib > self.memory_mib + SLACK:
            free = _free(self.memory_mib, self.memory_whole_mib)
            return f"it asks for {needs.memory_mib} MiB of memory; node {self.node} has {free}"
        taken = self.ports.intersection(needs.ports)
        if taken:
            return f"it asks for port {min(taken)}; another replica has it on node {self.node}"
        return None

    def times(self, needs: Needs) -> int:
        """How many of these fit beside each other; of those that ask for nothing that is counted, more than anyone may
        ask for."""
        if self.lacks(needs) is not None:
            return 0
        if needs.ports:
            return 1
        times = TIMES_MAX
        if needs.cpu > 0:
            times = min(times, int((self.cpu + SLACK) / needs.cpu))
        if needs.memory_mib > 0:
            times = min(times, int((self.memory_mib + SLACK) / needs.memory_mib))
        return max(times, 1)

    def take(self, needs: Needs) -> None:
        self.cpu -= needs.cpu
        self.memory_mib -= needs.memory_mib
        self.ports.update(needs.ports)

    def give_back(self, needs: Needs) -> None:
        self.cpu += needs.cpu
        self.memory_mib += needs.memory_mib
        self.ports.difference_update(needs.ports)


def _free(left: float, whole: float) -> str:
    """How much is left of the whole, in words."""
    if left >= whole:
        return _short(whole)
    return f"{_short(max(left, 0.0))} free of {_short(whole)}"


def _short(amount: float) -> str:
    return f"{amount:.2f}".rstrip("0").rstrip(".")
