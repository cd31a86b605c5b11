"""Does an ASGI application talk over a WebSocket as ASGI says, with a client that is not ours?"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from replica_harness import WAIT_S, ReplicaProcess, ready_replica, until
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, unix_connect

from swell.model.workload import Entry, Method, Web
from swell.wire.child import Drain
from swell.wire.websocket import MESSAGE_MAX, frame

pytestmark = pytest.mark.slow

ENTRY = Entry("user_code", "thing", "function", (Method("thing", web=Web("asgi", "label")),))

PLAIN = """
    import asyncio, json

    async def app(scope, receive, send):
        if scope["type"] != "websocket":
            return
        assert (await receive())["type"] == "websocket.connect"
        path = scope["path"].removeprefix(scope["root_path"])
        await globals()[path[1:]](scope, receive, send)

    async def told(receive):
        while (message := await receive())["type"] != "websocket.disconnect":
            pass
        print("told", message["code"], message["reason"])
        return message

    async def echo(scope, receive, send):
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            assert (message["text"] is None) != (message["bytes"] is None)
            await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})
        print("told", message["code"], message["reason"])

    async def seen(scope, receive, send):
        headers = [(b"x-own", b"yes"), (b"connection", b"no"), (b"sec-websocket-accept", b"no")]
        await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][-1], "headers": headers})
        shown = {key: scope[key] for key in ("scheme", "path", "root_path", "subprotocols")}
        shown["query"] = scope["query_string"].decode()
        shown["swell"] = [name.decode() for name, _ in scope["headers"] if name.startswith(b"swell")]
        await send({"type": "websocket.send", "text": json.dumps(shown)})

    async def parting(scope, receive, send):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
        print("then", (await receive())["code"])
        try:
            await send({"type": "websocket.send", "text": "late"})
        except OSError as error:
            print("late", error)

    async def refusing(scope, receive, send):
        await send({"type": "websocket.close"})

    async def denying(scope, receive, send):
        await send({"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-own", b"tea")]})
        await send({"type": "websocket.http.response.body", "body": b"tea", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"pot"})

    async def nothing(scope, receive, send):
        pass

    async def splitting(scope, receive, send):
        await send({"type": "websocket.accept", "headers": [(b"x", b"a\\r\\nb")]})

    async def early(scope, receive, send):
        raise ValueError("before")

    async def late(scope, receive, send):
        await send({"type": "websocket.accept"})
        raise ValueError("after")

    async def misplaced(scope, receive, send):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.accept"})

    async def deaf(scope, receive, send):
        await send({"type": "websocket.accept"})
        await asyncio.sleep(0.5)
        total = 0
        while (message := await receive())["type"] == "websocket.receive":
            total += len(message["bytes"])
        print("got", total)

    async def unheeding(scope, receive, send):
        await send({"type": "websocket.accept"})
        try:
            await asyncio.sleep(1000)
        finally:
            print("given up")

    async def pushing(scope, receive, send):
        await send({"type": "websocket.accept"})
        sent = 0
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(50_000)})
                sent += 1
                open("sent", "w").write(str(sent))
        except OSError:
            print("gone after", sent)

    async def stubborn(scope, receive, send):
        await send({"type": "websocket.accept"})
        await told(receive)
        try:
            await asyncio.sleep(100)
        finally:
            print("stopped")

    async def finishing(scope, receive, send):
        await send({"type": "websocket.accept"})
        await told(receive)
        await asyncio.sleep(2)
        print("finished")

    def thing():
        return app
"""


@contextmanager
def session(
    replica: ReplicaProcess, path: str, remaining_ms: int = 60_000, **options: object
) -> Iterator[ClientConnection]:
    headers = {"Swell-Web": "thing", "Swell-Request-Id": "q7", "Swell-Remaining-Ms": str(remaining_ms)}
    headers |= {"Swell-Limit": "its limit", "Swell-Root-Path": "/web/label"}
    with unix_connect(
        replica.path, f"ws://x{path}", additional_headers=headers, open_timeout=WAIT_S, **options
    ) as client:
        yield client


@pytest.fixture(scope="module")
def replica() -> Iterator[ReplicaProcess]:
    with ready_replica(PLAIN, ENTRY, max_inputs=200, cancel_grace_s=1.0) as one:
        yield one


def test_text_and_bytes_of_all_sizes_come_back(replica: ReplicaProcess) -> None:
    with session(replica, "/echo", max_size=None) as client:
        for message in (
            "",
            "ä€😀",
            b"",
            b"\x00\xff",
            "x" * 125,
            "x" * 126,
            b"y" * 65_535,
            b"y" * 65_536,
            b"z" * 1_000_000,
        ):
            client.send(message)
            assert client.recv(WAIT_S) == message
        client.send(["in ", "three ", "pieces"])
        assert client.recv(WAIT_S) == "in three pieces"
        assert client.ping().wait(WAIT_S)
        client.close(4321, "bye")
    until(lambda: replica.printed("told 4321 bye"))


def test_the_scope_and_what_an_accept_says(replica: ReplicaProcess) -> None:
    with session(replica, "/seen?a=1", subprotocols=["one", "two"]) as client:  # type: ignore[list-item]
        assert client.subprotocol == "two"
        assert client.response is not None
        assert client.response.headers["x-own"] == "yes"
        assert client.response.headers.get_all("connection") == ["Upgrade"]
        assert client.recv(WAIT_S) == (
            '{"scheme": "ws", "path": "/web/label/seen", "root_path": "/web/label", "subprotocols": ["one", "two"], '
            '"query": "a=1", "swell": ["swell-request-id"]}'
        )
        with pytest.raises(ConnectionClosedOK) as closed:
            client.recv(WAIT_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000


def test_an_app_that_closes(replica: ReplicaProcess) -> None:
    with session(replica, "/parting") as client:
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(WAIT_S)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "enough")
    until(lambda: replica.printed("late This WebSocket is closed."))
    assert replica.printed("then 4001")


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/refusing", 403, b""),
        ("/denying", 418, b"teapot"),
        ("/nothing", 500, b"without accepting"),
        ("/early", 500, b"ValueError: before"),
        ("/splitting", 500, b"line break"),
    ],
)
def test_an_app_that_does_not_accept(replica: ReplicaProcess, path: str, status: int, body: bytes) -> None:
    with pytest.raises(InvalidStatus) as refused, session(replica, path):
        pass
    answer = refused.value.response
    assert answer.status_code == status
    assert body in (answer.body or b"")
    assert status != 418 or answer.headers["x-own"] == "tea"


@pytest.mark.parametrize("path", ["/late", "/misplaced"])
def test_an_app_that_raises(replica: ReplicaProcess, path: str) -> None:
    with session(replica, path) as client, pytest.raises(ConnectionClosedError) as closed:
        client.recv(WAIT_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011
    until(lambda: replica.printed("ValueError: after" if path == "/late" else "'websocket.accept' is out of place"))


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (frame(1, b"no mask"), 1002),
        (bytes((0xC1, 0x80)) + b"mask", 1002),
        (frame(1, b"\xc3\x28", b"mask"), 1007),
        (bytes((0x82, 0xFF)) + (MESSAGE_MAX + 1).to_bytes(8, "big") + b"mask", 1009),
        (frame(8, b"\x03", b"mask"), 1002),
    ],
)
def test_what_breaks_the_protocol_is_closed_with_its_code(replica: ReplicaProcess, raw: bytes, code: int) -> None:
    with session(replica, "/echo") as client:
        client.socket.sendall(raw)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(WAIT_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code


def test_a_hundred_at_once(replica: ReplicaProcess) -> None:
    clients = [session(replica, "/echo") for _ in range(100)]
    opened = [client.__enter__() for client in clients]
    for number, client in enumerate(opened):
        client.send(str(number))
    assert [client.recv(WAIT_S) for client in opened] == [str(n) for n in range(100)]
    for client in clients:
        client.__exit__(None, None, None)


def test_what_an_app_does_not_take_in_time_is_not_read_further(replica: ReplicaProcess) -> None:
    with session(replica, "/deaf") as client:
        for _ in range(200):
            client.send(bytes(50_000))
        client.close()
    until(lambda: replica.printed("got"))
    assert replica.printed("got 10000000")


def test_a_client_that_leaves_an_app_which_does_not_receive_is_missed(replica: ReplicaProcess) -> None:
    with session(replica, "/unheeding") as client:
        for _ in range(20):
            client.send(bytes(20_000))
        client.socket.shutdown(socket.SHUT_RDWR)
    until(lambda: replica.printed("given up"))
    assert not replica.printed("Gone")


def test_a_client_that_does_not_read_stops_the_app_and_one_that_leaves_ends_it(replica: ReplicaProcess) -> None:
    with session(replica, "/pushing", max_queue=1) as client:
        sent = replica.folder / "sent"
        until(sent.exists)
        last = ""
        while (now := sent.read_text()) != last or not now:
            last = now
            time.sleep(0.2)
        assert int(last) * 50_000 < 20_000_000
        client.socket.shutdown(socket.SHUT_RDWR)
    until(lambda: replica.printed("gone after"))
    assert not replica.printed("Gone")


def test_a_client_that_left_without_a_word_is_told_to_the_app_which_is_stopped(replica: ReplicaProcess) -> None:
    with session(replica, "/stubborn") as client:
        client.socket.shutdown(socket.SHUT_RDWR)
        until(lambda: replica.printed("stopped"))
        assert replica.printed("told 1006")


def test_after_a_close_the_app_may_finish(replica: ReplicaProcess) -> None:
    with session(replica, "/finishing") as client:
        client.close(1001, "off")
    until(lambda: replica.printed("finished"))
    assert replica.printed("told 1001 off")


def test_the_deadline_ends_it() -> None:
    with ready_replica(PLAIN, ENTRY, max_inputs=2, cancel_grace_s=0.5) as replica:
        with session(replica, "/stubborn", remaining_ms=300) as client, pytest.raises(ConnectionClosed) as closed:
            client.recv(WAIT_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        assert closed.value.rcvd.reason == "The deadline of its limit passed while it was open."
        until(lambda: replica.printed("told 1008"))
        until(lambda: replica.printed("stopped"))


def test_a_session_has_a_slot_and_is_waited_for() -> None:
    with ready_replica(PLAIN, ENTRY, max_inputs=1) as replica:
        with session(replica, "/echo") as client:
            with pytest.raises(InvalidStatus) as busy, session(replica, "/echo"):
                pass
            assert busy.value.response.status_code == 503
            assert busy.value.response.headers["Swell-Busy"] == "1"
            replica.tell(Drain(reason="test"))
            client.send("still")
            assert client.recv(WAIT_S) == "still"
        assert replica.wait() == 0


STARLETTE = """
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    async def talk(websocket: WebSocket):
        await websocket.accept()
        try:
            async for text in websocket.iter_text():
                await websocket.send_json({"said": text})
        finally:
            print("over")

    async def pushing(websocket: WebSocket):
        await websocket.accept()
        while True:
            await websocket.send_bytes(bytes(1000))

    def thing():
        return Starlette(routes=[WebSocketRoute("/talk", talk), WebSocketRoute("/pushing", pushing)])
"""


def test_a_starlette_app() -> None:
    with ready_replica(STARLETTE, ENTRY, max_inputs=3, cancel_grace_s=1.0) as replica:
        with session(replica, "/talk") as client:
            client.send("a")
            assert client.recv(WAIT_S) == '{"said":"a"}'
        until(lambda: replica.printed("over"))
        for _ in range(10):
            with session(replica, "/pushing") as client:
                assert client.recv(WAIT_S) == bytes(1000)
                client.socket.shutdown(socket.SHUT_RDWR)
            # It does nothing but send, and yet the loop turns.
            with pytest.raises(InvalidStatus) as refused, session(replica, "/nowhere"):
                pass
            assert refused.value.response.status_code == 403
        assert not replica.printed("Traceback")


def test_frames_that_come_in_any_pieces() -> None:
    """The standard's client would send a frame at once: this one sends single bytes, pings between fragments."""
    with ready_replica(PLAIN, ENTRY, max_inputs=3) as replica, session(replica, "/echo") as client:
        first, ping, last = frame(1, b"ab", b"mask"), frame(9, b"?", b"mask"), frame(0, b"cd", b"mask")
        for byte in bytes((first[0] & 0x7F,)) + first[1:] + ping + last:
            client.socket.sendall(bytes((byte,)))
        assert client.recv(WAIT_S) == "abcd"
