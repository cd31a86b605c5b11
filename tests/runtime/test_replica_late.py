"""What does code that is stopped at its deadline still get to say? Nothing: its caller has one answer: it is late."""

from __future__ import annotations

import msgspec
import pytest
from replica_harness import cls, ready_replica, until

pytestmark = pytest.mark.slow

LATE = """
    import asyncio, time
    from swell.wire.context import InputCancellation

    def work():
        while True:
            time.sleep(0.005)

    class Unspeakable(TypeError):
        def model_dump(self): raise self
        def __str__(self): raise ValueError("no words")

    class Thing:
        async def goes_on_async(self):
            yield 1
            try: await asyncio.sleep(60)
            except asyncio.CancelledError: yield "last"

        def goes_on(self):
            yield 1
            try: work()
            except InputCancellation: yield "last"

        async def returns_async(self):
            yield 1
            try: await asyncio.sleep(60)
            except asyncio.CancelledError: return

        def returns(self):
            yield 1
            try: work()
            except InputCancellation: return

        async def raises_async(self):
            yield 1
            try: await asyncio.sleep(60)
            finally: raise ValueError("last")

        def raises(self):
            yield 1
            try: work()
            finally: raise ValueError("last")

        async def closes_async(self):
            yield 1
            try: yield object()
            finally: await asyncio.sleep(60)

        def closes(self):
            yield 1
            try: yield object()
            finally: work()

        async def raises_when_closed_async(self):
            yield 1
            try: yield object()
            finally:
                try: await asyncio.sleep(60)
                finally: raise ValueError("last")

        def raises_when_closed(self):
            yield 1
            try: yield object()
            finally:
                try: work()
                finally: raise ValueError("last")

        async def value_async(self):
            try: await asyncio.sleep(60)
            except asyncio.CancelledError: return "last"

        def value(self):
            try: work()
            except InputCancellation: return "last"

        async def error_async(self):
            try: await asyncio.sleep(60)
            finally: raise ValueError("last")

        def error(self):
            try: work()
            finally: raise ValueError("last")

        async def stream_async(self):
            try: await asyncio.sleep(60)
            except asyncio.CancelledError: return self.goes_on_async()

        def stream(self):
            try: work()
            except InputCancellation: return self.goes_on()

        async def unspeakable_async(self):
            try: await asyncio.sleep(60)
            except asyncio.CancelledError: return Unspeakable()

        def unspeakable(self):
            try: work()
            except InputCancellation: return Unspeakable()

        def echo(self, value):
            return value
"""
LATE_STREAMS = ["goes_on", "returns", "raises", "closes", "raises_when_closed"]
LATE_VALUES = ["value", "error", "stream", "unspeakable"]
LATE_ENTRY = cls(*(name + kind for name in LATE_STREAMS + LATE_VALUES for kind in ("", "_async")), "echo")


@pytest.mark.parametrize("kind", ["", "_async"])
@pytest.mark.parametrize("name", LATE_STREAMS)
def test_a_late_stream_has_one_ending_whatever_its_code_says_when_it_is_stopped(name: str, kind: str) -> None:
    with ready_replica(LATE, LATE_ENTRY) as replica:
        with replica.begin(f"/call/{name}{kind}", headers="Swell-Remaining-Ms: 500\r\n") as sock:
            answer = b""
            while not (b"\r\n0\r\n" in answer and answer.endswith(b"\r\n\r\n")):
                more = sock.recv(65536)
                assert more, answer
                answer += more
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert (answer.count(b"data: "), answer.count(b"event: ")) == (2, 1), answer
        assert b"data: 1\n\n" in answer
        assert b'event: error\ndata: {"error":{"code":"deadline"' in answer
        trailers = answer.rpartition(b"\r\n0\r\n")[2]
        assert trailers.endswith(b"Swell-Error: 504 deadline\r\n\r\n")
        # A thread that closes its generator is left to it at first: what that used is not known yet.
        assert (b"Swell-Cpu-Us: " in trailers) is (name + kind not in ("closes", "raises_when_closed"))
        until(lambda: replica.request("/call/echo", b"[5]")[2] == b"5", "the slot is free")


@pytest.mark.parametrize("kind", ["", "_async"])
@pytest.mark.parametrize("name", LATE_VALUES)
def test_a_late_call_has_one_answer_whatever_its_code_gives_when_it_is_stopped(name: str, kind: str) -> None:
    with ready_replica(LATE, LATE_ENTRY) as replica:
        status, headers, body = replica.request(f"/call/{name}{kind}", headers={"Swell-Remaining-Ms": "300"})
        assert (status, msgspec.json.decode(body)["error"]["code"]) == (504, "deadline")
        assert headers["swell-error"] == "504 deadline"
        assert int(headers["swell-run-us"]) > 0
        assert replica.call("echo", [5]) == 5
