"""What does code that is stopped at its deadline still get to say? Nothing: its caller has one answer: it is late."""

from __future__ import annotations

import msgspec
import pytest
from replica_harness import cls, ready_replica, stops_growing, until

from swell.model.workload import Entry, Method, Web

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


APP = """
    import asyncio, time
    counter = open("counter", "ab", buffering=0)
    HEAD = {"type": "http.response.start", "status": 200, "headers": []}

    async def answer(send, more_body=False):
        await send(HEAD)
        await send({"type": "http.response.body", "body": b"last", "more_body": more_body})

    async def waits(send):
        try: await asyncio.sleep(60)
        finally: spend()

    async def answers(send):
        try: await asyncio.sleep(60)
        except asyncio.CancelledError: await answer(send)

    async def streams(send):
        try: await asyncio.sleep(60)
        except asyncio.CancelledError: await answer(send, more_body=True)

    async def returns(send):
        try: await asyncio.sleep(60)
        except asyncio.CancelledError: pass

    async def raises(send):
        await send(HEAD)
        try: await asyncio.sleep(60)
        finally: raise ValueError("last")

    async def deaf(send):
        for _ in range(2):
            try: await asyncio.sleep(60)
            except asyncio.CancelledError: pass

    async def begun(send):
        await answer(send, more_body=True)
        try: await asyncio.sleep(60)
        finally: print("stopped")

    async def background(send):
        await answer(send)
        try: await asyncio.sleep(60)
        finally: print("stopped")

    def spend():
        end = time.thread_time() + 0.05
        while time.thread_time() < end: counter.write(b".")

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await globals()[scope["path"][1:]](send)

    def thing():
        return app
"""
APP_ENTRY = Entry("user_code", "thing", "function", (Method("thing", web=Web("asgi", "label")),))
WEB = {"Swell-Web": "thing", "Swell-Remaining-Ms": "300"}


@pytest.mark.parametrize("name", ["waits", "answers", "streams", "returns", "raises"])
def test_a_late_web_app_has_stopped_before_its_one_answer_which_tells_what_it_used(name: str) -> None:
    with ready_replica(APP, APP_ENTRY, cancel_grace_s=10.0) as replica:
        status, headers, body = replica.request(f"/{name}", headers=WEB)
        assert (status, msgspec.json.decode(body)["error"]["code"]) == (504, "deadline")
        assert headers["swell-error"] == "504 deadline"
        if name == "waits":
            assert int(headers["swell-cpu-us"]) >= 50_000, "with what it did when it was stopped"
        assert int(headers["swell-run-us"]) > 0
        assert stops_growing(replica.folder / "counter")
        assert replica.request("/returns", headers=WEB)[0] == 504, "its slot is free"


def test_the_caller_of_a_web_app_that_does_not_stop_at_once_is_told_without_what_it_uses() -> None:
    with ready_replica(APP, APP_ENTRY) as replica:
        status, headers, _ = replica.request("/deaf", headers=WEB)
        assert (status, headers["swell-error"]) == (504, "504 deadline")
        assert "swell-cpu-us" not in headers


def test_a_web_answer_that_has_begun_is_cut_at_its_deadline_and_a_whole_one_stays() -> None:
    with ready_replica(APP, APP_ENTRY) as replica:
        with replica.begin("/begun", headers="".join(f"{name}: {value}\r\n" for name, value in WEB.items())) as sock:
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"4\r\nlast\r\n"), "not ended: it is not whole"
        until(lambda: len(replica.printed("stopped")) == 1, "it was stopped")
        assert replica.request("/background", headers=WEB)[2] == b"last"
        until(lambda: len(replica.printed("stopped")) == 2, "it was stopped")
