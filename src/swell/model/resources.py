"""What a replica needs and what a node has: CPU, memory, GPUs, and TCP ports it must own."""

from __future__ import annotations

import msgspec

from swell.model import gpu
from swell.model.gpu import Gpu

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
        """A template's share of it: the memory, but neither CPU, ports nor GPUs."""
        return Needs(cpu=0.0, memory_mib=self.memory_mib)


NOTHING = Needs(cpu=0.0, memory_mib=0)


class Held(msgspec.Struct, frozen=True):
    """What one replica has of its node."""

    needs: Needs
    gpus: tuple[str, ...] = ()
    """Ids of its devices, and of nobody else's."""


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
    gpus: tuple[Gpu, ...] = ()
    """All that the node has."""
    devices: dict[str, int] = {}
    """Id of each → 1: free, 0: held; below that where it is promised before it comes free, or held twice."""

    def copy(self) -> Room:
        whole = (self.cpu_whole, self.memory_whole_mib, self.cores, self.gpus)
        return Room(self.node, self.cpu, self.memory_mib, set(self.ports), *whole, self.devices.copy())

    def lacks(self, needs: Needs) -> str | None:
        """The first thing that does not fit, as a sentence about who asks; None when all fits."""
        if needs.gpu and self.choice(needs) is None:
            there = gpu.there(self.gpus, self.devices)
            return f"it asks for {gpu.in_words(needs.gpu)}; node {self.node} has {there}"
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

    def choice(self, needs: Needs) -> int | None:
        """Which of the GPU kinds asked for it would get here; None: of none there are enough, or none is asked for."""
        chosen = gpu.choose(needs.gpu, self.gpus, self.devices)
        return chosen[0] if chosen is not None else None

    def could(self, needs: Needs) -> bool:
        """Has the node such GPUs, free or not?"""
        return gpu.choose(needs.gpu, self.gpus, dict.fromkeys(self.devices, 1)) is not None

    def suits(self, held: Held) -> bool:
        """Are these devices free, and what is asked for?"""
        free = {id: self.devices.get(id, 0) for id in held.gpus}
        chosen = gpu.choose(held.needs.gpu, self.gpus, free) if held.needs.gpu else (0, ())
        return chosen is not None and len(chosen[1]) == len(held.gpus)

    @property
    def free_gpus(self) -> int:
        return sum(times > 0 for times in self.devices.values())

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
        if needs.gpu:
            times = min(times, self._times_of_gpus(needs))
        return max(times, 1)

    def _times_of_gpus(self, needs: Needs) -> int:
        left, times = self.copy(), 0
        while left.choice(needs) is not None:
            left.take(needs)
            times += 1
        return times

    def take(self, needs: Needs) -> Held:
        """Give what is asked for, and say which devices that is: none, where there are not enough."""
        chosen = gpu.choose(needs.gpu, self.gpus, self.devices)
        held = Held(needs, tuple(each.id for each in chosen[1]) if chosen is not None else ())
        self.hold(held)
        return held

    def hold(self, held: Held) -> None:
        """That is taken, whether or not it was free."""
        self.cpu -= held.needs.cpu
        self.memory_mib -= held.needs.memory_mib
        self.ports.update(held.needs.ports)
        self._count(held.gpus, -1)

    def give_back(self, held: Held) -> None:
        self.cpu += held.needs.cpu
        self.memory_mib += held.needs.memory_mib
        self.ports.difference_update(held.needs.ports)
        self._count(held.gpus, +1)

    def _count(self, gpus: tuple[str, ...], step: int) -> None:
        # One that the node calls otherwise now may be any of them.
        for id in gpus if all(id in self.devices for id in gpus) else self.devices:
            self.devices[id] += step


def _free(left: float, whole: float) -> str:
    """How much is left of the whole, in words."""
    if left >= whole:
        return _short(whole)
    return f"{_short(max(left, 0.0))} free of {_short(whole)}"


def _short(amount: float) -> str:
    return f"{amount:.2f}".rstrip("0").rstrip(".")
