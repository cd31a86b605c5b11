"""Is a list of replicas as short as a person needs, and does nothing of it get lost?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swell.cli.ps import SHOWN_MAX, listing
from swell.wire.api import ReplicaRow


def replicas(count: int, workload: str = "default/shop/price", role: str = "serving") -> list[ReplicaRow]:
    return [
        ReplicaRow(f"{workload}-{role}-{n}", workload, "rv-0", role, "ready", "local", 7, 1.0, 1, 10.0, "wanted", ())
        for n in range(count)
    ]


def test_a_fan_out_is_a_few_rows_and_what_the_rest_adds_up_to() -> None:
    rows = [*replicas(100), *replicas(1, role="template"), *replicas(2, "default/shop/size")]
    _, *lines = listing(rows, everything=False).splitlines()
    assert len(lines) == SHOWN_MAX + 1 + 1 + 2
    assert lines[SHOWN_MAX].split() == [
        "…",
        "shop/price",
        "serving",
        "95",
        "950M",
        "95",
        "more",
        "(--all):",
        "95",
        "ready",
    ]
    assert "template" in lines[SHOWN_MAX + 1]
    assert len(listing(rows, everything=True).splitlines()) == len(rows) + 1


@given(st.dictionaries(st.tuples(st.sampled_from("ab"), st.sampled_from(["serving", "template"])), st.integers(1, 20)))
def test_each_replica_is_shown_or_counted(counts: dict[tuple[str, str], int]) -> None:
    rows = [row for (workload, role), count in counts.items() for row in replicas(count, f"default/{workload}/f", role)]
    if not rows:
        return
    _, *lines = listing(rows, everything=False).splitlines()
    shown = sum(not line.startswith("…") for line in lines)
    rest = sum(int(line.partition(" more (--all)")[0].split()[-1]) for line in lines if line.startswith("…"))
    assert shown + rest == len(rows)
    # A row that counts stands for more than one.
    assert all(" 1 more" not in line for line in lines)
