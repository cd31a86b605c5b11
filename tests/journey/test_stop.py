"""Can a server be stopped, or kept from starting, in any way that is not clean? Only what shows from outside."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from pathlib import Path

import pytest
from census import left_over, supervisor
from shell import ended, launch, refusal
from traffic import ONCE, SINGLE, STEADY, WAKING, OneCall, traffic

from private_swell import PrivateSwell, wait_until
from swell.wire.identity import identify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CALLERS = [STEADY] * 44 + [SINGLE] * 12 + [ONCE] * 2 + [WAKING] * 4
IN_FLIGHT_MIN = 50
WAIT_S = 60.0
DRAIN_S = 2.0
LONG_S = 120.0
"""Longer than a stopping gateway waits."""


# -- stopping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["down", "interrupt"])
def test_a_stop_under_load_answers_or_refuses_all_in_flight(
    idle: PrivateSwell, program: str, tmp_path: Path, way: str
) -> None:
    server = None
    idle.environ["SWELL_DRAIN_S"] = str(DRAIN_S)
    if way == "down":
        idle.run("up", "-d")
    else:
        server = launch(idle, "up")
        assert server.stdout is not None
        assert "Swell is up" in server.stdout.readline()
    idle.run("deploy", program)
    book = tmp_path / "book"
    long = OneCall(idle, LONG_S, tmp_path / "long")
    with traffic(idle.port, book, random.Random(0), CALLERS) as calls:
        wait_until("it runs", lambda: sum(one.answered for one in calls.outcomes) > IN_FLIGHT_MIN, wait_s=WAIT_S)
        wait_until("many in flight", lambda: len(calls.in_flight) >= IN_FLIGHT_MIN, wait_s=WAIT_S, pause_s=0.001)
        told_at = time.monotonic()
        if server is None:
            idle.run("down")
        else:
            os.killpg(server.pid, signal.SIGINT)
            code, said = ended(server)
            assert (code, "Traceback" in said) == (0, False)
    long.join()
    assert "answered 503" in long.failure
    assert "stopping" in long.failure
    assert "was cut off" in long.failure
    before = [one for one in calls.outcomes if one.begun < told_at]
    assert [str(one) for one in before if not one.answered] == []
    after = [one for one in calls.outcomes if one.begun >= told_at]
    assert [str(one) for one in after if not (one.answered or one.refused or one.broken)] == []
    assert left_over(idle) == []
    assert "did not end within its grace" not in idle.log(10_000)


@pytest.mark.parametrize("between_s", [0.0, 0.1])
def test_a_stop_while_the_runner_is_away_leaves_nothing(idle: PrivateSwell, between_s: float) -> None:
    idle.run("up", "--detach")
    server = supervisor(idle)
    os.kill(idle.server("runner"), signal.SIGKILL)
    time.sleep(between_s)
    os.kill(server, signal.SIGTERM)
    wait_until("it has ended", lambda: identify(server) is None, wait_s=WAIT_S)
    assert left_over(idle) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_cuts_what_is_in_flight(
    idle: PrivateSwell, program: str, tmp_path: Path, number: signal.Signals
) -> None:
    idle.environ["SWELL_DRAIN_S"] = str(LONG_S)
    server = launch(idle, "up")
    assert server.stdout is not None
    assert "Swell is up" in server.stdout.readline()
    idle.run("deploy", program)
    call = OneCall(idle, LONG_S, tmp_path / "book")
    os.kill(server.pid, number)
    wait_until("it is told", lambda: "1 request runs, at most 120 s" in idle.log(10_000))
    # Nobody waits for a server that takes no more.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", idle.port), timeout=WAIT_S)
    os.kill(server.pid, number)
    code, said = ended(server)
    assert (code, "Traceback" in said) == (0, False)
    call.join()
    assert "was cut off" in call.failure
    assert left_over(idle) == []


def test_two_stops_at_once_do_not_hurry(idle: PrivateSwell, program: str, tmp_path: Path) -> None:
    idle.run("up", "-d")
    idle.run("deploy", program)
    pid = supervisor(idle)
    call = OneCall(idle, 3.0, tmp_path / "book")
    stops = [launch(idle, "down") for _ in range(2)]
    for stop in stops:
        code, said = ended(stop)
        assert code == 0, said
        assert f"The server (pid {pid}) is stopped." in said
    call.join()
    assert call.answer is not None, call.failure
    assert left_over(idle) == []


def test_two_starts_at_once_make_one_server(idle: PrivateSwell) -> None:
    codes = sorted(ended(start) for start in [launch(idle, "up", "-d") for _ in range(3)])
    assert [code for code, _ in codes] == [0, 1, 1]
    pid = supervisor(idle)
    assert all(f"A server already runs on {idle.home}: pid {pid}" in said for _, said in codes[1:])
    assert len(idle.processes()) == 4
    idle.run("down")
    assert left_over(idle) == []


# -- not starting ------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["up"], ["up", "-d"]])
def test_a_port_in_use(idle: PrivateSwell, words: list[str]) -> None:
    with socket.create_server(("127.0.0.1", idle.port)):
        said = refusal(idle, *words)
        assert f"Port {idle.port} on 127.0.0.1 is in use" in said
        assert f"(pid {os.getpid()})" in said
    assert left_over(idle) == []
    idle.run("up", "-d")


@pytest.mark.parametrize("words", [["up"], ["up", "-d"], ["run", "PROGRAM"]])
@pytest.mark.parametrize("place", ["file", "under a file", "/proc/swell", "long"])
def test_a_home_that_cannot_be(idle: PrivateSwell, tmp_path: Path, program: str, words: list[str], place: str) -> None:
    (tmp_path / "file").write_text("")
    homes = {"file": tmp_path / "file", "under a file": tmp_path / "file" / "home", "long": tmp_path / ("h" * 120)}
    idle.environ["SWELL_HOME"] = home = str(homes.get(place, Path(place)))
    said = refusal(idle, *(program + "::single" if word == "PROGRAM" else word for word in words), *flags(words))
    assert home in said
    assert "SWELL_HOME" in said
    assert idle.processes() == []


def flags(words: list[str]) -> list[str]:
    return ["--id", "x", "--pause-s", "0", "--book", "/dev/null"] if words[0] == "run" else []
