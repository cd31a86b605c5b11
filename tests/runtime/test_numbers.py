"""Is memory told by workload and role, for at most so many workloads apart?"""

from __future__ import annotations

from swell.model.metrics import OTHER_LABELS
from swell.runtime.runner.numbers import memory


def test_memory_is_added_up_by_workload_and_role() -> None:
    children = [
        ("n/a/f@rv-1", "serving", 1.5),
        ("n/a/f@rv-2", "serving", 2.0),
        ("n/a/f@rv-1", "template", 10.0),
        ("n/a/g@rv-1", "serving", 3.0),
        ("n/a/h@rv-1", "serving", 4.0),
    ]
    told = {sample.labels: sample.value / 2**20 for sample in memory(children, "local", 1)}
    assert told == {
        ("n", "a", "f", "serving", "local"): 3.5,
        ("n", "a", "f", "template", "local"): 10.0,
        (*OTHER_LABELS, "serving", "local"): 7.0,
    }
    assert len([*memory(children, "local", 10)]) == 4
