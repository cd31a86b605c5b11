"""What can keep a server from starting, and does each say so, with nothing left behind?"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from theatre import Stage

from swell.model.errors import SwellError
from swell.supervise import clients, sockets
from swell.supervise.lock import Lock, holder, writing
from swell.supervise.sockets import close, listen_shared, listen_tcp, listening
from swell.wire.identity import identify, myself
from swell.wire.paths import Home

Stages = Callable[..., Stage]


def test_a_second_server_on_one_home(stage: Stages) -> None:
    first = stage()
    url = first.up()
    code, said = stage().end()
    assert code == 1
    assert f"A server already runs on {first.home.root}: pid {first.process.pid} at {url}." in said
    assert f"`swell down --home {first.home.root}`" in said
    assert holder(first.home) is not None
    assert first.end(signal.SIGTERM)[0] == 0


def test_a_port_in_use_names_who_listens(stage: Stages) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = stage(settings={"port": port})
        code, said = server.end()
        assert listening(port) == [myself().pid]
    assert code == 1
    assert f"Port {port} on 127.0.0.1 is in use by " in said
    assert f"(pid {myself().pid})" in said
    assert "--port" in said
    assert server.everyone() == []
    # It was made for this start alone.
    assert not server.home.root.exists()


def test_a_state_directory_that_was_there_stays_when_a_start_is_refused(stage: Stages) -> None:
    first = stage()
    first.up()
    first.end(signal.SIGTERM)
    kept = {path.name for path in first.home.root.iterdir()}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        again = stage(settings={"port": taken.getsockname()[1]})
        assert again.home.root == first.home.root
        assert again.end()[0] == 1
    assert {path.name for path in first.home.root.iterdir()} == kept


def test_why_its_directory_cannot_be_made_anew_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    lock = fcntl.flock

    def lost(fd: int, how: int) -> None:
        lock(fd, how)
        shutil.rmtree(home.root)
        home.root.touch()

    monkeypatch.setattr(fcntl, "flock", lost)
    with pytest.raises(SwellError, match="it is a file, not a directory"):
        Lock(home)


def test_a_port_that_a_stranger_would_share_is_not_shared() -> None:
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        with pytest.raises(SwellError) as refused:
            listen_shared("127.0.0.1", stranger.getsockname()[1], 2)
    assert refused.value.code == "port_in_use"


def test_several_at_one_port_get_all_that_come_and_leave_it_free() -> None:
    made = listen_shared("127.0.0.1", 0, 3)
    address = made[0].getsockname()
    assert [each.getsockname() for each in made] == [address] * 3
    callers = [socket.create_connection(address) for _ in range(60)]
    came = []
    for each in made:
        each.settimeout(0.0)
        with suppress(BlockingIOError):
            while True:
                came.append(each.accept()[0])
    assert len(came) == 60
    # Ours are closed first, so the kernel remembers them at this port for a while.
    close((*made, *came, *callers))
    listen_tcp(*address).close()
    close(listen_shared(*address, 2))


def test_where_the_kernel_does_not_divide_all_take_from_one_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets.sys, "platform", "darwin")
    made = listen_shared("127.0.0.1", 0, 3)
    caller = socket.create_connection(made[0].getsockname())
    made[0].close()
    came, _ = made[2].accept()
    assert came.getpeername() == caller.getsockname()
    close((*made, came, caller))


@pytest.mark.parametrize("host", ["no such host", "192.0.2.1", "x" * 300])
def test_a_host_that_is_not_ours(host: str) -> None:
    with pytest.raises(SwellError) as refused:
        listen_tcp(host, 0)
    assert refused.value.code == "bad_host"
    assert "--host" in refused.value.message


def test_a_home_that_cannot_be_one_is_told_by_what_is_wrong_and_what_mends_it(root: Path) -> None:
    (root / "file").write_text("")
    (root / "link").symlink_to(root / "nothing")
    (root / "h" / "lock").mkdir(parents=True)
    away, another = "Move it away, or set SWELL_HOME", "Set SWELL_HOME"
    said = {
        root / "file": f"it is a file, not a directory. {away}",
        root / "file" / "h": f"{root}/file is a file, not a directory. {away}",
        root / "link": f"it is a link to what is not there. {away}",
        root / "h": f"{root}/h/lock: Is a directory. {another}",
        Path("/proc/h"): f"it is not there, and cannot be made in /proc: No such file or directory. {another}",
    }
    for place, words in said.items():
        with pytest.raises(SwellError) as refused:
            Lock(Home(place))
        assert refused.value.code == "home_unwritable"
        whole = f"The state directory {place} cannot be used: {words} (or --home) to another."
        assert refused.value.message == whole


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.ENOSPC, "Free some space, or set SWELL_HOME"),
        (errno.EDQUOT, "Free some space, or set SWELL_HOME"),
        (errno.EACCES, "Make it writable, or set SWELL_HOME"),
        (errno.EROFS, "Make it writable, or set SWELL_HOME"),
        (errno.EIO, "Set SWELL_HOME"),
    ],
)
def test_only_what_would_help_is_advised(root: Path, number: int, mend: str) -> None:
    with pytest.raises(SwellError) as refused, writing(Home(root)):
        raise OSError(number, os.strerror(number))
    whole = f"The state directory {root} cannot be used: {os.strerror(number)}. {mend} (or --home) to another."
    assert refused.value.message == whole


def test_a_home_that_is_to_be_made_where_we_may_not(root: Path) -> None:
    place = root / "theirs" / "home"
    with pytest.raises(SwellError) as refused, writing(Home(place)):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
    said = f"it is not there, and cannot be made in {root}: Permission denied. Make it, or set SWELL_HOME"
    assert said in refused.value.message


def test_a_home_where_no_note_can_be_left(root: Path) -> None:
    home = Home(root)
    home.attached.parent.mkdir(parents=True, exist_ok=True)
    home.attached.write_text("")
    with pytest.raises(SwellError) as refused:
        clients.attach(home, myself().pid)
    assert refused.value.code == "home_unwritable"


def test_what_fails_elsewhere_is_not_put_down_to_the_state_directory(stage: Stages) -> None:
    server = stage()
    assert server.process.stdout is not None
    # Whoever is told that it is up has gone.
    server.process.stdout.close()
    code, said = server.end()
    assert code == 1
    assert "BrokenPipeError" in said
    assert "cannot be used" not in said
    assert server.home.lock.read_text() == ""
    assert list(server.home.run.iterdir()) == []


def test_a_home_too_long_for_sockets(stage: Stages) -> None:
    server = stage(home="h" * 120)
    code, said = server.end()
    assert code == 1
    assert "home_too_long" in said
    assert "SWELL_HOME" in said
    assert not server.home.root.exists()


def test_a_state_directory_that_is_removed_ends_its_server(stage: Stages) -> None:
    server = stage()
    server.up()
    shutil.rmtree(server.home.root)
    code, said = server.end()
    assert code == 1
    assert f"home_gone: The state directory {server.home.root} was removed" in said
    assert [pid for pid in server.everyone() if identify(pid) is not None] == []
    assert not server.home.root.exists()


def test_another_server_in_the_place_of_one_is_left_alone(stage: Stages) -> None:
    first = stage()
    first.up()
    first.home.root.rename(first.home.root.with_name("elsewhere"))
    second = stage()
    second.up()
    assert first.end()[0] == 1
    assert second.home.api_socket.exists()
    assert second.end(signal.SIGTERM)[0] == 0


def test_a_lock_left_by_a_killed_server_is_taken(root: Path) -> None:
    home = Home(root / "h")
    home.root.mkdir()
    home.lock.write_text(
        '{"pid": 4194304, "start_ticks": 1, "state": "ready", "host": "127.0.0.1", "port": 1}' + " " * 99
    )
    assert holder(home) is None
    lock = Lock(home)
    found = holder(home)
    assert found is not None
    assert found.identity == myself()
    lock.release()
    assert holder(home) is None


def test_a_pid_given_to_another_process_is_not_the_server(root: Path) -> None:
    home = Home(root)
    lock = Lock(home)
    lock.holder = lock.holder._replace(start_ticks=lock.holder.start_ticks - 1)
    lock.say("ready")
    assert holder(home) is None
    lock.release()


def test_a_state_directory_that_cannot_be_looked_at_for_now_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    lock = Lock(Home(tmp_path / "home"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", away)
        assert lock.there
    shutil.rmtree(tmp_path / "home")
    assert not lock.there
    lock.release()
