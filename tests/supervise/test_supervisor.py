"""Do processes start in order, come back when they die, and stop in reverse with nothing left?"""

from __future__ import annotations

import math
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from theatre import Stage, until

from swell.supervise.child import Child, Process
from swell.supervise.lock import holder
from swell.supervise.supervisor import IN_ORDER, Budget, Post
from swell.wire.identity import identify

pytestmark = pytest.mark.slow

Stages = Callable[..., Stage]


def gone(pids: list[int]) -> bool:
    return all(identify(pid) is None for pid in pids)


def check_nothing_left(stage: Stage) -> None:
    """No process, socket, port file, or name in the lock."""
    assert gone(stage.everyone())
    assert holder(stage.home) is None
    assert stage.home.lock.read_text() == ""
    assert [path.name for path in stage.home.run.iterdir()] == []


def test_starts_in_order_and_stops_in_reverse(stage: Stages) -> None:
    server = stage()
    url = server.up()
    names = [line.split()[0] for line in server.notes]
    assert names == ["control", "runner", "gateway"]
    found = holder(server.home)
    assert found is not None
    assert (found.pid, found.state, found.url) == (server.process.pid, "ready", url)
    assert server.home.server_url() == url
    assert stat.S_IMODE(server.home.run.stat().st_mode) == 0o700
    code, _ = server.end(signal.SIGTERM)
    assert code == 0
    assert [line.split()[0] for line in server.notes if line.endswith("down")] == ["gateway", "runner", "control"]
    check_nothing_left(server)


def test_an_interrupt_at_the_terminal_reaches_only_the_supervisor(stage: Stages) -> None:
    server = stage()
    server.up()
    sessions = {os.getsid(pid) for pid in server.everyone()}
    assert len(sessions) == 3
    assert os.getsid(server.process.pid) not in sessions
    code, _ = server.end(signal.SIGINT)
    assert code == 0
    assert not [line for line in server.notes if line.endswith("interrupted")]
    check_nothing_left(server)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["control", "runner", "gateway"])
def test_a_killed_child_is_started_again(stage: Stages, name: str) -> None:
    server = stage()
    server.up()
    os.kill(server.pids(name)[0], signal.SIGKILL)
    until(lambda: len(server.pids(name)) == 2)
    others = [len(server.pids(other)) for other in ("control", "runner", "gateway") if other != name]
    assert others == [1, 1]
    code, said = server.end(signal.SIGTERM)
    assert code == 0
    assert f"the {name} ended (killed by SIGKILL); starting it again" in said
    check_nothing_left(server)


def test_listeners_outlive_the_processes_behind_them(stage: Stages) -> None:
    server = stage(gateway=["ends"])
    host, _, port = server.up().removeprefix("http://").partition(":")
    until(lambda: len(server.pids("gateway")) == 2)
    for _ in range(20):
        socket.create_connection((host, int(port)), timeout=60).close()
    for path in (server.home.control_socket, server.home.api_socket):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    server.end(signal.SIGTERM)
    check_nothing_left(server)


def test_a_child_that_keeps_ending_stops_everything(stage: Stages) -> None:
    server = stage(settings={"restarts_max": 2, "restarts_within_s": 30.0}, gateway=["talks", "ends"])
    server.up()
    code, said = server.end()
    assert code == 1
    assert "The gateway ended 3 times within 30 s (exit code 3)" in said
    assert "ERROR a word" in said
    assert len(server.pids("gateway")) == 3
    check_nothing_left(server)


def test_a_child_that_ends_to_begin_anew_may_do_so_however_often(stage: Stages) -> None:
    """And what keeps it from being ready then is no first start's."""
    server = stage(settings={"restarts_max": 1, "restarts_within_s": 600.0}, control=["begins anew"])
    server.up()
    until(lambda: len(server.pids("control")) == 5)
    os.kill(server.pids("control")[-1], signal.SIGKILL)
    until(lambda: len(server.pids("control")) == 6)
    server.end(signal.SIGTERM)
    check_nothing_left(server)


def test_a_child_that_does_not_come_up_is_shown_with_its_last_words(stage: Stages) -> None:
    server = stage(runner=["dies"])
    code, said = server.end()
    assert code == 1
    assert "The runner did not come up (exit code 1)" in said
    assert "Its last lines:\n    runner cannot go on" in said
    assert server.pids("gateway") == []
    check_nothing_left(server)


def test_a_child_that_says_why_it_does_not_come_up_is_quoted(stage: Stages) -> None:
    server = stage(control=["refuses"])
    code, said = server.end()
    assert code == 1
    (line,) = [line for line in said.splitlines() if "did not come up" in line]
    assert line.endswith("The control did not come up (exit code 1). prices.toml cannot be used. Mend it.")
    assert "last lines" not in said
    check_nothing_left(server)


def test_a_child_that_waits_at_the_first_start_is_given_up_in_its_words(stage: Stages) -> None:
    server = stage(control=["lacks"])
    code, said = server.end()
    assert code == 1
    assert "The control did not come up. There is no room." in said
    assert "the control waits" not in said
    assert server.pids("runner") == []
    check_nothing_left(server)


def test_all_else_goes_on_while_a_child_that_was_there_waits(stage: Stages, room: Path) -> None:
    room.touch()
    server = stage(control=["lacks"])
    server.up()
    room.unlink()
    for life in (2, 3):
        os.kill(server.pids("control")[-1], signal.SIGKILL)
        server.hear("the control waits: There is no room.")
        assert [len(server.pids(name)) for name in ("control", "runner", "gateway")] == [life, 1, 1]
    room.touch()
    server.hear("the control goes on")
    code, said = server.end(signal.SIGTERM)
    assert (code, "waits" in said) == (0, False)
    check_nothing_left(server)


def test_a_child_that_waits_is_not_late() -> None:
    code = "import os, sys, time; os.write(int(sys.argv[2]), b'There is no room.\\n'); time.sleep(600)"
    post = Post(Child("control", [sys.executable, "-c", code]), Budget(5, 60.0))
    alive, other = os.pipe()
    post.process = process = Process(post.child, alive)
    try:
        assert post.due == process.ready_by
        until(lambda: process.read_ready() and process.waits_for)
        assert (process.waits_for, process.ready, post.due) == ("There is no room.", False, math.inf)
    finally:
        process.signal(signal.SIGKILL)
        os.waitpid(process.pid, 0)
        process.ended(-signal.SIGKILL)
        process.close()
        os.close(alive)
        os.close(other)


def test_a_child_that_waits_is_stopped(stage: Stages, room: Path) -> None:
    room.touch()
    server = stage(control=["lacks"])
    server.up()
    room.unlink()
    os.kill(server.pids("control")[0], signal.SIGKILL)
    server.hear("the control waits: There is no room.")
    code, said = server.end(signal.SIGTERM)
    assert (code, "killed" in said) == (0, False)
    check_nothing_left(server)


def test_one_that_says_that_it_waits_while_all_is_stopped_is_stopped_like_the_others(stage: Stages) -> None:
    server = stage(control=["silent", "waits"])
    until(lambda: server.pids("control"))
    code, said = server.end(signal.SIGTERM, signal.SIGINT)
    assert (code, "did not come up" in said) == (0, False)
    check_nothing_left(server)


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such signals")
def test_one_that_a_signal_without_a_name_ended_is_started_again(stage: Stages) -> None:
    server = stage()
    server.up()
    os.kill(server.pids("runner")[0], 40)
    until(lambda: len(server.pids("runner")) == 2)
    code, said = server.end(signal.SIGTERM)
    assert (code, "the runner ended (killed by signal 40)" in said) == (0, True)
    check_nothing_left(server)


def test_a_stop_while_starting_starts_nothing_more(stage: Stages) -> None:
    server = stage(runner=["silent"])
    until(lambda: server.pids("runner"))
    code, _ = server.end(signal.SIGTERM)
    assert code == 0
    assert server.pids("gateway") == []
    check_nothing_left(server)


@pytest.mark.slow
def test_a_second_signal_hurries(stage: Stages) -> None:
    server = stage(gateway=["stubborn"], runner=["stubborn"])
    server.up()
    code, said = server.end(signal.SIGTERM, signal.SIGINT)
    assert code == 0
    assert "the gateway did not end within its grace; it is killed" in said
    check_nothing_left(server)


def listener_of(pid: int) -> str:
    """The socket that a gateway was given, as the kernel names it."""
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return os.readlink(f"/proc/{pid}/fd/{words[words.index('--listener-fd') + 1]}")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the gateways share one socket, and /proc is missing")
def test_several_gateways_each_have_a_socket_which_outlives_them(stage: Stages) -> None:
    names = ("gateway", "gateway-1", "gateway-2")
    server = stage(settings={"gateways": 3})
    port = int(server.up().rpartition(":")[2])
    before = [listener_of(server.pids(name)[0]) for name in names]
    assert len(set(before)) == 3
    os.kill(server.pids("gateway-1")[0], signal.SIGKILL)
    # While there is none, what comes to it waits: the kernel goes on giving it its part.
    callers = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(32)]
    until(lambda: len(server.pids("gateway-1")) == 2)
    assert [listener_of(server.pids(name)[-1]) for name in names] == before
    assert [len(server.pids(name)) for name in names] == [1, 2, 1]
    for caller in callers:
        caller.close()
    code, said = server.end(signal.SIGTERM)
    assert code == 0
    assert "the gateway-1 ended (killed by SIGKILL)" in said
    check_nothing_left(server)


def test_several_gateways_end_at_the_same_time_and_before_what_they_need(stage: Stages) -> None:
    server = stage(settings={"gateways": 2}, **{"gateway-1": ["waits"]})
    server.up()
    server.process.send_signal(signal.SIGTERM)
    until(lambda: "gateway down" in server.notes)
    assert "gateway-1 down" not in server.notes
    assert "runner down" not in server.notes
    code, said = server.end(signal.SIGTERM)
    assert code == 0
    assert "killed" not in said
    assert server.notes.index("gateway-1 down") < server.notes.index("runner down")
    check_nothing_left(server)


def test_a_new_server_ends_all_gateways_that_a_killed_one_left(stage: Stages) -> None:
    first = stage(settings={"gateways": 3})
    first.up()
    os.kill(first.pids("gateway-2")[0], signal.SIGSTOP)
    first.process.kill()
    first.process.wait()
    second = stage()
    second.up()
    until(lambda: gone(first.pids("gateway-2")[:1]))
    assert "gateway-2" in second.end(signal.SIGTERM)[1]


def test_no_signal_disturbs_what_is_cleared_away_at_the_end(stage: Stages) -> None:
    server = stage(supervisor=["disturbed"])
    server.up()
    code, said = server.end(signal.SIGINT)
    assert (code, said) == (0, "")
    check_nothing_left(server)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_an_end_waits_for_is_told_and_cut_by_the_same_signal_again(stage: Stages, number: signal.Signals) -> None:
    server = stage(gateway=["waits"])
    server.up()
    server.process.send_signal(number)
    until(lambda: (found := holder(server.home)) and found.waits_for == "waiting for something")
    # Others who ask for the same are not impatient.
    server.process.send_signal(IN_ORDER)
    server.process.send_signal(IN_ORDER)
    code, said = server.end(number)
    assert code == 0
    assert "waiting for something" in said
    assert "killed" not in said
    check_nothing_left(server)


def test_a_child_s_death_and_its_last_words_may_come_in_one_turn(stage: Stages) -> None:
    server = stage(supervisor=["gathers"], runner=["talks"])
    server.up()
    for life in (1, 2):
        os.kill(server.pids("runner")[-1], signal.SIGKILL)
        until(lambda: len(server.pids("runner")) == life + 1)
    code, said = server.end(signal.SIGTERM)
    assert (code, said.count("the runner ended (killed by SIGKILL)")) == (0, 2)
    check_nothing_left(server)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans can only be found on Linux")
def test_what_children_leave_behind_is_ended(stage: Stages) -> None:
    server = stage(runner=["parent"])
    server.up()
    os.kill(server.pids("runner")[0], signal.SIGKILL)
    until(lambda: len(server.pids("runner", "left")) == 2)
    assert not gone(server.pids("runner", "left"))
    server.end(signal.SIGTERM)
    check_nothing_left(server)


def test_children_notice_that_the_supervisor_was_killed(stage: Stages) -> None:
    server = stage()
    server.up()
    server.process.kill()
    until(lambda: gone(server.everyone()))
    assert holder(server.home) is None


def test_a_new_server_ends_what_a_killed_one_left(stage: Stages) -> None:
    first = stage(runner=["parent"])
    first.up()
    # A runner that neither notices nor obeys: only killing it by its record frees the home.
    runner = first.pids("runner")[0]
    os.kill(runner, signal.SIGSTOP)
    first.process.kill()
    second = stage()
    second.up()
    assert identify(runner) is None
    _, said = second.end(signal.SIGTERM)
    assert f"an earlier server here was killed; ending what is left of it: runner (pid {runner})" in said
    # The killed runner's own children are for the next runner to adopt, not for us to end.
    assert not gone(first.pids("runner", "left"))


def test_the_terminal_shows_what_matters_and_the_log_keeps_all(stage: Stages) -> None:
    server = stage(control=["talks"])
    server.up()
    _, said = server.end(signal.SIGTERM)
    shown = [line for line in said.splitlines() if line.startswith("control | ")]
    assert [line.split()[-1] for line in shown] == ["word", "more", "word", "more"]
    assert "INFO" not in said
    kept = server.home.server_log.read_text()
    assert all(f"control {level} a word" in kept for level in ("INFO", "WARNING", "ERROR"))


def test_a_server_waits_for_one_whose_clients_are_gone(stage: Stages) -> None:
    """`swell run` and then `swell up`, in one breath, is no conflict."""
    client = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    first = stage(attached=[client.pid])
    first.up()
    client.communicate(b"\n")
    second = stage()
    second.up()
    assert first.end()[0] == 0
    found = holder(second.home)
    assert found is not None
    assert (found.pid, found.attached) == (second.process.pid, False)
    assert second.end(signal.SIGTERM)[0] == 0


def test_a_server_for_clients_ends_after_the_last_of_them(stage: Stages, root: Path) -> None:
    client = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    server = stage(attached=[client.pid])
    server.up()
    found = holder(server.home)
    assert found is not None
    assert found.attached
    client.communicate(b"\n")
    code, _ = server.end()
    assert code == 0
    check_nothing_left(server)
