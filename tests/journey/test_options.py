"""Do a function and a class that are had with other options have replicas that are so? On a real platform."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import swell
from journey.zoo import at_work, deploy, workloads
from private_swell import PrivateSwell, private_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("own_server")]


@pytest.fixture(scope="module")
def own_swell() -> Iterator[PrivateSwell]:
    """On which nothing is in use for longer than it is needed, and any number of variants may be."""
    with private_swell(template_idle_s=1) as made:
        yield made


@pytest.fixture(scope="module")
def zoo(own_swell: PrivateSwell, tmp_path_factory: pytest.TempPathFactory) -> None:
    deploy(own_swell, tmp_path_factory.mktemp("zoo"), scaledown=1)


def of_both(method: str, *names: str) -> Any:
    """These arguments, of a function's and of a class's."""

    def mark(test: Any) -> Any:
        for owner in ("Function", "Cls"):
            test = pytest.mark.shows(f"{owner}.{method}", *names)(test)
        return test

    return mark


@pytest.fixture(params=["Function", "Cls"])
def taken(request: pytest.FixtureRequest, own_swell: PrivateSwell, zoo: None) -> Taken:
    """A function or a class, once nothing runs of what was had with options before."""
    wait_until("nothing runs", lambda: not workloads(own_swell))
    return Taken(str(request.param))


class Taken:
    """A function, or a class with a method of the same, to have with options."""

    def __init__(self, kind: str) -> None:
        self.is_class = kind == "Cls"

    def of(self, name: str) -> tuple[Any, Any]:
        """(what takes options, how that is called)."""
        if not self.is_class:
            return swell.Function.from_name("zoo", name), lambda function: function.remote
        if name == "work":
            return swell.Cls.from_name("zoo", "Tool"), lambda cls: cls().work.remote
        return swell.Cls.from_name("zoo", "Model"), lambda cls: getattr(cls(name="x"), name).remote


@of_both("with_options", "env", "secrets")
def test_options_reach_the_replica(taken: Taken) -> None:
    found, call = taken.of("variable")
    secret = swell.Secret.from_dict({"HIDDEN": "s"})
    varied = found.with_options(env={"A": "1", "B": "1"}).with_options(env={"B": "2"}, secrets=[secret])
    assert [call(varied)(name) for name in ("A", "B", "HIDDEN")] == ["1", "2", "s"]
    assert call(found)("A") is None


@of_both("with_options", "cpu", "memory", "gpu")
def test_options_that_fit_nowhere_are_refused(taken: Taken) -> None:
    found, call = taken.of("variable")
    for given, words in (
        ({"cpu": 10_000}, "it asks for 10000 cores"),
        ({"memory": 1_000_000_000}, "it asks for 1000000000 MiB of memory"),
        ({"gpu": ["H100:2", "L4"]}, "it asks for 2 GPUs of kind H100 or 1 of kind L4"),
    ):
        with pytest.raises(swell.Error, match=words):
            call(found.with_options(**given))("A")
    assert call(found.with_options(cpu=(0.1, 0.2), memory=(64, 200)))("A") is None


@of_both("with_options", "retries", "timeout")
def test_tries_and_time(taken: Taken, tmp_path: Path) -> None:
    found, call = taken.of("fails")
    retries = swell.Retries(max_retries=2, initial_delay=0.0)
    assert call(found.with_options(retries=retries))(str(tmp_path / "tries")) == 3
    found, call = taken.of("wait" if taken.is_class else "variable")
    arguments = (60.0,) if taken.is_class else ("A", 60.0)
    with pytest.raises(swell.exception.FunctionTimeoutError):
        call(found.with_options(timeout=1))(*arguments)


@of_both("with_options", "timeout_max")
def test_time_that_progress_gives(taken: Taken) -> None:
    found, call = taken.of("goes_on")
    assert call(found.with_options(timeout=2, timeout_max=60))(3.0) == "went on"
    with pytest.raises(swell.Error, match="timeout_max=1 is below timeout=2, which a call has without any progress"):
        call(found.with_options(timeout=2, timeout_max=1))(0.0)


@of_both("with_options", "max_containers", "buffer_containers", "scaledown_window")
def test_sizes(own_swell: PrivateSwell, taken: Taken) -> None:
    found, call = taken.of("variable")
    before = {row["name"] for app in own_swell.get("/api/apps") for row in app["workloads"]}
    call(found.with_options(max_containers=7, buffer_containers=1, scaledown_window=3))("A")
    (app,) = json.loads(own_swell.run("app", "list", "--json"))
    (row,) = [row for row in app["workloads"] if row["name"] not in before and "~" in row["name"]]
    expected = {"min_replicas": 0, "max_replicas": 7, "buffer_replicas": 1, "idle_s": 3.0}
    assert row["scaling"] == expected
    assert "max_containers=7, buffer_containers=1, scaledown_window=3)" in row["written"]
    assert f"zoo/{row['written']}" in own_swell.run("limits")


@of_both("with_concurrency", "max_inputs", "target_inputs")
def test_inputs_at_a_time(own_swell: PrivateSwell, taken: Taken, tmp_path: Path) -> None:
    found, call = taken.of("work")
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(4) as callers:
        try:
            together = call(found.with_concurrency(max_inputs=2).with_options(max_containers=1))
            first = [callers.submit(together, str(gate)) for _ in range(2)]
            wait_until("both are at work in one", lambda: at_work(own_swell) == [2], wait_s=60)
        finally:
            gate.touch()
        assert len({each.result() for each in first}) == 1
        gate.unlink()
        wait_until("nothing runs", lambda: not workloads(own_swell))
        try:
            apart = call(found.with_concurrency(max_inputs=2, target_inputs=1))
            second = [callers.submit(apart, str(gate)) for _ in range(2)]
            wait_until("there is one for each", lambda: len(at_work(own_swell)) == 2, wait_s=60)
        finally:
            gate.touch()
        assert all(each.result() for each in second)


@of_both("with_batching", "max_batch_size", "wait_ms")
def test_batches(own_swell: PrivateSwell, taken: Taken, tmp_path: Path) -> None:
    found, call = taken.of("work")
    gate, open_gate = tmp_path / "gate", tmp_path / "open"
    open_gate.touch()
    beside = found.with_concurrency(max_inputs=8).with_options(max_containers=1)
    pairs = call(beside.with_batching(max_batch_size=2, wait_ms=60_000))
    with ThreadPoolExecutor(3) as callers:
        try:
            first = callers.submit(pairs, str(gate))
            wait_until("it is at work", lambda: at_work(own_swell) == [1], wait_s=60)
            # There is room beside the first, and a minute to wait for another one.
            second = [callers.submit(pairs, str(open_gate)) for _ in range(2)]
            assert [each.result(60) for each in second] == [2, 2]
            assert not first.done()
        finally:
            gate.touch()
        assert first.result(60) == 1


def test_a_set_of_parameters_may_be_kept_ready(own_swell: PrivateSwell, zoo: None) -> None:
    wait_until("nothing runs", lambda: not workloads(own_swell))
    kept = swell.Cls.from_name("zoo", "Model")(name="kept")
    kept.update_autoscaler(min_containers=1)
    wait_until("it is ready", lambda: at_work(own_swell) == [0], wait_s=60)
    assert kept.told.remote()[1] == "kept/3/False/"
    kept.update_autoscaler(min_containers=0)
    wait_until("it is at zero", lambda: not workloads(own_swell), wait_s=60)
