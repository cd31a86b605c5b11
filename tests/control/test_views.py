"""What is told of a deploy: which workloads it makes, changes, leaves and takes away."""

from __future__ import annotations

from swell.control.views import changes
from swell.model.workload import App, Scaling, Workload


def app(*workloads: Workload) -> App:
    return App("default", "a", workloads, ())


def workload(name: str, revision: str = "rv-1", most: int = 1) -> Workload:
    return Workload("default", "a", name, revision, Scaling(max_replicas=most))


def test_a_first_deploy_is_all_new() -> None:
    assert changes(None, app(workload("g"), workload("f"))) == [("f", "new"), ("g", "new")]


def test_a_later_one_tells_what_it_does_to_each() -> None:
    before = app(workload("code"), workload("gone"), workload("same"), workload("scale"))
    after = app(workload("same"), workload("code", "rv-2"), workload("scale", most=2), workload("more"))
    assert changes(before, after) == [
        ("code", "changed"),
        ("gone", "removed"),
        ("more", "new"),
        ("same", "unchanged"),
        ("scale", "changed"),
    ]
