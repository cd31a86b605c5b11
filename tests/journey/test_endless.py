"""Does what a client sends without measure end in one refusal, on every path, while others are served?"""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from journey.callers import APPS, call, key
from private_swell import PrivateSwell, private_swell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BODY_MAX = 200_000
PATHS = {
    "a call": "/call/moody/size",
    "a model of V2": "/v2/models/zoo--double/infer",
    "the OpenAI API": "/v1/chat/completions",
    "a web endpoint": "/web/total/",
    "the control API": "/api/keys",
}


@pytest.fixture(scope="module")
def strict() -> Iterator[PrivateSwell]:
    """A platform that takes small bodies only, and does not wait long for them."""
    environ = {**os.environ, "SWELL_BODY_MAX": str(BODY_MAX), "SWELL_BODY_TIMEOUT_S": "2"}
    with private_swell(environ) as swell:
        for name in ("moody.py", "models.py", "sockets.py", "pages.py"):
            swell.run("deploy", str(APPS / name))
        yield swell


def head(swell: PrivateSwell, method: str, path: str, *lines: str) -> bytes:
    trusted = [f"{name}: {value}" for name, value in key(swell).items()]
    every = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{swell.port}", *trusted, *lines, "", ""]
    return "\r\n".join(every).encode()


def status_and_rest(sock: socket.socket) -> tuple[int, bytes]:
    """What was answered, all of it: the connection is ended after it."""
    got = b""
    try:
        while data := sock.recv(65536):
            got += data
    except ConnectionError:
        pass  # It may be reset, since not all that was sent was read.
    line, _, rest = got.partition(b"\r\n")
    return int(line.split()[1]), rest.partition(b"\r\n\r\n")[2]


def answered(sock: socket.socket, wait_s: float) -> bool:
    """Is there an answer by now, or an end?"""
    return bool(select.select([sock], [], [], wait_s)[0])


def assert_others_are_served(swell: PrivateSwell) -> None:
    assert call(swell, "moody/add", {"a": 1}).value == 2


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_a_header_of_100_kb(strict: PrivateSwell, path: str) -> None:
    with socket.create_connection(("127.0.0.1", strict.port), timeout=60) as sock:
        sock.sendall(head(strict, "POST", path, f"X-Large: {'x' * 100_000}", "Content-Length: 0"))
        status, body = status_and_rest(sock)
    assert (status, "headers" in body.decode()) == (431, True)
    assert_others_are_served(strict)


def test_a_header_of_100_kb_opens_no_websocket(strict: PrivateSwell) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{strict.port}/web/talk/echo", additional_headers={"X-Large": "x" * 100_000})
    assert refused.value.response.status_code == 431
    assert_others_are_served(strict)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_chunks_that_never_end(strict: PrivateSwell, path: str) -> None:
    """They are refused once there are too many bytes of them, while more come."""
    with socket.create_connection(("127.0.0.1", strict.port), timeout=60) as sock:
        sock.sendall(head(strict, "POST", path, "Content-Type: application/json", "Transfer-Encoding: chunked"))
        with suppress(ConnectionError):
            while not answered(sock, 0):
                sock.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        status, body = status_and_rest(sock)
    assert (status, "body" in body.decode()) == (413, True)
    assert_others_are_served(strict)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_a_body_that_stops_coming(strict: PrivateSwell, path: str) -> None:
    with socket.create_connection(("127.0.0.1", strict.port), timeout=100) as sock:
        sock.sendall(head(strict, "POST", path, "Content-Type: application/json", "Content-Length: 1000") + b'{"a"')
        status, body = status_and_rest(sock)
    assert (status, "body" in body.decode()) == (408, True)
    assert_others_are_served(strict)


def test_a_body_that_trickles_ends_with_its_deadline(strict: PrivateSwell) -> None:
    """Each byte comes in time; the request as a whole has no more of it than it asked for."""
    with socket.create_connection(("127.0.0.1", strict.port), timeout=100) as sock:
        lines = ("Content-Type: application/json", "Content-Length: 1000", "Swell-Timeout: 3")
        sock.sendall(head(strict, "POST", "/call/moody/size", *lines))
        with suppress(ConnectionError):
            while not answered(sock, 0.1):
                sock.sendall(b" ")
        status, body = status_and_rest(sock)
    assert (status, json.loads(body)["error"]["code"]) == (504, "deadline")
    assert_others_are_served(strict)
