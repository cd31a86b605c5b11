"""What of those who connect to the runner and are none of its own? They cost it little, and keep nobody out."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from swell.runtime.runner import adoption
from swell.runtime.runner.adoption import REATTACH_MAX, STRANGERS_MAX, Arrivals
from swell.runtime.runner.fleet import Fleet
from swell.wire.child import Down, Drain, Reattach
from swell.wire.frames import Unpacker, pack

WAIT_S = 60.0


class Door:
    """A runner's socket, and those who connect to it."""

    def __init__(self, folder: Path, known: bool) -> None:
        """`known`: this process is one of the runner's."""
        self.path = folder / "s"
        ours: dict[int, Any] = {os.getpid(): None} if known else {}
        fleet = SimpleNamespace(home=SimpleNamespace(runner_socket=self.path), by_pid=ours, children={})
        self.arrivals = Arrivals(cast(Fleet, fleet), lambda _replica, _kept: None)
        self.opened = ExitStack()

    def connect(self) -> socket.socket:
        sock = self.opened.enter_context(socket.socket(socket.AF_UNIX))
        sock.setblocking(False)
        sock.connect(str(self.path))
        return sock


@contextmanager
def door(folder: Path, known: bool = False) -> Iterator[Door]:
    found = Door(folder, known)
    with found.opened:
        try:
            yield found
        finally:
            found.arrivals.close()


async def hung_up(sock: socket.socket) -> bool:
    """Once it is."""
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1), WAIT_S) == b""
    except ConnectionResetError:
        return True


def is_open(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) != b""
    except BlockingIOError:
        return True


@pytest.mark.parametrize("known", [False, True])
def test_of_those_who_say_nothing_the_newest_few_are_kept(tmp_path: Path, known: bool) -> None:
    most = 1 if known else STRANGERS_MAX

    async def scenario() -> None:
        with door(tmp_path, known) as it:
            came = [it.connect() for _ in range(most + 20)]
            for one in came[:20]:
                assert await hung_up(one)
            assert all(map(is_open, came[20:]))

    asyncio.run(scenario())


def test_who_does_not_say_who_it_is_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "INTRODUCE_S", 0.02)

    async def scenario() -> None:
        with door(tmp_path) as it:
            assert await hung_up(it.connect())

    asyncio.run(scenario())


def test_a_stranger_cannot_begin_to_say_more_than_a_replica_has_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "INTRODUCE_S", 600.0)

    async def scenario() -> None:
        with door(tmp_path) as it:
            sock = it.connect()
            sock.send((REATTACH_MAX + 1).to_bytes(4, "big"))
            assert await hung_up(sock)

    asyncio.run(scenario())


def test_one_that_is_not_adopted_is_told_so_once_whatever_else_it_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> bytes:
        with door(tmp_path) as it:
            sock = it.connect()
            sock.send(pack(Reattach("r" * 5000, 7, True)) * 3)
            told = b""
            while piece := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 65536), WAIT_S):
                told += piece
            return told

    unpacker: Unpacker[Down] = Unpacker(Down)
    assert list(unpacker.feed(asyncio.run(scenario()))) == [Drain("the runner did not adopt this replica")]
    [record] = [record for record in caplog.records if record.name == "swell.runner"]
    assert len(record.getMessage()) < 500


def test_without_descriptors_the_runner_does_not_try_on_and_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[socket.socket] = []
    refused = asyncio.Event()

    def accept(listening: socket.socket) -> None:
        tried.append(listening)
        refused.set()
        raise OSError(errno.EMFILE, "Too many open files")

    async def scenario() -> None:
        with door(tmp_path) as it:
            it.connect()
            monkeypatch.setattr(socket.socket, "accept", accept)
            monkeypatch.setattr(adoption, "_ACCEPT_AGAIN_S", 600.0)
            await asyncio.wait_for(refused.wait(), WAIT_S)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(tried) == 1
            # And it goes on.
            monkeypatch.undo()
            it.arrivals._listen()
            sock = it.connect()
            sock.send(pack(Reattach("r", 7, True)))
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 1), WAIT_S)

    asyncio.run(scenario())
