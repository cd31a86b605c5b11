"""Do WebSockets work as users use them: from zero, with a framework, with a process, and when something ends?"""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from journey.callers import APPS, ask, command, why
from private_swell import PrivateSwell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WAIT_S = 120.0


@pytest.fixture(scope="module")
def sockets(own_swell: PrivateSwell) -> PrivateSwell:
    own_swell.run("deploy", str(APPS / "sockets.py"))
    return own_swell


def opened(swell: PrivateSwell, path: str = "/web/talk/echo", **options: Any) -> ClientConnection:
    url = f"ws://127.0.0.1:{swell.port}{path}"
    return connect(url, open_timeout=WAIT_S, max_size=None, **options)


def closed(client: ClientConnection) -> tuple[int, str]:
    """With which code and words the other side ended it; 1006: without any."""
    try:
        while True:
            client.recv(WAIT_S)
    except ConnectionClosed as ended:
        received = ended.rcvd
        return (received.code, received.reason) if received is not None else (1006, "")


def request_of(client: ClientConnection) -> str:
    assert client.response is not None
    return client.response.headers["Swell-Request-Id"]


def zero(swell: PrivateSwell) -> bool:
    return not swell.serving()


def test_a_service_at_zero_is_woken_and_a_session_is_one_request(sockets: PrivateSwell) -> None:
    wait_until("nothing runs", lambda: zero(sockets))
    with opened(sockets) as client:
        assert client.response is not None
        assert client.response.headers["Swell-Cold"] == "1"
        assert json.loads(client.recv(WAIT_S))["pid"] in [one["pid"] for one in sockets.serving()]
        for message in ("text", b"\x00bytes", "é" * 1_000_000, b"x" * 1_000_000):
            client.send(message)
            assert client.recv(WAIT_S) == message
        request = request_of(client)
    record = why(sockets, request)
    assert (record["status"], record["error"], record["cold"]) == (101, "", True)
    assert any("WebSocket" in reason for reason in record["reasons"])
    said = command(sockets, "logs", "sockets", "--request", request)
    assert "gone 1000" in said.out
    assert ask(sockets, "GET", "/web/talk/").value == "a page"


def test_by_host_and_by_path_a_hundred_at_once(sockets: PrivateSwell) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(20) as threads:
        clients = [stack.enter_context(one) for one in threads.map(lambda _: opened(sockets), range(100))]
        for number, client in enumerate(clients):
            client.recv(WAIT_S)
            client.send(str(number))
        assert [client.recv(WAIT_S) for client in clients] == [str(number) for number in range(100)]


def test_a_replica_that_is_killed_ends_its_sessions_at_once(sockets: PrivateSwell) -> None:
    with opened(sockets) as client:
        os.kill(json.loads(client.recv(WAIT_S))["pid"], signal.SIGKILL)
        assert closed(client) == (1006, "")
        record = why(sockets, request_of(client))
    assert (record["status"], record["error"]) == (502, "replica_died")


def test_the_timeout_is_that_of_the_session(sockets: PrivateSwell) -> None:
    with opened(sockets, "/web/short/echo") as client:
        code, reason = closed(client)
        assert code == 1008
        assert "3 s (timeout= of the function)" in reason
        record = why(sockets, request_of(client))
    assert (record["status"], record["error"]) == (504, "deadline")


def test_a_key_that_is_revoked_ends_its_sessions(sockets: PrivateSwell) -> None:
    key = sockets.run("key", "create", "talker", "--scope", "call:default/sockets").strip()
    with opened(sockets, additional_headers={"Authorization": f"Bearer {key}"}) as client, opened(sockets) as other:
        client.recv(WAIT_S)
        other.recv(WAIT_S)
        sockets.run("key", "revoke", "talker")
        code, reason = closed(client)
        assert code == 1008
        assert "was revoked" in reason
        other.send("still here")
        assert other.recv(WAIT_S) == "still here"
        record = why(sockets, request_of(client))
    assert record["status"] == 101


def test_a_process_that_listens_talks_itself(sockets: PrivateSwell) -> None:
    with opened(sockets, "/web/process/any") as client:
        pid = int(client.recv(WAIT_S))
        assert pid in [one.pid for one in sockets.processes()]
        client.send(b"y" * 1_000_000)
        assert client.recv(WAIT_S) == b"y" * 1_000_000
    with opened(sockets, "/web/process/any") as client:
        client.recv(WAIT_S)
        os.kill(pid, signal.SIGKILL)
        assert closed(client) == (1006, "")


def test_what_is_no_websocket_says_so(sockets: PrivateSwell) -> None:
    with pytest.raises(InvalidStatus) as refused:
        opened(sockets, "/web/talk/nowhere")
    assert refused.value.response.status_code == 403
    wrong = ask(sockets, "GET", "/web/talk/echo", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    assert (wrong.status, wrong.error["code"]) == (426, "bad_request")


def test_a_new_deploy_and_the_end_of_the_server_are_told(sockets: PrivateSwell) -> None:
    source = (APPS / "sockets.py").read_text().replace('"a page"', '"a new page"')
    changed = sockets.home / "sockets.py"
    changed.write_text(source)
    with opened(sockets) as before:
        before.recv(WAIT_S)
        sockets.run("deploy", str(changed))
        assert closed(before) == (1001, "This version of the app is being replaced or stopped.")
    with opened(sockets) as client:
        client.recv(WAIT_S)
        with ThreadPoolExecutor(1) as threads:
            down = threads.submit(command, sockets, "down")
            assert closed(client) == (1001, "The server is being stopped.")
            assert down.result().code == 0
