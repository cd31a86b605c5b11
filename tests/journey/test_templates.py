"""Are replicas forked from a loaded template, do they share what it loaded, and is every answer the same without?"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from journey.callers import APPS, call, command, why
from private_swell import Answer, PrivateSwell, private_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MODEL_MIB = 50


@pytest.fixture(scope="module")
def snapped(own_swell: PrivateSwell) -> PrivateSwell:
    own_swell.run("deploy", str(APPS / "snapped.py"))
    assert call(own_swell, "snapped/Model.answer", {"index": 1}).value == 1.0
    return own_swell


@pytest.fixture(scope="module")
def fresh() -> Iterator[PrivateSwell]:
    """The same platform without templates."""
    with private_swell({**os.environ, "SWELL_TEMPLATES": "0"}) as swell:
        swell.run("deploy", str(APPS / "snapped.py"))
        yield swell


def templates(swell: PrivateSwell, workload: str) -> list[int]:
    """Pids of a workload's ready templates."""
    return [
        one["pid"]
        for one in swell.replicas()
        if one["role"] == "template" and one["phase"] == "ready" and one["workload"].endswith(f"/{workload}")
    ]


def wake(swell: PrivateSwell) -> Answer:
    """A call while only the template is there."""
    wait_until("it is parked", lambda: not swell.serving(), wait_s=60)
    reply = call(swell, "snapped/Model.about")
    assert (reply.status, reply.headers["swell-cold"]) == (200, "1")
    return reply


@pytest.mark.shows("App.cls", "enable_memory_snapshot")
@pytest.mark.shows("enter", "snap")
def test_the_second_wake_is_a_fork(snapped: PrivateSwell) -> None:
    wait_until("a template", lambda: templates(snapped, "Model"), wait_s=60)
    reply = wake(snapped)
    about = reply.value
    assert [about["parent"]] == [about["loaded_in"]] == templates(snapped, "Model")
    assert about["connected_in"] == about["pid"] != about["parent"]
    record = why(snapped, reply.request)
    assert any("forked from template" in reason for reason in record["reasons"])
    assert any(step["what"].strip() == "fork" for step in record["steps"])
    again = wake(snapped).value
    assert again["pid"] != about["pid"]
    assert again["parent"] == about["parent"]


def test_what_the_template_loaded_is_shared(snapped: PrivateSwell) -> None:
    """After reading all of it, a fork's own memory is a fraction of the model."""
    about = wake(snapped).value
    assert about["total"] == sum(range(MODEL_MIB * 1024 * 1024 // 8))
    assert call(snapped, "snapped/Model.about").value["private_mib"] < MODEL_MIB // 2
    rollup = {}
    with open(f"/proc/{about['pid']}/smaps_rollup") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if value.strip().endswith("kB"):
                rollup[name] = int(value.split()[0]) // 1024
    assert rollup["Rss"] > MODEL_MIB
    assert sum(mib for name, mib in rollup.items() if name.startswith("Private_")) < MODEL_MIB // 2


def test_forks_draw_numbers_of_their_own(snapped: PrivateSwell) -> None:
    drawn = set()
    for _ in range(3):
        wait_until("it is parked", lambda: not snapped.serving(), wait_s=60)
        drawn.add(call(snapped, "snapped/Model.draw").value)
    assert len(drawn) == 3


def test_answers_are_the_same_without_templates(snapped: PrivateSwell, fresh: PrivateSwell) -> None:
    for index in (0, 1, 1000, MODEL_MIB * 1024 * 1024 // 8 - 1):
        arguments = {"index": index}
        with_one, without = (call(swell, "snapped/Model.answer", arguments).value for swell in (snapped, fresh))
        assert with_one == without == float(index)
    about = call(fresh, "snapped/Model.about").value
    assert about["pid"] == about["loaded_in"] == about["connected_in"]
    assert [one for one in fresh.replicas() if one["role"] == "template"] == []


def test_a_module_whose_forks_hang_is_served_fresh(own_swell: PrivateSwell) -> None:
    """No caller has to know: the fork that hangs is found out, and a fresh process answers instead."""
    own_swell.run("deploy", str(APPS / "unforkable.py"))
    with ThreadPoolExecutor(3) as clients:
        replies = list(clients.map(lambda x: call(own_swell, "unforkable/answer", {"x": x}), range(3)))
    assert [(one.status, one.value) for one in replies] == [(200, 1), (200, 2), (200, 3)]
    record = why(own_swell, replies[0].request)
    rows = [row for row in json.loads(command(own_swell, "ps", "--json").out) if "unforkable" in row["workload"]]
    for told in (*record["reasons"][1:2], *(row["why"] for row in rows)):
        assert "a fresh process, since" in told
        assert "its first fork did not come to life within" in told
    assert [row["role"] for row in rows] == ["serving"]
    assert call(own_swell, "unforkable/answer", {"x": 41}).value == 42
