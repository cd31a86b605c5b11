"""Is what a function declared with is_generator=True returns a stream, whatever kind of iterator it is?"""

from __future__ import annotations

import pytest
from replica_harness import ReplicaProcess, function, ready_replica, until

from swell.model.workload import Entry, Method, Web

pytestmark = pytest.mark.slow

ITERATORS = """
class Countdown:
    def __init__(self, n): self.n = n
    def __iter__(self): return self
    def __next__(self):
        if not self.n: raise StopIteration
        self.n -= 1
        return self.n

class Later(Countdown):
    __iter__ = None
    def __aiter__(self): return self
    async def __anext__(self):
        try: return next(self)
        except StopIteration: raise StopAsyncIteration

def mapped(n): return map(lambda x: x - 1, range(n, 0, -1))
def own(n): return Countdown(n)
def listed(n): return [*range(n - 1, -1, -1)]
async def later(n): return Later(n)
async def listed_later(n): return listed(n)
def breaks(n): return map(lambda x: 1 // 0, range(n))
def none(n): return n
async def none_later(n): return n
"""


@pytest.mark.parametrize("name", ["mapped", "own", "listed", "later", "listed_later"])
def test_what_a_declared_generator_returns_is_streamed(name: str) -> None:
    with ready_replica(ITERATORS, function(name, generator=True)) as replica:
        status, headers, body = replica.request(f"/call/{name}", b'{"n": 3}')
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        assert body == b"data: 2\n\ndata: 1\n\ndata: 0\n\nevent: end\ndata:\n\n"


def test_a_list_is_a_value_where_nothing_was_declared() -> None:
    with ready_replica(ITERATORS, function("listed")) as replica:
        assert replica.call("listed", {"n": 3}) == [2, 1, 0]


def test_an_iterator_that_raises_ends_its_stream_with_the_error() -> None:
    with ready_replica(ITERATORS, function("breaks", generator=True)) as replica:
        assert b"event: error\ndata: " in replica.request("/call/breaks", b'{"n": 3}')[2]


@pytest.mark.parametrize("name", ["none", "none_later"])
def test_a_result_without_items_is_refused_with_the_way_out(name: str) -> None:
    with ready_replica(ITERATORS, function(name, generator=True)) as replica:
        status, _, body = replica.request(f"/call/{name}", b'{"n": 3}')
        assert (status, b"bad_result" in body, b"is_generator=True" in body) == (500, True, True)


BREAKS = """
from swell.exception import InputCancellation

def stops():
    yield 1
    raise InputCancellation

async def stops_async():
    yield 1
    raise InputCancellation

def plain(): raise InputCancellation

def closes():
    try:
        yield 1
        yield object()
    finally: raise ValueError("when it was closed")

async def closes_async():
    try:
        yield 1
        yield object()
    finally: raise ValueError("when it was closed")
"""


def _trailers(replica: ReplicaProcess, name: str) -> bytes:
    with replica.begin(f"/call/{name}", headers="Connection: close\r\n") as sock:
        return b"".join(iter(lambda: sock.recv(65536), b"")).rpartition(b"\r\n0\r\n")[2]


@pytest.mark.parametrize("name", ["stops", "stops_async"])
def test_a_stream_that_stops_itself_ends_in_the_error_a_plain_function_does(name: str) -> None:
    with ready_replica(BREAKS, function(name)) as replica:
        assert replica.request(f"/call/{name}")[2].startswith(
            b'data: 1\n\nevent: error\ndata: {"error":{"code":"exception","message":"InputCancellation'
        )
        assert _trailers(replica, name).endswith(b"Swell-Error: 500 exception\r\n\r\n")
    with ready_replica(BREAKS, function("plain")) as replica:
        status, _, body = replica.request("/call/plain")
        assert (status, b"InputCancellation" in body) == (500, True)


@pytest.mark.parametrize("name", ["closes", "closes_async"])
def test_the_error_that_ended_a_stream_is_the_one_it_tells_whatever_closing_raised(name: str) -> None:
    with ready_replica(BREAKS, function(name)) as replica:
        assert b'event: error\ndata: {"error":{"code":"bad_result"' in replica.request(f"/call/{name}")[2]
        assert _trailers(replica, name).endswith(b"Swell-Error: 500 bad_result\r\n\r\n")
        until(lambda: replica.printed("ValueError: when it was closed"), "the log tells of the other")


ENDLESS = """
class Both:
    async def forever(self):
        while True: yield 0

    async def page(self): return "a"

    def app(self):
        async def app(scope, receive, send):
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                while True: await send({"type": "http.response.body", "body": b"x", "more_body": True})
        return app
"""


@pytest.mark.parametrize("target", ["/call/forever", "/"])
def test_code_that_does_nothing_but_send_leaves_turns_to_others_and_ends_with_its_caller(target: str) -> None:
    methods = (Method("forever", generator=True, asynchronous=True), Method("page", asynchronous=True))
    entry = Entry("user_code", "Both", "cls", (*methods, Method("app", web=Web("asgi", "label"))))
    headers = "" if "call" in target else "Swell-Web: app\r\n"
    with ready_replica(ENDLESS, entry, max_inputs=2) as replica:
        for _ in range(10):
            caller = replica.begin(target, b"[]", headers)
            assert caller.recv(1000)
            caller.close()
            # It is told first, and then cancelled: until then its slot is taken.
            until(lambda: replica.request("/call/page", b"[]")[0] == 200, "a free slot")
