"""Is what a class finds acknowledged once it is in the queue, and not before, whatever the server answers?"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swell
from swell.model.subscription import DELIVER
from swell.sdk import source
from swell.wire import context, http
from swell.wire.cloudevents import read_batch

WAIT_S = 60.0


class Queue(BaseHTTPRequestHandler):
    """Answers as it is told to, one answer after the other, and then takes all."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["content-length"])))
        ids = [each["id"] for each in told]
        self.server.seen.append((self.path, ids))
        status, body = self.server.answers.pop(0) if self.server.answers else (202, b"{}")
        if status == 202:
            self.server.log += [f"queued {id}" for id in ids]
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
    monkeypatch.setattr(source, "AGAIN_S", (0.001,))
    with ThreadingHTTPServer(("127.0.0.1", 0), Queue) as served:
        state: Any = served
        state.seen, state.answers, state.log = [], [], []
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{served.server_port}"
        monkeypatch.setattr(context, "inside", [context.Inside("default/mail", "r1-1", url, "sk-call")])
        yield state
        served.shutdown()
        thread.join()


def event(id: str, **fields: Any) -> swell.Event:
    return swell.Event(id=id, source="/mail", type="letter", **fields)


class Found(swell.Source):
    """Finds what it is given, notes what it is told, and then waits or comes to its end."""

    def __init__(self, given: list[Any], log: list[str], ends: bool = True) -> None:
        self.given, self.log, self.ends = given, log, ends

    async def events(self) -> AsyncIterator[Any]:
        try:
            for each in self.given:
                yield each
                self.log.append("goes on")
            if not self.ends:
                await asyncio.Event().wait()
        finally:
            self.log.append("closed")

    async def ack(self, event: swell.Event) -> None:
        self.log.append(f"acknowledged {event.id}")


def delivered(found: Found) -> int:
    async def run() -> int:
        async with asyncio.timeout(WAIT_S):
            return await found.deliver("read")

    return asyncio.run(run())


def failing(status: int, code: str) -> tuple[int, bytes]:
    return status, http.error_body(code, "in words")


def test_the_method_that_control_calls_is_there() -> None:
    assert callable(getattr(swell.Source, DELIVER))


def test_each_is_acknowledged_once_it_is_in_the_queue(server: Any) -> None:
    full = [(0, b""), failing(503, "busy"), failing(507, "state_full"), failing(502, "control_down"), failing(429, "x")]
    server.answers += [*full, (202, b"{}"), *full[:2]]
    assert delivered(Found([event("1"), [event("2"), event("3")], [], event("4")], server.log)) == 4
    assert server.log == [
        *("queued 1", "acknowledged 1", "goes on"),
        *("queued 2", "queued 3", "acknowledged 2", "acknowledged 3", "goes on"),
        "goes on",
        *("queued 4", "acknowledged 4", "goes on"),
        "closed",
    ]
    assert [ids for _, ids in server.seen] == [["1"]] * 6 + [["2", "3"]] * 3 + [["4"]]
    assert {path for path, _ in server.seen} == {"/trigger/default/mail/read"}


def test_what_is_too_much_at_once_goes_in_parts(server: Any) -> None:
    server.answers += [failing(413, "body_too_large"), failing(413, "body_too_large")]
    assert delivered(Found([[event(each) for each in "12345"]], server.log)) == 5
    assert [ids for _, ids in server.seen] == [[*"12345"], [*"12"], ["1"], ["2"], [*"345"]]
    assert [each for each in server.log if each.startswith("ack")] == [f"acknowledged {each}" for each in "12345"]


def test_outside_a_replica_it_says_who_calls_it() -> None:
    with pytest.raises(swell.Error, match="is what the server calls"):
        delivered(Found([], []))


@pytest.mark.parametrize("given", [[event("1")], [event("1", data=object())], ["no event"], [[event("1"), 7]]])
def test_what_is_refused_or_no_event_ends_it_unacknowledged(server: Any, given: list[Any]) -> None:
    server.answers.append(failing(404, "unknown_trigger"))
    with pytest.raises(swell.Error):
        delivered(Found(given, server.log))
    assert server.log == ["closed"]


def test_what_its_code_raises_is_what_it_fails_with(server: Any) -> None:
    class Failing(Found):
        async def ack(self, event: swell.Event) -> None:
            raise TimeoutError("the mailbox does not answer")

    with pytest.raises(TimeoutError, match="the mailbox"):
        delivered(Failing([event("1")], server.log))
    assert server.log == ["queued 1", "closed"]


@pytest.fixture
def worked_on() -> Iterator[Callable[[float], None]]:
    """Has what runs from then on be a call with so much time."""
    tokens = []

    def begin(left_s: float) -> None:
        tokens.append(context.current.set(context.Input("fc-1", time.monotonic() + left_s)))

    yield begin
    for token in tokens:
        context.current.reset(token)


def test_it_ends_by_itself_before_its_time_is_up(server: Any, worked_on: Callable[[float], None]) -> None:
    worked_on(0.4)
    assert delivered(Found([event("1")], server.log, ends=False)) == 1
    assert server.log == ["queued 1", "acknowledged 1", "goes on", "closed"]


def test_what_is_not_taken_by_then_is_not_acknowledged(server: Any, worked_on: Callable[[float], None]) -> None:
    server.answers += [failing(503, "busy")] * 100_000
    worked_on(0.4)
    assert delivered(Found([event("1")], server.log, ends=False)) == 0
    assert server.log == ["closed"]


def test_it_ends_soon_where_its_replica_is_told_to(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "LOOK_S", 0.001)
    context.stopping.set()
    try:
        assert delivered(Found([event("1")], server.log, ends=False)) <= 1
        assert server.log[-1] == "closed"
    finally:
        context.stopping.clear()


def test_of_code_that_goes_on_all_the_same_nothing_more_is_taken(
    server: Any, worked_on: Callable[[float], None]
) -> None:
    class Stubborn(Found):
        async def events(self) -> AsyncIterator[Any]:
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    yield event("1")

    worked_on(0.2)
    assert delivered(Stubborn([], server.log)) <= 1


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(1, 9))
def test_portions_have_all_of_them_in_order_and_are_bounded(sizes: list[int], most: int) -> None:
    events = [event(str(n), data="x" * size) for n, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(source, "INPUT_MAX", 1000)
        patched.setattr(source, "BATCH_MAX", most)
        found = [*source.portions(events)]
    assert [each for some, _ in found for each in some] == events
    for some, body in found:
        assert 0 < len(some) <= most
        assert len(body) <= 1000
        assert [each.id for each in read_batch(body)] == [each.id for each in some]
