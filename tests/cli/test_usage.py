"""Do the rows of `swell usage` sum up what was used, whichever way they are grouped?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.cli.usage import GROUPS, amount, by_key, grouped, key_listing, listing
from swell.wire.api import KeyUsage, PoolUsage


def used(pool: str, cost_usd: float, requests: int = 1) -> PoolUsage:
    return PoolUsage(pool, requests, 0, 1, 0.5, 2.0, 3.0, 0.25, 0.5, 1.0, cost_usd)


POOLS = [
    used("default/shop/price@rv-1", 0.5, 10),
    used("default/shop/price@rv-2", 0.25, 5),
    used("default/shop/size@rv-3", 1.0),
    used("default/tools--0123abcd/add@rv-4", 2.0),
    used("default/tools--4567cdef/add@rv-4", 2.0),
    used("default/tools/add@rv-4", 3.0),
]


def test_revisions_are_one_row_and_runs_are_one_row_the_dearest_first() -> None:
    rows = grouped(POOLS, "workload")
    assert [(row["workload"], row["runs"], row["cost_usd"]) for row in rows] == [
        ("default/tools/add", 2, 4.0),
        ("default/tools/add", 0, 3.0),
        ("default/shop/size", 0, 1.0),
        ("default/shop/price", 0, 0.75),
    ]
    assert rows[3]["requests"] == 15
    *lines, total, _, unit = listing(rows, "workload").splitlines()
    assert lines[0].split()[-1] == "WORKLOAD"
    assert lines[1].endswith("  tools/add (2 runs)")
    assert lines[4].endswith("  shop/price")
    assert [line.split()[:2] for line in lines[1:]] == [["4.0", "46%"], ["3.0", "34%"], ["1.0", "11%"], ["0.75", "9%"]]
    assert total.split() == ["8.8", "100%", "19", "0", "6", "3.0s", "12s", "18s", "total"]
    assert unit == "COST is in US dollars."


def test_small_costs_are_in_a_unit_in_which_they_compare() -> None:
    rows = grouped([used("default/a/f@rv-1", 2.5e-6), used("default/b/f@rv-1", 9e-9)], "app")
    _, one, other, _, _, unit = listing(rows, "app").splitlines()
    assert one.split()[:2] == ["2.5", "100%"]
    assert other.split()[:3] == ["0.0090", "<", "1%"]
    assert unit == "COST is in millionths of a US dollar."


@given(st.floats(1e-6, 1e6))
def test_an_amount_has_two_digits_that_count(value: float) -> None:
    text = amount(value)
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.051)
    assert "e" not in text


def test_use_that_cost_nothing_is_no_share() -> None:
    rows = grouped([used("default/a/f@rv-1", 0.0)], "app")
    assert listing(rows, "app").splitlines()[1].split()[:2] == ["0", "0%"]


@pytest.mark.parametrize(("by", "count"), [("app", 3), ("workload", 4), ("pool", 6)])
def test_a_row_for_each_group(by: str, count: int) -> None:
    assert len(grouped(POOLS, by)) == count
    assert len({(row[by], row["runs"]) for row in grouped(POOLS, by)}) == count


names = st.sampled_from(["a", "b", "a--0123abcd", "a--89abcdef", "b--01234567"])
pools = st.builds("default/{}/{}@rv-{}".format, names, st.sampled_from("fg"), st.integers(1, 2))


@given(st.lists(st.builds(used, pools, st.integers(0, 100).map(float)), min_size=1), st.sampled_from(GROUPS))
def test_nothing_is_lost_or_counted_twice(pools: list[PoolUsage], by: str) -> None:
    rows = grouped(pools, by)
    for field in ("requests", "cold", "cpu_s", "template_s", "cost_usd"):
        assert sum(row[field] for row in rows) == sum(getattr(pool, field) for pool in pools)
    assert [row["cost_usd"] for row in rows] == sorted((row["cost_usd"] for row in rows), reverse=True)


def test_what_came_with_a_key_is_one_row_over_all_pools() -> None:
    used = [
        KeyUsage("aaaa2222", "ci", "default/shop/price@rv-1", 10, 1, 0.5, 0.25),
        KeyUsage("bbbb2222", "", "default/shop/price@rv-1", 1, 0, 0.5, 1.0),
        KeyUsage("aaaa2222", "ci", "default/tools/add@rv-4", 5, 0, 0.5, 1.75),
    ]
    rows = by_key(used)
    assert rows == [
        {"key": "aaaa2222", "name": "ci", "requests": 15, "errors": 1, "cpu_s": 1.0, "cost_usd": 2.0},
        {"key": "bbbb2222", "name": "", "requests": 1, "errors": 0, "cpu_s": 0.5, "cost_usd": 1.0},
    ]
    _, one, other, total, _, unit = key_listing(rows).splitlines()
    assert one.split() == ["2.0", "67%", "15", "1", "1.0s", "ci", "(aaaa2222)"]
    assert other.split() == ["1.0", "33%", "1", "0", "0.5s", "bbbb2222"]
    assert total.split() == ["3.0", "100%", "16", "1", "1.5s", "total"]
    assert unit == "COST is in US dollars, of what the requests themselves used."
