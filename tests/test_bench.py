"""Do the benchmarks measure what docs/benchmarks.md says, where nobody would notice otherwise?"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench import door, load
from bench.one_process import call_in_turn, server
from bench.row import row, table
from bench.servers import syncs
from private_swell import wait_until

REQUEST_RATE = 500.0


class Answering(asyncio.Protocol):
    """A server that gives the answer it was told to, or none, to each read."""

    def __init__(self, answer: Callable[[], bytes | None]) -> None:
        self.answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, _data: bytes) -> None:
        answer = self.answer()
        if answer is None:
            self.transport.close()
        elif answer:
            self.transport.write(answer)  # type: ignore[attr-defined]


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


def measured(answer: Callable[[], bytes | None], seconds: float = 0.2) -> load.Load:
    async def scenario() -> load.Load:
        listening = await asyncio.get_running_loop().create_server(lambda: Answering(answer), "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        seen = await load.measure(port, "/", b"{}", REQUEST_RATE, seconds, connections=4)
        listening.close()
        return seen

    return asyncio.run(scenario())


def test_each_request_counts_from_when_it_was_due() -> None:
    driver = load.Driver(b"", rate=10.0, seconds=1.0)
    driver.take_due(begun=100.0, now=100.35)
    assert list(driver.waiting) == pytest.approx([100.0, 100.1, 100.2, 100.3])
    assert driver.lateness == pytest.approx([0.35, 0.25, 0.15, 0.05])
    driver.take_due(begun=100.0, now=300.0)
    assert driver.sent == 10


def test_all_that_was_due_is_sent_and_answered() -> None:
    seen = measured(lambda: OK)
    assert (seen.sent, seen.failed) == (100, 0)
    assert 0 < seen.p50_ms <= seen.p99_ms <= seen.max_ms


@pytest.mark.parametrize("answer", [b"", REFUSED, None], ids=["lost", "refused", "cut off"])
def test_what_is_not_answered_has_failed_and_is_in_the_percentiles(
    monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    monkeypatch.setattr(load, "WAIT_S", 0.1)
    answers = iter([OK] * 50)
    seen = measured(lambda: next(answers, answer))
    assert (seen.sent, seen.failed) == (100, 50)
    assert seen.p99_ms >= 100.0


def test_failures_take_until_the_end() -> None:
    seen = load.told([0.001] * 98, [2.0, 2.0], [0.0005], rate=100.0)
    assert (seen.sent, seen.failed, seen.p50_ms) == (100, 2, 1.0)
    assert seen.p99_ms == pytest.approx(2000.0)


@pytest.mark.parametrize("pools", [1, 6])
def test_a_start_goes_from_a_request_to_its_answer(pools: int) -> None:
    calls = 12

    async def scenario() -> None:
        async with server(pools) as here:
            await call_in_turn(here, calls, callers=4)
            # That each was answered is checked by its caller.
            assert here.starts == calls

    asyncio.run(scenario())


def test_what_the_door_costs_is_told_of_neighbours() -> None:
    """A machine that slows down from round to round changes no difference."""
    slower = (0.0, 10.0, 50.0)
    ways = {door.UNCOUNTED: 20.0, door.OPEN: 21.0, door.KEY: 23.0, door.BOUNDED: 28.0}
    rows = door.rows_of({name: [us + more for more in slower] for name, us in ways.items()})
    assert [one.median for one in rows] == [31.0, 33.0, 38.0, 30.0, 1.0, 2.0, 5.0, 8.0]
    assert [(one.goal, one.met) for one in rows[-2:]] == [("", None), ("≤ 6", False)]


def test_a_figure_is_a_median_with_its_spread_and_says_whether_its_goal_was_met() -> None:
    wakes = row("wake", "from a template", "ms", [30.0, 10.0, 20.0, 50.0, 40.0], "≤ 29", note="all answered")
    starts = row("churn", "starts", "1/s", [1500.0], "≥ 1000")
    assert (wakes.median, wakes.low, wakes.high, wakes.repeats, wakes.met) == (30.0, 20.0, 40.0, 5, False)
    assert starts.met
    assert [" ".join(line.split()) for line in table([wakes, starts]).splitlines() if line] == [
        "measured median 25–75 % n goal note",
        "wake from a template 30 ms 20–40 5 ≤ 29 ✗ all answered",
        "churn starts 1,500 1/s 1 ≥ 1000 ✓",
    ]


@pytest.mark.slow
def test_one_table_is_printed_and_written_beside_it_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the part that takes least, measured for real."""
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "OUT", tmp_path / "out")
    monkeypatch.setattr("sys.argv", ["bench", "--quick", "--parts", "serve"])
    assert bench.main() == 0
    shown = capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "bench.json").read_bytes())
    assert (written["quick"], written["failed"]) == (True, {})
    (told,) = written["rows"]
    assert (told["part"], told["unit"], told["repeats"]) == ("serve", "s", 3)
    assert 0 < told["low"] <= told["median"] <= told["high"]
    assert any(line.startswith("serve ") and told["what"] in line for line in shown.splitlines())
    assert "written to out/bench.json" in shown


SYNCS = """
import os, sys, threading
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
both = lambda: (os.fsync(file), os.fdatasync(file), os.write(file, b"x"))
for _ in sys.stdin:
    thread = threading.Thread(target=both)
    thread.start()
    thread.join()
    if os.fork() == 0:
        both()
        os._exit(0)
    os.wait()
    print("done", flush=True)
"""


@pytest.mark.slow
def test_each_sync_of_a_process_and_of_what_came_of_it_is_counted(tmp_path: Path) -> None:
    words = [sys.executable, "-c", SYNCS, str(tmp_path / "file")]
    with (
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
        syncs(process.pid) as count,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        for rounds in (1, 2):
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
            wait_until("all are counted", lambda at_least=4 * rounds: count() >= at_least)
            assert count() == 4 * rounds
