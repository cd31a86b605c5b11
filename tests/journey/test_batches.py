"""Are single calls worked on together, and does each caller get what is its own?"""

from __future__ import annotations

import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import swell
from journey.callers import APPS, call, command, why
from private_swell import Answer, PrivateSwell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def batches(own_server: PrivateSwell) -> PrivateSwell:
    own_server.run("deploy", str(APPS / "batches.py"))
    return own_server


def in_turn(
    swell: PrivateSwell, target: str, *arguments: dict[str, Any], into: ThreadPoolExecutor
) -> list[Future[Answer]]:
    """Calls that are not over, each begun when the one before it had a slot."""
    calls = []
    for number, each in enumerate(arguments, 1):
        calls.append(into.submit(call, swell, target, each))
        wait_until("it has a slot", lambda number=number: sum(row["in_flight"] for row in swell.serving()) == number)
    return calls


@pytest.mark.shows("batched", "max_batch_size", "wait_ms")
def test_beside_one_that_runs_a_batch_waits_until_it_is_full(batches: PrivateSwell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(3) as clients:
        try:
            first, second = in_turn(batches, "batches/pairs", {"gate": str(gate)}, {"gate": ""}, into=clients)
            # There is room beside the first, and a minute to wait for another one.
            assert call(batches, "batches/pairs", {"gate": ""}).value == 2
            assert second.result(60).value == 2
            assert not first.done()
        finally:
            gate.touch()
        assert first.result(60).value == 1


def test_what_comes_meanwhile_is_worked_on_together_and_why_tells_so(batches: PrivateSwell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    arguments = [{"gate": str(gate)}, *({"gate": ""} for _ in range(3))]
    with ThreadPoolExecutor(4) as clients:
        try:
            calls = in_turn(batches, "batches/spread", *arguments, into=clients)
        finally:
            gate.touch()
        answers = [each.result(60) for each in calls]
    assert [answer.value[1] for answer in answers] == [1, 3, 3, 3]
    assert len({answer.value[0] for answer in answers}) == 1
    other = answers[2]
    times = dict(part.split(";dur=") for part in other.headers["server-timing"].split(", "))
    assert list(times) == ["held", "connect", "batch", "run", "send", "total"]
    told = why(batches, other.request)
    assert [step["what"] for step in told["steps"]] == ["held", "connect", "batch", "run", "send"]
    assert re.search(r"batched with 2 others, waited .* to begin", " ".join(told["reasons"]))
    # One line, as other phases have.
    assert "waited to be worked on together with others" in command(batches, "why", other.request).out


def test_from_python_each_gets_its_own_result_or_error(batches: PrivateSwell) -> None:
    double = swell.Cls.from_name("batches", "Model")().double
    assert list(double.map(range(40))) == [2 * value for value in range(40)]
    results = list(double.starmap([(n, n % 3 == 0) for n in range(12)], return_exceptions=True))
    assert [repr(result) for result in results] == [
        f"ValueError('not {n}')" if n % 3 == 0 else str(2 * n) for n in range(12)
    ]
    with pytest.raises(ValueError, match="not 7"):
        double.remote(7, fail=True)
    assert double.remote(values=7) == 14


def test_an_argument_of_one_is_converted_and_refused_as_one(batches: PrivateSwell) -> None:
    assert call(batches, "batches/Model.double", {"values": 21}).value == 42
    refused = call(batches, "batches/Model.double", {"values": [21]})
    assert (refused.status, refused.error["code"]) == (422, "bad_arguments")
    assert "double(values: int, fail: bool = None)" in refused.error["message"]


def test_a_function_that_gives_the_wrong_number_is_told_what_to_return(batches: PrivateSwell) -> None:
    reply = call(batches, "batches/broken", {"values": 1})
    assert (reply.status, reply.error["code"]) == (500, "bad_batch")
    assert "returned 0 results for 1 input: return a list with one result for each" in reply.error["message"]
    assert why(batches, reply.request)["error"] == "bad_batch"
    with pytest.raises(swell.exception.RemoteError, match="0 results for 1 input"):
        swell.Function.from_name("batches", "broken").remote(1)


def test_the_time_and_cpu_of_a_batch_are_shared(batches: PrivateSwell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    arguments = [{"gate": str(gate)}, *({"gate": ""} for _ in range(3))]
    with ThreadPoolExecutor(4) as clients:
        try:
            calls = in_turn(batches, "batches/spread", *arguments, into=clients)
        finally:
            gate.touch()
        answers = [each.result(60) for each in calls]
    cpus = [why(batches, answer.request)["cpu_us"] for answer in answers[1:]]
    assert max(cpus) - min(cpus) <= 1


def test_a_program_runs_its_batched_function_by_the_command_line_and_here(batches: PrivateSwell) -> None:
    said = command(batches, "run", str(APPS / "batches.py"))
    assert said.code == 0, said.err
    assert "doubled" in said.out
    said = command(batches, "run", f"{APPS / 'batches.py'}::Model.double", "--values", "4")
    assert (said.code, "8" in said.out.split()) == (0, True), said.err
