"""A replica's start, its failures, its runner's death and its end."""

from __future__ import annotations

import socket
import time
from http.client import HTTPConnection

import pytest
from replica_harness import ReplicaProcess, cls, function, ready_replica, until

from swell.model.workload import Entry, Method, Web
from swell.wire.child import Drain, Left, Mount, Reattach

PLAIN = """
    def thing(value: int = 1):
        return value
"""

CANCELS = """
    import asyncio
    class Thing:
        async def awaits(self):
            # What is to end with the replica is cancelled, and its end waited for: a usual slip.
            task = asyncio.create_task(asyncio.sleep(60))
            task.cancel()
            await task

        def runs(self):
            asyncio.run(self.awaits())

        def last(self):
            print("last")
"""


@pytest.mark.parametrize(
    ("source", "entry", "says"),
    [
        ("class Thing:\n    def start(self): raise ValueError('no model')", cls(enter=("start",)), "no model"),
        ("class Thing:\n    async def start(self): raise ValueError('no model')", cls(enter=("start",)), "no model"),
        ("class Thing:\n    def start(self): raise SystemExit('no model')", cls(enter=("start",)), "no model"),
        ("class Thing:\n    async def start(self): raise SystemExit('no model')", cls(enter=("start",)), "no model"),
        (CANCELS, cls(enter=("awaits",)), "RuntimeError: it let CancelledError out"),
        (CANCELS, cls(enter=("runs",)), "RuntimeError: it let CancelledError out"),
    ],
)
def test_a_start_up_hook_that_raises_is_told_with_its_traceback(source: str, entry: Entry, says: str) -> None:
    with ReplicaProcess(source, entry) as replica:
        failed = replica.failed()
        assert failed.reason == "enter_error"
        assert says in failed.detail
        assert "user_code.py" in failed.detail
        assert "swell/runtime" not in failed.detail
        assert replica.wait() == 0
        assert replica.printed(says)


def test_threads_get_the_interpreter_soon_but_from_what_is_known_to_be_over_soon() -> None:
    """Else code of many system calls keeps it, and a cancel waits for seconds (journey/test_deadline.py)."""
    source = "import sys, time\ndef thing(s=0.0):\n    time.sleep(s)\n    return sys.getswitchinterval()"
    with ready_replica(source, function()) as replica:
        seen = [replica.call("thing") for _ in range(30)]
        assert (seen[0], seen[-1]) == (pytest.approx(0.0001), pytest.approx(0.005))
        replica.call("thing", {"s": 0.2})
        assert replica.call("thing") == pytest.approx(0.0001)


@pytest.mark.slow
def test_a_short_function_that_is_long_for_once_is_seen_to_be_while_it_runs() -> None:
    """It ends by itself once others get the interpreter soon; else nothing but its deadline would end it."""
    source = """
        import os, sys, time
        file = os.open(os.devnull, os.O_WRONLY)

        def thing(hang=False):
            end = time.monotonic() + 30
            while hang and sys.getswitchinterval() > 0.001 and time.monotonic() < end:
                pause = time.perf_counter() + 0.0005
                while time.perf_counter() < pause:
                    pass
                os.write(file, b".")
            return sys.getswitchinterval()
    """
    with ready_replica(source, function()) as replica:
        assert [replica.call("thing") for _ in range(30)][-1] == pytest.approx(0.005)
        assert replica.call("thing", {"hang": True}) == pytest.approx(0.0001)
        # Known to be short again after a while.
        assert [replica.call("thing") for _ in range(200)][-1] == pytest.approx(0.005)


def test_a_switch_interval_that_user_code_chose_stays() -> None:
    source = "import sys\nsys.setswitchinterval(0.02)\ndef thing():\n    return sys.getswitchinterval()"
    with ready_replica(source, function()) as replica:
        assert {round(replica.call("thing"), 6) for _ in range(30)} == {0.02}


def test_a_drain_during_start_up_ends_it() -> None:
    source = """
        import time
        class Thing:
            def start(self):
                print("starting")
                time.sleep(600)
    """
    with ReplicaProcess(source, cls(enter=("start",))) as replica:
        until(lambda: replica.printed("starting"), "the hook runs")
        replica.tell(Drain(reason="test"))
        assert replica.wait() == 0


def test_it_serves_on_when_its_runner_dies_and_is_adopted_by_the_next() -> None:
    with ReplicaProcess(PLAIN, function()) as replica:
        ready = replica.ready()
        assert ready.keeps
        pid = ready.pid
        replica.channel.close()
        assert replica.call("thing") == 1
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as runner:
            runner.settimeout(20)
            runner.bind(replica.runner_path)
            runner.listen()
            channel, _ = runner.accept()
        here = replica.hear(channel)
        assert here == Reattach("r1-1", pid, True, ())
        assert replica.call("thing", [2]) == 2
        replica.channel = channel
        replica.tell(Drain(reason="test"))
        assert replica.wait() == 0


def test_it_comes_back_as_often_as_its_runner_dies_and_ends_when_it_is_not_wanted() -> None:
    with ready_replica(PLAIN, function()) as replica, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as runner:
        runner.settimeout(20)
        runner.bind(replica.runner_path)
        runner.listen()
        replica.channel.close()
        for _ in range(3):
            replica.channel, _ = runner.accept()
            assert isinstance(replica.hear(), Reattach)
            replica.channel.close()
        replica.channel, _ = runner.accept()
        assert isinstance(replica.hear(), Reattach)
        replica.tell(Drain(reason="not wanted"))
        assert replica.wait() == 0


def test_it_ends_when_no_runner_comes_back() -> None:
    with ready_replica(PLAIN, function(), orphan_s=0.3) as replica:
        replica.channel.close()
        assert replica.wait() == 0


def test_exit_hooks_all_run_even_when_one_raises() -> None:
    source = """
        import asyncio, sys
        class Thing:
            def one(self): raise ValueError("first")
            def two(self): sys.exit("second")
            async def three(self): sys.exit("third")
            async def four(self): print("fourth")
    """
    with ReplicaProcess(source, cls(exit=("one", "two", "three", "four"))) as replica:
        replica.ready()
        replica.tell(Drain(reason="test"))
        assert replica.wait() == 0
        assert replica.printed("ValueError: first")
        assert replica.printed("it called sys.exit('second')")
        assert replica.printed("it called sys.exit('third')")
        assert replica.printed("fourth")


def test_an_exit_hook_that_lets_a_cancellation_out_keeps_nothing_from_what_comes_behind_it() -> None:
    mounts = (Mount("default", "data", "v-1", 1, "/data", "/nowhere", "/nowhere"),)
    with ready_replica(CANCELS, cls(exit=("awaits", "runs", "last")), mounts=mounts) as replica:
        replica.tell(Drain(reason="test"))
        assert replica.hear() == Left()
        assert replica.wait() == 0
        assert len(replica.printed("raised at exit")) == 2
        assert replica.printed("last")


def test_an_application_whose_lifespan_lets_a_cancellation_out_is_served_and_ends() -> None:
    source = """
        import asyncio
        def thing():
            async def app(scope, receive, send):
                if scope["type"] == "lifespan":
                    await receive()
                    if {early}:
                        raise asyncio.CancelledError
                    await send({{"type": "lifespan.startup.complete"}})
                    await receive()
                    raise asyncio.CancelledError
                await send({{"type": "http.response.start", "status": 200, "headers": []}})
                await send({{"type": "http.response.body", "body": b"served"}})
            return app
    """
    entry = Entry("user_code", "thing", "function", (Method("thing", web=Web("asgi", "label")),))
    for early in (True, False):
        with ready_replica(source.format(early=early), entry) as replica:
            assert replica.request("/", headers={"Swell-Web": "thing"})[2] == b"served"
            replica.tell(Drain(reason="test"))
            assert replica.wait() == 0


def test_what_start_up_hooks_put_in_context_is_seen_by_inputs_and_not_changed_by_them() -> None:
    source = """
        from contextvars import ContextVar
        model = ContextVar("model", default="none")
        other = ContextVar("other", default="none")
        class Thing:
            def start(self): model.set("loaded")
            async def start_async(self): other.set("loaded")
            def read(self):
                seen = model.get()
                model.set("spoilt")
                return seen
            async def read_async(self):
                seen = other.get()
                other.set("spoilt")
                return seen
    """
    entry = Entry("user_code", "Thing", "cls", (Method("read"), Method("read_async")), enter=("start", "start_async"))
    with ready_replica(source, entry) as replica:
        for _ in range(2):
            assert replica.call("read") == "loaded"
            assert replica.call("read_async") == "loaded"


LEAVES = """
    import swell.runtime.replica
    swell.runtime.replica.LEFT_S = {left_s}
    class Thing:
        def run(self):
            return 1
        def leave(self):
            open("left", "w").close()
"""


def called_and_draining(replica: ReplicaProcess) -> HTTPConnection:
    """A gateway's connection, over which it was called before it was to drain."""
    connection = replica.connect()
    connection.request("POST", "/call/run", b"[]")
    assert connection.getresponse().read() == b"1"
    replica.tell(Drain(reason="idle"))
    return connection


def test_one_that_drains_is_there_until_its_gateways_have_left() -> None:
    with ready_replica(LEAVES.format(left_s=60.0), cls("run", exit=("leave",))) as replica:
        connection = called_and_draining(replica)
        # That it is off the table has not been heard for a while; more than comes in one piece is sent.
        time.sleep(0.5)
        connection.request("POST", "/call/run", b"[]" + b" " * 40_000)
        refused = connection.getresponse()
        assert (refused.status, refused.headers["Swell-Busy"]) == (503, "1")
        refused.read()
        assert not (replica.folder / "left").exists()
        connection.close()
        assert replica.wait() == 0
        assert (replica.folder / "left").exists()


def test_one_that_drains_does_not_wait_for_long_for_a_gateway_that_does_not_leave() -> None:
    with ready_replica(LEAVES.format(left_s=0.2), cls("run", exit=("leave",))) as replica:
        connection = called_and_draining(replica)
        assert replica.wait() == 0
        assert (replica.folder / "left").exists()
        connection.close()


def test_one_that_drains_says_so_to_the_next_runner() -> None:
    source = """
    import os, time
    def thing():
        open("begun", "w").close()
        while not os.path.exists("over"):
            time.sleep(0.01)
    """
    with ready_replica(source, function()) as replica, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as runner:
        runner.settimeout(60)
        runner.bind(replica.runner_path)
        runner.listen()
        sock = replica.begin("/call/thing")
        until(lambda: (replica.folder / "begun").exists(), "it runs")
        replica.tell(Drain(reason="idle"))
        replica.channel.close()
        replica.channel, _ = runner.accept()
        here = replica.hear()
        assert isinstance(here, Reattach)
        assert (here.ready, here.closed) == (True, "idle")
        (replica.folder / "over").touch()
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        assert replica.wait() == 0
        sock.close()


@pytest.mark.parametrize("told", ["", "preempted"])
def test_one_that_has_the_input_that_it_was_for_comes_back_as_it_was(told: str) -> None:
    source = """
    import pathlib, time
    def thing():
        pathlib.Path("begun").touch()
        while not pathlib.Path("over").exists():
            time.sleep(0.01)
        return 1
    """
    with (
        ready_replica(source, function(), single_use=True) as replica,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as runner,
    ):
        runner.settimeout(60)
        runner.bind(replica.runner_path)
        runner.listen()
        with replica.begin("/call/thing") as sock:
            until(lambda: (replica.folder / "begun").exists(), "it runs")
            if told:
                replica.tell(Drain(told))
            replica.channel.close()
            replica.channel, _ = runner.accept()
            here = replica.hear()
            assert isinstance(here, Reattach)
            # The next runner says the reason to control; without one, that it is ready still.
            assert here.closed == told
            (replica.folder / "over").touch()
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        assert replica.wait() == 0
