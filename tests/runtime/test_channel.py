"""What of a channel that one side does not read, or does not understand? It is given up, made anew, and told of."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from swell.runtime.channel import Channel
from swell.runtime.runner.child_link import ChildLink
from swell.wire.child import Forked, Left, Reattach, Served, Stuck, Up
from swell.wire.frames import Unpacker, pack

WAIT_S = 60.0
ME = Reattach("r1-1", 7, True)


def test_a_runner_that_does_not_read_is_told_the_whole_state_over_another_connection(tmp_path: Path) -> None:
    async def scenario() -> None:
        theirs, ours = socket.socketpair()
        with theirs, socket.socket(socket.AF_UNIX) as runner:
            path = tmp_path / "s"
            runner.bind(str(path))
            runner.listen()
            runner.setblocking(False)
            ended: list[str] = []
            channel = Channel(ours, str(path), WAIT_S, lambda: ME, ended.append)
            await channel.listen()
            # More than the kernel keeps: a part of it is sent, and the rest is not.
            channel.send(Stuck(("q" * 2**22,), False))
            loop = asyncio.get_running_loop()
            again, _ = await asyncio.wait_for(loop.sock_accept(runner), WAIT_S)
            with again:
                unpacker: Unpacker[Up] = Unpacker(Up)
                heard: list[Up] = []
                while not heard:
                    heard += unpacker.feed(await asyncio.wait_for(loop.sock_recv(again, 65536), WAIT_S))
            assert heard == [ME]
            assert not ended

    asyncio.run(scenario())


def test_what_a_process_says_and_nobody_understands_is_logged_with_its_name(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        theirs, ours = socket.socketpair()
        ended = asyncio.Event()
        link = ChildLink(ours)
        link.name = "r1-1"
        link.ended = ended.set
        with theirs:
            theirs.sendall(b"\x00\x00\x00\x04what")
            await asyncio.wait_for(ended.wait(), WAIT_S)

    asyncio.run(scenario())
    # What else the interpreter clears away meanwhile is of other tests.
    [record] = [record for record in caplog.records if record.name == "swell.runner"]
    assert "r1-1" in record.getMessage()
    assert record.levelname == "WARNING"


def test_what_a_process_left_behind_says_on_is_not_waited_for() -> None:
    async def scenario() -> None:
        theirs, ours = socket.socketpair()
        heard: list[Up] = []

        def said_on(message: Up, _fds: object) -> None:
            heard.append(message)
            assert len(heard) < 100, "it is heard for ever"
            theirs.sendall(pack(Served()))

        link = ChildLink(ours)
        link.heard = said_on
        with theirs:
            theirs.sendall(pack(Left()) + pack(ME))
            link.drain()
        assert heard[:2] == [Left(), ME]
        link.close()

    asyncio.run(scenario())


def test_descriptors_that_no_message_takes_are_not_kept() -> None:
    async def scenario() -> None:
        theirs, ours = socket.socketpair()
        before = len(os.listdir("/dev/fd"))
        ended = asyncio.Event()
        link = ChildLink(ours)
        link.ended = ended.set
        with theirs:
            socket.send_fds(theirs, [pack(Left())], [0] * 8)
            await asyncio.wait_for(ended.wait(), WAIT_S)
            assert len(os.listdir("/dev/fd")) == before - 1

    asyncio.run(scenario())


def test_a_descriptor_waits_for_the_rest_of_its_message() -> None:
    async def scenario() -> None:
        theirs, ours = socket.socketpair()
        came: list[int] = []
        link = ChildLink(ours)
        link.heard = lambda _message, fds: came.append(fds.popleft())
        frame = pack(Forked("r1-1", 7))
        with theirs:
            for _ in range(3):
                socket.send_fds(theirs, [frame[:5]], [0])
                link.drain()
                theirs.sendall(frame[5:])
                link.drain()
        assert len(came) == 3
        for descriptor in came:
            os.close(descriptor)
        link.close()

    asyncio.run(scenario())
