"""Who gives way when templates hold too much: the least worth, loaded ones only, and nobody in vain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swell.decide.warm import evict, may_have_template, unforkable
from swell.model.policy import Policy
from swell.model.replica import Phase, Replica
from swell.model.resources import Needs
from swell.model.workload import Entry, Environment, Method, Revision, Workload

replicas = st.lists(
    st.tuples(st.sampled_from([Phase.STARTING, Phase.READY]), st.integers(1, 500), st.booleans(), st.integers(0, 9)),
    max_size=8,
)


@given(replicas, st.integers(0, 2000))
def test_enough_goes_and_the_least_worth_first(rows: list[tuple[Phase, int, bool, int]], excess_mib: int) -> None:
    templates = [Replica(f"r1-{i}", "p", "n", "template", row[0], 0.0) for i, row in enumerate(rows)]
    mib = {t.id: float(row[1]) for t, row in zip(templates, rows, strict=True)}
    worth = {t.id: row[2:] for t, row in zip(templates, rows, strict=True)}
    going = evict(templates, excess_mib, lambda t: mib[t.id], lambda t: worth[t.id])
    loaded = [t for t in templates if t.phase is Phase.READY]
    if going is None:
        assert sum(mib[t.id] for t in loaded) < excess_mib
        return
    assert sum(mib[t.id] for t in going) >= excess_mib
    assert all(t.phase is Phase.READY for t in going)
    for spared in going:
        assert sum(mib[t.id] for t in going if t is not spared) < excess_mib, "one more than needed"
    most = max(((worth[t.id], t.id) for t in going), default=None)
    less = [t for t in loaded if most is not None and (worth[t.id], t.id) < most]
    assert not going or sum(mib[t.id] for t in less) < excess_mib, "those worth less would have done"


def test_more_than_one_core_is_forked_only_where_its_author_asked_for_it() -> None:
    entry = Entry("m", "f", "function", (Method("f"),))
    workload = Workload("default", "a", "f", "rv-0")
    for cpu, snapshot, forked in ((1.0, False, True), (1.5, False, False), (8.0, True, True)):
        revision = Revision(Environment("python", "3.11"), "b", entry, needs=Needs(cpu=cpu), snapshot=snapshot)
        assert may_have_template(workload, revision, "", Policy()) is forked
        assert ("more than one core" in unforkable(revision, "")) is not forked
