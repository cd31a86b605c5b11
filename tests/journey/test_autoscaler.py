"""Does `update_autoscaler` change how a deployed function or class is scaled, until the next deploy?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import swell
from private_swell import PrivateSwell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("own_server")]

PROGRAM = """
import swell

app = swell.App("scaled")

@app.function(max_containers=3)
def f() -> int:
    return 1

@app.cls(scaledown_window=600)
class Box:
    @swell.method()
    def open(self) -> int:
        return 1
"""
NAMES = ("min_containers", "max_containers", "buffer_containers", "scaledown_window")


def shows(callable: str) -> Any:
    def mark(test: Any) -> Any:
        for name in NAMES:
            test = pytest.mark.shows(callable, name)(test)
        return test

    return mark


def scaling(own: PrivateSwell, name: str) -> dict[str, float]:
    """As the app is listed with it."""
    (app,) = own.get("/api/apps")
    found: dict[str, float] = next(row["scaling"] for row in app["workloads"] if row["name"] == name)
    return found


def ready(own: PrivateSwell, name: str) -> int:
    return sum(one["workload"] == f"default/scaled/{name}" and one["phase"] == "ready" for one in own.serving())


@pytest.fixture
def file(own_swell: PrivateSwell, tmp_path: Path) -> str:
    path = tmp_path / "scaled.py"
    path.write_text(PROGRAM)
    own_swell.run("deploy", str(path))
    return str(path)


@shows("Function.update_autoscaler")
def test_of_a_function_until_the_next_deploy(own_swell: PrivateSwell, file: str) -> None:
    f = swell.Function.from_name("scaled", "f")
    declared = {"min_replicas": 0, "max_replicas": 3, "buffer_replicas": 0, "idle_s": 60.0}
    assert scaling(own_swell, "f") == declared
    f.update_autoscaler(min_containers=2)
    wait_until("two are there", lambda: ready(own_swell, "f") == 2, wait_s=60)
    assert scaling(own_swell, "f") == {**declared, "min_replicas": 2}
    with pytest.raises(swell.Error, match="min_containers=2 above max_containers=1: change both"):
        f.update_autoscaler(max_containers=1)
    f.update_autoscaler(min_containers=0, max_containers=1, buffer_containers=1, scaledown_window=1)
    changed = {"min_replicas": 0, "max_replicas": 1, "buffer_replicas": 1, "idle_s": 1.0}
    assert scaling(own_swell, "f") == changed
    wait_until("none is there", lambda: ready(own_swell, "f") == 0, wait_s=60)
    assert f.remote() == 1
    # It is no version of the app, and another control knows it.
    assert len(json.loads(own_swell.run("app", "history", "scaled", "--json"))) == 1
    own_swell.run("down")
    own_swell.run("up", "-d")
    assert scaling(own_swell, "f") == changed
    own_swell.run("deploy", file)
    assert scaling(own_swell, "f") == declared
    own_swell.run("app", "stop", "scaled")


@shows("Cls.update_autoscaler")
def test_of_a_class_and_of_its_objects(own_swell: PrivateSwell, file: str) -> None:
    cls = swell.Cls.from_name("scaled", "Box")
    cls.update_autoscaler(min_containers=1, max_containers=2, buffer_containers=1, scaledown_window=5)
    assert scaling(own_swell, "Box") == {"min_replicas": 1, "max_replicas": 2, "buffer_replicas": 1, "idle_s": 5.0}
    wait_until("one is there", lambda: ready(own_swell, "Box") >= 1, wait_s=60)
    cls().update_autoscaler(min_containers=0)
    assert scaling(own_swell, "Box")["min_replicas"] == 0
    with pytest.raises(swell.Error, match=r"Box\(\)\.update_autoscaler\(…\) is for all methods"):
        cls().open.update_autoscaler(min_containers=1)
    own_swell.run("app", "stop", "scaled")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give what is to change"),
        ({"min_containers": -1}, "min_containers=-1"),
        ({"min_containers": 3, "max_containers": 2}, "it is above max_containers=2"),
        ({"max_containers": 0}, "at least 1"),
        ({"scaledown_window": 0}, "above 0"),
    ],
)
def test_what_cannot_be_is_refused_before_it_is_sent(given: dict[str, Any], said: str) -> None:
    with pytest.raises(swell.Error, match=said) as refused:
        swell.Function.from_name("nowhere", "f").update_autoscaler(**given)
    assert refused.value.code == "bad_argument"


def test_what_is_not_there_is_named(own_swell: PrivateSwell, file: str) -> None:
    with pytest.raises(swell.Error, match=r"has no function 'g'\. Choose from: Box, f"):
        swell.Function.from_name("scaled", "g").update_autoscaler(min_containers=1)
    own_swell.run("app", "stop", "scaled")
