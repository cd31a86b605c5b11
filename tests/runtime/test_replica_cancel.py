"""Work stops when its caller leaves or its deadline passes: proved by a file that the user's code appends to."""

from __future__ import annotations

import socket
import time

import msgspec
import pytest
from replica_harness import ReplicaProcess, cls, function, ready_replica, stops_growing, until

from swell.model.workload import Entry, Method, Web
from swell.wire.child import Stuck

pytestmark = pytest.mark.slow

SOURCE = """
    import asyncio, time
    from swell.wire.context import InputCancellation
    counter = open("counter", "ab", buffering=0)

    class Thing:
        def loop(self):
            while True:
                counter.write(b".")

        def loop_deaf(self):
            for _ in range(2):
                try:
                    while True: counter.write(b".")
                except InputCancellation:
                    pass

        def loop_tidy(self):
            try:
                while True: counter.write(b".")
            finally:
                print("tidied up")

        async def wait(self):
            try:
                while True:
                    counter.write(b".")
                    await asyncio.sleep(0.005)
            finally:
                print("tidied up")

        def items(self):
            try:
                while True:
                    counter.write(b".")
                    time.sleep(0.005)
                    yield 1
            finally:
                print("tidied up")

        def big_items(self):
            try:
                while True:
                    counter.write(b".")
                    yield "x" * 100_000
            finally:
                print("tidied up")

        async def items_async(self):
            try:
                while True:
                    counter.write(b".")
                    await asyncio.sleep(0.005)
                    yield 1
            finally:
                print("tidied up")

        async def big_items_async(self):
            try:
                while True:
                    counter.write(b".")
                    yield "x" * 100_000
            finally:
                print("tidied up")

        def sleep(self, seconds: float):
            counter.write(b".")
            time.sleep(seconds)

        async def deaf(self, seconds: float):
            counter.write(b".")
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                try:
                    await asyncio.sleep(0.05)
                except asyncio.CancelledError:
                    pass

        def echo(self, value: int):
            return value
"""
TIDY = ["loop_tidy", "wait", "items", "items_async", "big_items", "big_items_async"]
NAMES = [*TIDY, "loop", "loop_deaf", "sleep", "deaf", "echo"]
ENTRY = Entry("user_code", "Thing", "cls", tuple(Method(name) for name in NAMES))


def run_and_leave(replica: ReplicaProcess, method: str, body: bytes = b"") -> None:
    counter = replica.folder / "counter"
    before = counter.stat().st_size
    sock = replica.begin(f"/call/{method}", body)
    until(lambda: counter.stat().st_size > before, "it runs")
    sock.close()


@pytest.mark.parametrize("method", ["loop", *TIDY])
def test_a_caller_that_leaves_stops_the_work(method: str) -> None:
    with ready_replica(SOURCE, ENTRY) as replica:
        for round_ in range(3):
            run_and_leave(replica, method)
            until(lambda: replica.request("/call/echo", b"[5]")[2] == b"5", "the slot is free")
            assert stops_growing(replica.folder / "counter")
            if method in TIDY:
                until(lambda n=round_: len(replica.printed("tidied up")) == n + 1, "the cleanup")
        assert not replica.printed("Traceback")
        assert replica.process.poll() is None


LIMIT = "0.2 s (timeout= of the function)"


@pytest.mark.parametrize("method", ["loop", *TIDY])
def test_a_deadline_stops_the_work_and_tells_the_caller(method: str) -> None:
    with ready_replica(SOURCE, ENTRY) as replica:
        status, headers, body = replica.request(
            f"/call/{method}", headers={"Swell-Remaining-Ms": "200", "Swell-Limit": LIMIT}
        )
        assert b'"code":"deadline"' in body
        assert f"The deadline of {LIMIT} passed while it ran; it was told to stop.".encode() in body
        assert status == (200 if "items" in method else 504)
        if status == 504:
            # How much of either it had depends on what else runs on the machine.
            assert int(headers["swell-run-us"]) > 0
            assert int(headers["swell-cpu-us"]) > 0
        # It was answered once the code had stopped.
        assert replica.call("echo", [5]) == 5
        assert stops_growing(replica.folder / "counter")


@pytest.mark.parametrize("method", ["sleep", "deaf"])
def test_the_caller_of_code_that_does_not_stop_is_told_so_before_it_has(method: str) -> None:
    with ready_replica(SOURCE, ENTRY, max_inputs=2) as replica:
        answer = replica.request(f"/call/{method}", b"[3.0]", headers={"Swell-Remaining-Ms": "200"})
        assert (answer[0], b'"code":"deadline"' in answer[2]) == (504, True)
        assert replica.hear() == Stuck(requests=("q1",), ending=False)


def test_an_interruption_never_reaches_the_next_input() -> None:
    """Inputs that end at about the moment they are cancelled, one after the other on one thread."""
    with ready_replica(SOURCE, ENTRY) as replica:
        for n in range(300):
            sock = replica.begin("/call/sleep", b"[0.0005]")
            time.sleep(0.0001 * (n % 12))
            sock.close()
            status, _, body = replica.request("/call/echo", b"[%d]" % n)
            assert (status, body) in [(200, b"%d" % n), (503, body)]
        until(lambda: replica.request("/call/echo", b"[1]")[2] == b"1", "the slot is free")
        assert replica.process.poll() is None
        assert not replica.printed("Traceback")


@pytest.mark.parametrize("method", ["sleep", "deaf"])
def test_what_cannot_be_stopped_ends_a_replica_with_one_slot(method: str) -> None:
    with ready_replica(SOURCE, ENTRY, cancel_grace_s=0.2) as replica:
        run_and_leave(replica, method, b"[60]")
        assert replica.hear() == Stuck(requests=("q9",), ending=True)
        assert replica.wait() == 75


@pytest.mark.parametrize("method", ["sleep", "deaf"])
def test_what_cannot_be_stopped_is_listed_where_there_are_more_slots(method: str) -> None:
    with ready_replica(SOURCE, ENTRY, cancel_grace_s=0.2, max_inputs=2) as replica:
        run_and_leave(replica, method, b"[4.0]")
        assert replica.hear() == Stuck(requests=("q9",), ending=False)
        assert replica.call("echo", [1]) == 1
        other = replica.begin("/call/sleep", b"[2.0]")
        until(lambda: replica.request("/call/echo", b"[1]")[0] == 503, "it still fills its slot")
        assert replica.hear() == Stuck(requests=(), ending=False)
        other.close()


def test_code_that_ignores_the_first_interruption_gets_a_second() -> None:
    with ready_replica(SOURCE, ENTRY) as replica:
        run_and_leave(replica, "loop_deaf")
        until(lambda: replica.request("/call/echo", b"[5]")[2] == b"5", "the slot is free")
        assert replica.process.poll() is None


@pytest.mark.parametrize("method", ["cleans_up", "cleans_up_items", "cleans_up_inside"])
def test_code_that_cleans_up_after_an_interruption_is_not_interrupted_in_it(method: str) -> None:
    source = """
        import time
        counter = open("counter", "ab", buffering=0)

        def work():
            while True: counter.write(b".")

        def tidy():
            until = time.monotonic() + 1.2
            while time.monotonic() < until:
                pass
            print("tidied up")

        class Thing:
            def cleans_up(self):
                try:
                    work()
                finally:
                    tidy()

            def cleans_up_items(self):
                try:
                    while True:
                        counter.write(b".")
                        yield 1
                finally:
                    tidy()

            def cleans_up_inside(self):
                try:
                    work()
                finally:
                    try:
                        raise KeyError("of the cleanup's own")
                    except KeyError:
                        tidy()

            def echo(self, value: int):
                return value
    """
    names = ("cleans_up", "cleans_up_items", "cleans_up_inside", "echo")
    with ready_replica(source, cls(*names), cancel_grace_s=2.0) as replica:
        run_and_leave(replica, method)
        until(lambda: replica.printed("tidied up"), "the cleanup")
        until(lambda: replica.request("/call/echo", b"[5]")[2] == b"5", "the slot is free")


def test_a_body_that_never_ends_fills_its_slot_no_longer_than_its_caller_or_deadline() -> None:
    with ready_replica(SOURCE, ENTRY) as replica:
        sock = replica.begin_incomplete("/call/echo")
        until(lambda: replica.request("/call/echo", b"[5]")[0] == 503, "the slot is taken")
        sock.close()
        until(lambda: replica.request("/call/echo", b"[5]")[0] == 200, "the slot is free")
        sock = replica.begin_incomplete("/call/echo", "Swell-Remaining-Ms: 200\r\n")
        assert b" 504 " in sock.recv(4096)
        assert replica.call("echo", [1]) == 1
        sock.close()


def test_deadlines_are_kept_with_many_inputs_at_once() -> None:
    source = """
        import asyncio
        async def thing(): await asyncio.sleep(60)
    """
    with ready_replica(source, function(asynchronous=True), max_inputs=10) as replica:
        socks = [replica.begin("/call/thing", headers=f"Swell-Remaining-Ms: {300 - 30 * n}\r\n") for n in range(8)]
        for sock in socks:
            answer = sock.recv(4096)
            assert answer.startswith(b"HTTP/1.1 504")
            assert msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["error"]["request"] == "q9"
            sock.close()


@pytest.mark.parametrize(("name", "status"), [("blocks_the_loop", 75), ("holds_the_lock", 1)])
def test_code_that_stops_everything_is_ended_after_its_deadline_with_its_traceback(name: str, status: int) -> None:
    source = """
        import re
        async def blocks_the_loop():
            while True: pass
        def holds_the_lock():
            re.match("(a|aa)+$", "a" * 60 + "b")
    """
    with ready_replica(source, function(name), cancel_grace_s=0.2) as replica:
        sock = replica.begin(f"/call/{name}", headers="Swell-Remaining-Ms: 300\r\n")
        assert replica.wait() == status
        assert replica.printed(f"in {name}")
        sock.close()


BLOCKING = """
    import os, time
    counter = open("counter", "ab", buffering=0)

    class Thing:
        async def naps(self, seconds: float):
            counter.write(b".")
            time.sleep(seconds)

        async def spins(self, seconds: float):
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                counter.write(b".")

        async def yields(self, seconds: float):
            yield 1
            await self.spins(seconds)

        async def page(self, scope, receive, send):
            if scope["type"] == "http":
                await self.spins(60.0)

        def pages(self):
            return self.page
"""
BLOCKS = ["naps", "spins", "yields"]
BLOCKING_ENTRY = Entry(
    "user_code", "Thing", "cls", (*(Method(name) for name in BLOCKS), Method("pages", web=Web("asgi", "label")))
)


@pytest.mark.parametrize("method", BLOCKS)
def test_code_that_blocks_the_loop_after_its_caller_left_ends_a_replica_with_one_slot(method: str) -> None:
    with ready_replica(BLOCKING, BLOCKING_ENTRY, cancel_grace_s=0.2) as replica:
        run_and_leave(replica, method, b"[60]")
        assert replica.hear() == Stuck(requests=("q9",), ending=True)
        assert replica.wait() == 75
        assert len(replica.printed("blocks the event loop")) == 1
        frames = [text for _, _, text in replica.lines if text.startswith("  File ")]
        assert frames[0].endswith(f", in {method}")
        assert all(text.startswith('  File "user_code.py", line ') for text in frames), frames


def test_a_web_app_that_blocks_the_loop_after_its_caller_left_ends_too() -> None:
    with ready_replica(BLOCKING, BLOCKING_ENTRY, cancel_grace_s=0.2) as replica:
        counter = replica.folder / "counter"
        sock = replica.begin("/", headers="Swell-Web: pages\r\n", method="GET")
        until(lambda: counter.stat().st_size > 0, "it runs")
        sock.close()
        assert replica.hear() == Stuck(requests=("q9",), ending=True)
        assert replica.wait() == 75


@pytest.mark.parametrize("method", BLOCKS)
def test_code_that_blocks_the_loop_is_listed_where_there_are_more_slots(method: str) -> None:
    with ready_replica(BLOCKING, BLOCKING_ENTRY, cancel_grace_s=0.2, max_inputs=2) as replica:
        for _ in range(2):
            run_and_leave(replica, method, b"[2.0]")
            assert replica.hear() == Stuck(requests=("q9",), ending=False)
            assert replica.hear() == Stuck(requests=(), ending=False)
            assert replica.call("naps", [0.0]) is None
        assert replica.process.poll() is None


def test_code_that_blocks_the_loop_for_a_caller_that_waits_is_let_be_whatever_others_do() -> None:
    with ready_replica(BLOCKING, BLOCKING_ENTRY, cancel_grace_s=0.2, max_inputs=1) as replica:
        assert replica.call("naps", [2.0]) is None
        # Shorter than the grace, again and again, with a caller that left each time.
        for _ in range(5):
            run_and_leave(replica, "naps", b"[0.05]")
            until(lambda: replica.request("/call/naps", b"[0.0]")[0] == 200, "the slot is free")
        assert replica.process.poll() is None


def test_a_loop_that_is_blocked_within_its_deadline_is_let_be() -> None:
    source = """
        import time
        async def thing(seconds: float): time.sleep(seconds)
    """
    with ready_replica(source, function(), cancel_grace_s=0.2) as replica:
        assert replica.call("thing", [0.01], Swell_Remaining_Ms="200") is None
        assert replica.call("thing", [4.0], Swell_Remaining_Ms="60000") is None
        time.sleep(1.5)
        assert replica.call("thing", [0.01], Swell_Remaining_Ms="60000") is None


def test_a_thread_looks_on_only_where_code_runs_on_the_loop() -> None:
    source = """
        import threading

        class Threads:
            def plain(self):
                return [thread.name for thread in threading.enumerate()]

            async def on_loop(self):
                return self.plain()
    """
    entry = Entry("user_code", "Threads", "cls", (Method("plain"), Method("on_loop", asynchronous=True)))
    with ready_replica(source, entry) as replica:
        assert "swell-onlooker" not in replica.call("plain")
        assert "swell-onlooker" in replica.call("on_loop")


@pytest.mark.parametrize(("kind", "asks"), [("def", "it.remote"), ("async def", "await it.remote.aio")])
def test_a_call_that_waits_for_another_ends_with_its_own_deadline_and_the_replica_goes_on(kind: str, asks: str) -> None:
    source = f"""
        import swell
        class Thing:
            {kind} ask(self):
                it = swell.Function.from_name("other", "f")
                try:
                    return {asks}()
                except Exception as error:
                    print("went on after", error)
                finally:
                    print("tidied up")
            def other(self):
                return "served"
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        ready_replica(source, cls("ask", "other"), gateway_url=f"http://127.0.0.1:{other.getsockname()[1]}") as replica,
    ):
        answer = replica.begin("/call/ask", b"[]", "Swell-Remaining-Ms: 5000\r\n")
        other.settimeout(30)
        inner, _ = other.accept()
        inner.settimeout(30)
        asked = b""
        while b"\r\n\r\n" not in asked:
            more = inner.recv(65536)
            assert more, asked
            asked += more
        left_s = float(asked.lower().partition(b"swell-timeout: ")[2].split()[0])
        assert 0 < left_s <= 5.0
        # Nobody answers. At its deadline the one that waits is ended, and so is its connection.
        assert b" 504 " in answer.recv(65536)
        while inner.recv(65536):
            pass
        inner.close()
        answer.close()
        assert replica.call("other") == "served"
        until(lambda: replica.printed("tidied up"), "it was stopped")
        assert not replica.printed("went on")
