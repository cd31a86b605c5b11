"""How much memory do each workload's replicas hold on this node now, of many workloads the first ones apart?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from swell.model.metrics import MEMORY, Bounded, Sample
from swell.model.variant import base_of
from swell.model.workload import workload_of


def memory(children: Iterable[tuple[str, str, float]], node: str, workloads_max: int) -> Iterator[Sample]:
    """`children`: pool, role and MiB of each replica and template."""
    held: Bounded[dict[str, float]] = Bounded(workloads_max, dict)
    for pool, role, mib in children:
        of_workload = held.of(base_of(workload_of(pool)))
        of_workload[role] = of_workload.get(role, 0.0) + mib
    for labels, by_role in held.items():
        for role, mib in by_role.items():
            yield Sample(MEMORY, (*labels, role, node), round(mib * 2**20))
