"""Is a change of a dict or queue sent again where its answer was lost, and as the same change?"""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import swell
from swell.sdk import shared
from swell.sdk.shared import pages
from swell.wire import http


class Flaky(BaseHTTPRequestHandler):
    """Answers as it is told to, one answer after the other."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        status, body = self.server.answers.pop(0)
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header(http.REQUEST_ID, "q1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(shared, "AGAIN_S", (0.001,))
    with ThreadingHTTPServer(("127.0.0.1", 0), Flaky) as served:
        state: Any = served
        state.asked, state.answers = [], []
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        monkeypatch.setenv("SWELL_URL", f"http://127.0.0.1:{served.server_port}")
        monkeypatch.setenv("SWELL_KEY", "sk-test")
        yield state
        served.shutdown()
        thread.join()


def failing(status: int, code: str) -> tuple[int, bytes]:
    return status, http.error_body(code, "in words")


LOSSES = [(0, b""), failing(503, "control_down"), failing(502, "control_down"), failing(503, "stopping")]


def test_a_change_whose_answer_was_lost_is_sent_again_as_the_same(server: Any) -> None:
    server.answers += [*LOSSES, (200, b'{"count": 1}')]
    assert swell.Dict.from_name("d").put("k", 1, skip_if_exists=True)
    assert len(server.asked) == 5
    assert len({each["request"] for each in server.asked}) == 1
    server.answers += [*LOSSES, (200, b'{"items": ["gAVLAS4="], "after": 0}')]
    assert swell.Queue.from_name("q").get() == pickle.loads(b"\x80\x05K\x01.") == 1
    requests = [each["request"] for each in server.asked]
    assert len(set(requests[5:])) == 1
    assert requests[0] != requests[-1]


def test_what_is_refused_is_not_sent_again(server: Any) -> None:
    server.answers.append(failing(409, "dict_full"))
    with pytest.raises(swell.exception.ResourceExhaustedError):
        swell.Dict.from_name("d").put("k", 1)
    assert len(server.asked) == 1


def test_it_is_tried_for_a_while_and_then_told(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "RETRY_S", 0.0)
    server.answers += [failing(503, "control_down")] * 9
    with pytest.raises(swell.exception.ServiceError):
        swell.Dict.from_name("d").put("k", 1)


def test_a_wait_of_many_requests_is_one_get(server: Any) -> None:
    server.answers += [(200, b'{"items": [], "after": 0}')] * 3 + [(200, b'{"items": ["gAVLAS4="], "after": 0}')]
    assert swell.Queue.from_name("q").get() == 1
    assert len({each["request"] for each in server.asked}) == 1
    assert {each["wait_s"] for each in server.asked} == {30.0}


@pytest.mark.parametrize(
    ("sizes", "together"),
    [
        ([], []),
        ([5], [(0, 1)]),
        ([50], [(0, 1)]),
        ([4, 4, 4], [(0, 2), (2, 3)]),
        ([9, 50, 1], [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_what_is_sent_together_is_no_more_than_one_request_may_bring(
    sizes: list[int], together: list[tuple[int, int]]
) -> None:
    assert pages(sizes, 10) == together
