"""What does a time of one pool cost, and which part is idle and start-up time? By figures worked out by hand."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.decide.price import PoolCost, marginal, pool_cost, used_usd
from swell.model.request import PoolCount, Prices, Usage

PRICES = Prices(cpu_core_hour_usd=3600.0, memory_gib_hour_usd=7200.0, template_memory_gib_hour_usd=36000.0)
"""A second of a core costs 1 USD; one of a GiB 2 in a replica and 10 in a template."""
GIB_S = 1024.0


def serving(wall_s: float, cpu_s: float = 0.0, gib_s: float = 0.0, starting_s: float = 0.0) -> Usage:
    return Usage("r1-1", "p", "serving", 0.0, wall_s, cpu_s, gib_s * GIB_S, starting_s)


def template(wall_s: float, cpu_s: float = 0.0, gib_s: float = 0.0) -> Usage:
    return Usage("r1-2", "p", "template", 0.0, wall_s, cpu_s, gib_s * GIB_S)


def counted(requests: int = 0, errors: int = 0, cold: int = 0, busy_s: float = 0.0) -> PoolCount:
    return PoolCount("p", 0.0, requests, errors, cold, busy_s)


def test_a_request_costs_its_cpu_and_its_replicas_memory() -> None:
    assert marginal(PRICES, cpu_s=3.0, wall_s=0.0, memory_mib=512) == pytest.approx(3.0)
    assert marginal(PRICES, cpu_s=0.0, wall_s=4.0, memory_mib=512) == pytest.approx(4.0)
    assert marginal(PRICES, cpu_s=3.0, wall_s=4.0, memory_mib=1536) == pytest.approx(3.0 + 12.0)


def test_every_part_of_a_pools_cost() -> None:
    usage = [
        serving(wall_s=10.0, cpu_s=3.0, gib_s=5.0, starting_s=2.0),
        serving(wall_s=10.0, cpu_s=1.0, gib_s=5.0),
        template(wall_s=30.0, cpu_s=0.5, gib_s=6.0),
    ]
    cost = pool_cost(usage, [counted(4, 1, 1, busy_s=5.0), counted(2, 0, 1, busy_s=1.0)], PRICES)
    # Replicas: 20 s, 2 of them starting and 6 busy, so 12 idle. Their memory is 10 GiB s for 20 USD: 1 USD a second.
    assert msgspec.structs.asdict(cost) == pytest.approx(
        {
            "cpu_s": 4.5,
            "replica_s": 20.0,
            "template_s": 30.0,
            "starting_s": 2.0,
            "busy_s": 6.0,
            "memory_gib_s": 16.0,
            "requests": 6,
            "errors": 1,
            "cold": 2,
            "cost_usd": 4.5 + 20.0 + 60.0,
            "idle_usd": 12.0 + 60.0,
            "starting_usd": 2.0 + 0.5,
        }
    )


@pytest.mark.parametrize(
    ("usage", "busy_s", "cost_usd", "idle_usd", "starting_usd"),
    [
        # CPU alone, of a replica: nobody's idle or start-up time.
        ([serving(wall_s=4.0, cpu_s=4.0)], 4.0, 4.0, 0.0, 0.0),
        # Memory alone: 8 USD in 4 s, by what those seconds were.
        ([serving(wall_s=4.0, gib_s=4.0)], 4.0, 8.0, 0.0, 0.0),
        ([serving(wall_s=4.0, gib_s=4.0)], 0.0, 8.0, 8.0, 0.0),
        ([serving(wall_s=4.0, gib_s=4.0, starting_s=4.0)], 0.0, 8.0, 0.0, 8.0),
        ([serving(wall_s=4.0, gib_s=4.0, starting_s=1.0)], 1.0, 8.0, 4.0, 2.0),
        # A template's memory is idle, its CPU is loading.
        ([template(wall_s=4.0, gib_s=4.0)], 0.0, 40.0, 40.0, 0.0),
        ([template(wall_s=4.0, cpu_s=3.0)], 0.0, 3.0, 0.0, 3.0),
        # The gateway's count may run ahead of the runner's: more than was there is not busy.
        ([serving(wall_s=4.0, gib_s=4.0, starting_s=1.0)], 9.0, 8.0, 0.0, 2.0),
        ([], 9.0, 0.0, 0.0, 0.0),
    ],
)
def test_one_part_alone(
    usage: list[Usage], busy_s: float, cost_usd: float, idle_usd: float, starting_usd: float
) -> None:
    cost = pool_cost(usage, [counted(busy_s=busy_s)], PRICES)
    assert (cost.cost_usd, cost.idle_usd, cost.starting_usd) == pytest.approx((cost_usd, idle_usd, starting_usd))


def test_nothing_costs_nothing() -> None:
    assert pool_cost([], [], PRICES) == PoolCost()


amounts = st.floats(0.0, 1e6)
served = st.builds(
    lambda wall_s, share, cpu_s, gib_s: serving(wall_s, cpu_s, gib_s, starting_s=wall_s * share),
    st.floats(0.001, 1e6),
    st.floats(0.0, 1.0),
    amounts,
    amounts,
)
rows = st.lists(st.one_of(served, st.builds(template, amounts, amounts, amounts)), max_size=6)
prices = st.builds(Prices, amounts, amounts, amounts)


@given(rows, amounts, prices)
def test_idle_and_start_up_are_parts_of_the_whole(usage: list[Usage], busy_s: float, listed: Prices) -> None:
    cost = pool_cost(usage, [counted(busy_s=busy_s)], listed)
    assert cost.idle_usd >= 0
    assert cost.starting_usd >= 0
    assert cost.idle_usd + cost.starting_usd <= cost.cost_usd * (1 + 1e-9) + 1e-9
    assert cost.busy_s + cost.starting_s <= cost.replica_s * (1 + 1e-9)


@given(rows, prices)
def test_each_price_is_charged_for_what_it_is_of(usage: list[Usage], listed: Prices) -> None:
    cpu_s = sum(row.cpu_s for row in usage)
    mib_s = {role: sum(row.memory_mib_s for row in usage if row.role == role) for role in ("serving", "template")}
    parts = (
        cpu_s / 3600 * listed.cpu_core_hour_usd,
        mib_s["serving"] / 1024 / 3600 * listed.memory_gib_hour_usd,
        mib_s["template"] / 1024 / 3600 * listed.template_memory_gib_hour_usd,
    )
    assert pool_cost(usage, [], listed).cost_usd == pytest.approx(sum(parts))


@given(rows, prices)
def test_rows_that_are_added_up_as_they_come_cost_the_same(usage: list[Usage], listed: Prices) -> None:
    assert sum(used_usd(row, listed) for row in usage) == pytest.approx(pool_cost(usage, [], listed).cost_usd)


@given(rows, rows, amounts)
def test_rows_of_two_times_cost_what_both_cost(one: list[Usage], other: list[Usage], busy_s: float) -> None:
    """But for the shares: what was busy is spread over all of it."""
    apart = [pool_cost(usage, [], PRICES).cost_usd for usage in (one, other)]
    assert pool_cost([*one, *other], [counted(busy_s=busy_s)], PRICES).cost_usd == pytest.approx(sum(apart))
