"""What did this cost, and who pays for the time in which nothing was asked?"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from swell.model.request import PoolCount, Prices, Usage

SECONDS_PER_HOUR = 3600.0


def marginal(prices: Prices, cpu_s: float, wall_s: float, memory_mib: int) -> float:
    """USD that one request itself used: its CPU time, and its replica's memory while it ran."""
    return (
        cpu_s * prices.cpu_core_hour_usd + wall_s * memory_mib / 1024 * prices.memory_gib_hour_usd
    ) / SECONDS_PER_HOUR


def used_usd(usage: Usage, prices: Prices) -> float:
    """USD that a replica, or a template, cost in one interval: its CPU time, and the memory it held."""
    gib_hour_usd = prices.memory_gib_hour_usd if usage.role == "serving" else prices.template_memory_gib_hour_usd
    return usage.cpu_s * prices.cpu_core_hour_usd / SECONDS_PER_HOUR + _memory_usd((usage,), gib_hour_usd)


class PoolCost(msgspec.Struct, frozen=True):
    """One pool's resources and money over a time. Seconds are replica-seconds."""

    cpu_s: float = 0.0
    replica_s: float = 0.0
    template_s: float = 0.0
    starting_s: float = 0.0
    busy_s: float = 0.0
    memory_gib_s: float = 0.0
    requests: int = 0
    errors: int = 0
    cold: int = 0
    cost_usd: float = 0.0
    idle_usd: float = 0.0
    """Part of cost_usd for ready replicas with nothing to do, and for templates."""
    starting_usd: float = 0.0
    """Part of cost_usd for replicas that were not ready yet, and for loading templates (all of their CPU)."""


def pool_cost(usage: Iterable[Usage], counts: Iterable[PoolCount], prices: Prices) -> PoolCost:
    """Add one pool's rows up and price them: CPU used, plus memory held for as long as it was held.

    Idle and start-up time are the share of the memory price that their seconds have; their CPU is in the total.
    """
    usage, counts = list(usage), list(counts)
    serving = [u for u in usage if u.role == "serving"]
    templates = [u for u in usage if u.role == "template"]
    replica_s = sum(u.wall_s for u in serving)
    starting_s = sum(u.starting_s for u in serving)
    busy_s = min(sum(c.busy_s for c in counts), max(replica_s - starting_s, 0.0))
    serving_usd = _memory_usd(serving, prices.memory_gib_hour_usd)
    template_usd = _memory_usd(templates, prices.template_memory_gib_hour_usd)
    cpu_s = sum(u.cpu_s for u in usage)
    idle_s = max(replica_s - starting_s - busy_s, 0.0)
    per_second = serving_usd / replica_s if replica_s else 0.0
    return PoolCost(
        cpu_s=cpu_s,
        replica_s=replica_s,
        template_s=sum(u.wall_s for u in templates),
        starting_s=starting_s,
        busy_s=busy_s,
        memory_gib_s=sum(u.memory_mib_s for u in usage) / 1024,
        requests=sum(c.requests for c in counts),
        errors=sum(c.errors for c in counts),
        cold=sum(c.cold for c in counts),
        cost_usd=cpu_s * prices.cpu_core_hour_usd / SECONDS_PER_HOUR + serving_usd + template_usd,
        idle_usd=per_second * idle_s + template_usd,
        starting_usd=per_second * starting_s
        + sum(u.cpu_s for u in templates) * prices.cpu_core_hour_usd / SECONDS_PER_HOUR,
    )


def _memory_usd(rows: Iterable[Usage], gib_hour_usd: float) -> float:
    return sum(u.memory_mib_s for u in rows) / 1024 * gib_hour_usd / SECONDS_PER_HOUR
