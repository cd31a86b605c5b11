"""What can keep a server from starting, and does each say so, with nothing left behind?"""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from theatre import Stage

from swell.model.errors import SwellError
from swell.supervise import clients
from swell.supervise.lock import Lock, holder, writing
from swell.supervise.sockets import listen_tcp, listening
from swell.wire.identity import myself
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
    assert list(server.home.run.iterdir()) == []
    assert server.home.lock.read_text() == ""


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
