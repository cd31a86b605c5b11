"""Does a caller who reads slowly get all of its answer, and is one heard that leaves while nobody reads its body?"""

from __future__ import annotations

import os
import select
import socket

import pytest
from replica_harness import WAIT_S, ReplicaProcess, cls, ready_replica, until

from swell.model.workload import Entry, Method, Web
from swell.wire.child import Drain, Served, Stuck

pytestmark = pytest.mark.slow

LARGE = 5_000_000
"""Bytes: many times what a connection takes of an answer that is not read."""
ANSWERS = f"""
    import time
    from swell.wire.context import InputCancellation

    class Thing:
        def value(self):
            return b"x" * {LARGE}

        def items(self):
            # The last one waits outside of the connection: it has no room when the code is over.
            yield "x" * {LARGE}
            yield "last"

        def deaf(self):
            open("begun", "w").close()
            while True:
                try:
                    while True:
                        time.sleep(0.005)
                except InputCancellation:
                    pass

        def leaves(self):
            open("left", "w").close()
"""
ENTRY = cls("value", "items", "deaf", exit=("leaves",))


def rest_of(sock: socket.socket) -> bytes:
    """All that comes to the end of the connection."""
    return b"".join(iter(lambda: sock.recv(65536), b""))


def is_whole(answer: bytes) -> bool:
    """Does it end as it was begun?"""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"Content-Length: " in head:
        return int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]) == len(body) >= LARGE
    return b"event: end\n" in body[-500:] and b"\r\n0\r\n" in body[-500:] and body.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("single_use", [True, False], ids=["single use", "drained"])
@pytest.mark.parametrize("name", ["value", "items"])
def test_an_answer_that_is_read_slowly_is_whole_though_its_replica_ends(name: str, single_use: bool) -> None:
    with ready_replica(ANSWERS, ENTRY, single_use=single_use) as replica:
        with replica.begin(f"/call/{name}") as sock:
            begun = sock.recv(1000)
            assert begun.startswith(b"HTTP/1.1 200 ")
            if single_use:
                assert replica.hear() == Served()
            else:
                replica.tell(Drain(reason="idle"))
            # All that it had to do before it ends: there is nothing else that it could wait for.
            until(lambda: (replica.folder / "left").exists(), "its exit hooks have run")
            assert is_whole(begun + rest_of(sock))
        assert replica.wait() == 0


@pytest.mark.parametrize("max_inputs", [1, 2])
def test_it_is_whole_though_its_replica_ends_beside_what_cannot_be_stopped(max_inputs: int) -> None:
    with ready_replica(ANSWERS, ENTRY, max_inputs=max_inputs, cancel_grace_s=0.2) as replica:
        with replica.begin("/call/value") as sock:
            begun = sock.recv(1000)
            deaf = replica.begin("/call/deaf")
            until(lambda: (replica.folder / "begun").exists(), "the other runs")
            deaf.close()
            if max_inputs > 1:
                assert replica.hear() == Stuck(requests=("q9",), ending=False)
                replica.tell(Drain(reason="idle"))
            assert replica.hear() == Stuck(requests=("q9",), ending=True)
            until(lambda: (replica.folder / "left").exists(), "its exit hooks have run")
            assert is_whole(begun + rest_of(sock))
        assert replica.wait() == 75


def test_a_replica_ends_when_who_did_not_read_has_gone() -> None:
    with ready_replica(ANSWERS, ENTRY) as replica:
        sock = replica.begin("/call/items")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
        replica.tell(Drain(reason="idle"))
        until(lambda: (replica.folder / "left").exists(), "its exit hooks have run")
        sock.close()
        assert replica.wait() == 0


APPS = """
    import asyncio, os, time

    def asgi():
        async def app(scope, receive, send):
            if scope["type"] != "http":
                return
            print("runs", scope["path"], flush=True)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"some", "more_body": True})
            try:
                while not os.path.exists("fail"):
                    await asyncio.sleep(0.005)
                raise ValueError("in the middle")
            finally:
                print("stopped", flush=True)
        return app

    def wsgi():
        def app(environ, start_response):
            print("runs", environ["PATH_INFO"], flush=True)
            start_response("200 OK", [])
            yield b"some"
            try:
                while not os.path.exists("fail"):
                    time.sleep(0.005)
                raise ValueError("in the middle")
            finally:
                print("stopped", flush=True)
        return app
"""


def stuffed(replica: ReplicaProcess, kind: str) -> socket.socket:
    """An upload to an app that takes nothing of it, of which no more is taken."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(replica.path)
    sock.sendall(b"POST / HTTP/1.1\r\nSwell-Web: %b\r\nContent-Length: 100000000\r\n\r\n" % kind.encode())
    sock.setblocking(False)
    while select.select([], [sock], [], 0.3)[1]:
        sock.send(bytes(65536))
    sock.settimeout(WAIT_S)
    return sock


def serving(kind: str) -> Entry:
    return Entry("user_code", kind, "function", (Method(kind, web=Web(kind, "label")),))


def connections(replica: ReplicaProcess) -> int:
    """That it has open, with all other files."""
    return len(os.listdir(f"/proc/{replica.process.pid}/fd"))


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_who_leaves_while_its_body_is_not_read_is_heard(kind: str) -> None:
    with ready_replica(APPS, serving(kind), cancel_grace_s=1.0) as replica:
        sock = stuffed(replica, kind)
        until(lambda: replica.printed("runs"), "the app")
        assert not replica.printed("stopped")
        sock.close()
        until(lambda: replica.printed("stopped"), "nobody waits for it")
        assert not replica.printed("in the middle")


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_of_an_answer_that_is_broken_off_nothing_is_left(kind: str) -> None:
    with ready_replica(APPS, serving(kind)) as replica:
        before = connections(replica)
        sock = stuffed(replica, kind)
        (replica.folder / "fail").touch()
        answer = rest_of(sock)
        assert b"\r\nsome" in answer
        assert not answer.endswith(b"0\r\n\r\n")
        sock.close()
        until(lambda: connections(replica) <= before, "its connection is closed")
        assert len(replica.printed("runs")) == 1
