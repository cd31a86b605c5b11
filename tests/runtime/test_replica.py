"""A replica's calls, as its gateway sees them."""

from __future__ import annotations

import base64
import pickle
import random
import socket
from collections.abc import Iterator

import msgspec
import pytest
from replica_harness import ReplicaProcess, cls, function, ready_replica, until

from swell.model.tensors import Tensor, Tensors
from swell.model.workload import Entry, Method
from swell.wire.child import Drain, Served
from swell.wire.http import FRAMES, MSGPACK, OCTETS, PICKLE

SOURCE = """
    import asyncio, os, threading, time, sys
    from dataclasses import dataclass
    from swell.wire.context import current, inside

    @dataclass
    class Point:
        x: int
        y: float = 0.5

    class Thing:
        def __init__(self):
            self.threads = [threading.get_ident()]

        def start(self):
            self.threads.append(threading.get_ident())

        async def start_async(self):
            self.loop = asyncio.get_running_loop()

        def stop(self):
            print("stopped well")

        def echo(self, values: list[float]):
            return [2 * value for value in values]

        def typed(self, point: Point, data: bytes = b"", *, scale: int = 1):
            return {"x": point.x * scale, "y": point.y, "data": data}

        def anything(self, *args, **kwargs):
            return [args, kwargs]

        def where(self):
            assert self.threads[1] == threading.get_ident() != self.threads[0]
            now = current.get()
            return [now.request, now.remaining_s(), inside[0].app, inside[0].call_key]

        def blob(self):
            return b"\\x00\\xff"

        def fail(self):
            raise LookupError("nothing found")

        def unanswerable(self):
            return [threading.Lock()]

        def leave(self):
            sys.exit(3)

        async def wait(self, seconds: float = 0.0):
            assert asyncio.get_running_loop() is self.loop
            await asyncio.sleep(seconds)
            return current.get().request

        async def fail_async(self):
            await asyncio.sleep(0)
            raise KeyError("gone")

        def say(self, text: str):
            print(text, end="")
            print("to err", file=sys.stderr)

        def sleep(self, seconds: float):
            time.sleep(seconds)

        def burn(self, seconds: float):
            began = time.thread_time()
            while time.thread_time() - began < seconds: pass

        async def burn_async(self, seconds: float):
            self.burn(seconds)
"""

NAMES = ("echo", "typed", "anything", "where", "blob", "fail", "unanswerable", "leave", "wait", "fail_async")
NAMES += ("say", "sleep", "burn", "burn_async")
HOOKS = {"enter": ("start", "start_async"), "exit": ("stop",)}


@pytest.fixture(scope="module")
def replica() -> Iterator[ReplicaProcess]:
    with ready_replica(SOURCE, cls(*NAMES, **HOOKS)) as process:
        yield process


def test_call_answers_the_bare_result_with_what_it_used(replica: ReplicaProcess) -> None:
    status, headers, body = replica.request("/call/echo", b'{"values": [1, 2.5]}')
    assert (status, body, headers["content-type"]) == (200, b"[2.0,5.0]", "application/json")
    assert int(headers["swell-cpu-us"]) >= 0
    assert int(headers["swell-run-us"]) >= 0


def test_a_connection_serves_many_calls(replica: ReplicaProcess) -> None:
    connection = replica.connect()
    for n in range(50):
        connection.request("POST", "/call/echo", body=msgspec.json.encode([[n]]))
        answer = connection.getresponse()
        assert answer.read() == msgspec.json.encode([2.0 * n])
    connection.close()


def test_arguments_are_converted_to_the_annotations(replica: ReplicaProcess) -> None:
    assert replica.call("typed", {"point": {"x": 2}, "data": "aGk=", "scale": 3}) == {"x": 6, "y": 0.5, "data": "aGk="}
    assert replica.call("anything", [1, "two"]) == [[1, "two"], {}]
    assert replica.call("anything", {"a": 1}) == [[], {"a": 1}]
    packed = msgspec.msgpack.encode({"point": {"x": 1}, "data": b"hi"})
    status, headers, body = replica.request("/call/typed", packed, {"Content-Type": MSGPACK, "Accept": MSGPACK})
    assert msgspec.msgpack.decode(body) == {"x": 1, "y": 0.5, "data": b"hi"}
    assert headers["content-type"] == MSGPACK
    status, _, body = replica.request("/call/anything", b"raw", {"Content-Type": OCTETS})
    assert status == 200
    assert body == b'[["cmF3"],{}]'


@pytest.mark.parametrize(
    ("target", "body", "status", "code", "says"),
    [
        ("/call/typed", b'{"point": {"x": "two"}}', 422, "bad_arguments", "'point.x'"),
        ("/call/typed", b"{}", 422, "bad_arguments", "'point' is missing"),
        ("/call/echo", b'{"values": [], "more": 1}', 422, "bad_arguments", "no argument 'more'"),
        ("/call/echo", b"[[], 1]", 422, "bad_arguments", "at most 1"),
        ("/call/echo", b"5", 422, "bad_arguments", "object of keyword arguments"),
        ("/call/echo", b"{", 400, "bad_body", "not valid"),
        ("/call/eco", b"{}", 404, "unknown_function", "echo"),
    ],
)
def test_bad_input_is_named(
    replica: ReplicaProcess, target: str, body: bytes, status: int, code: str, says: str
) -> None:
    got, _, answer = replica.request(target, body)
    error = msgspec.json.decode(answer)["error"]
    assert (got, error["code"], error["request"]) == (status, code, "q1")
    assert says in error["message"]


def test_unknown_types_and_methods_are_refused(replica: ReplicaProcess) -> None:
    assert replica.request("/call/echo", b"a=1", {"Content-Type": "application/x-www-form-urlencoded"})[0] == 400
    status, headers, _ = replica.request("/call/echo", method="GET")
    assert status == 405
    assert headers["allow"] == "POST"


def test_user_code_sees_its_request_and_its_thread(replica: ReplicaProcess) -> None:
    request, remaining, app, key = replica.call("where", Swell_Request_Id="abc", Swell_Remaining_Ms="60000")
    assert (request, app, key) == ("abc", "default/app", "call-key")
    assert 50 < remaining <= 60
    assert replica.call("wait", Swell_Request_Id="def") == "def"


def test_bytes_are_answered_as_they_are_unless_another_type_is_asked_for(replica: ReplicaProcess) -> None:
    _, headers, body = replica.request("/call/blob")
    assert (headers["content-type"], body) == (OCTETS, b"\x00\xff")
    assert replica.request("/call/blob", headers={"Accept": "application/json"})[2] == b'"AP8="'


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("fail", "LookupError: nothing found"),
        ("leave", "SystemExit: 3"),
        ("fail_async", "KeyError: 'gone'"),
    ],
)
def test_an_exception_is_a_500_and_its_traceback_is_in_the_log(
    replica: ReplicaProcess, method: str, message: str
) -> None:
    request = f"failing-{method}"
    status, _, body = replica.request(f"/call/{method}", headers={"Swell-Request-Id": request})
    assert status == 500
    assert msgspec.json.decode(body)["error"] == {"code": "exception", "message": message, "request": request}
    until(lambda: [line for line in replica.printed(message) if line[:2] == ("err", request)], "the traceback")
    traceback = [text for stream, of, text in replica.lines if of == request]
    assert traceback[0].startswith("Traceback")
    assert not any("swell/runtime" in text for text in traceback)


def test_a_result_that_cannot_be_encoded_says_which_types_can(replica: ReplicaProcess) -> None:
    status, _, body = replica.request("/call/unanswerable")
    error = msgspec.json.decode(body)["error"]
    assert status == 500
    assert error["code"] == "bad_result"
    assert "lock" in error["message"]
    assert "dataclasses" in error["message"]


RAGGED = """
    class Result:
        def __array__(self, *args, **kwargs):
            raise RuntimeError("no longer there")

    def thing(x):
        return Result()
"""


def test_what_a_result_raises_when_it_is_written_is_told_as_it_is() -> None:
    entry = function(tensors=Tensors((Tensor("x", "FP32", (1,)),), (Tensor("y", "FP32", (1,)),)))
    asked = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}
    with ready_replica(RAGGED, entry) as process:
        status, _, body = process.request("/v2/thing", msgspec.json.encode(asked))
        assert (status, msgspec.json.decode(body)) == (500, {"error": "RuntimeError: no longer there"})


def test_pickles_need_the_key(replica: ReplicaProcess) -> None:
    body = pickle.dumps((([1.5],), {}))
    trusted = {"Content-Type": PICKLE, "Accept": PICKLE, "Swell-Trusted": "1"}
    status, headers, answer = replica.request("/call/echo", body, trusted)
    assert (status, headers["content-type"], pickle.loads(answer)) == (200, PICKLE, [3.0])
    for header in ("Content-Type", "Accept"):
        status, _, answer = replica.request("/call/echo", body, {header: PICKLE})
        assert status == 401
        assert msgspec.json.decode(answer)["error"]["code"] == "no_key"
    error = msgspec.json.decode(replica.request("/call/fail", pickle.dumps(((), {})), trusted)[2])["error"]
    assert isinstance(pickle.loads(base64.b64decode(error["exception"])), LookupError)
    status, _, answer = replica.request("/call/echo", pickle.dumps(((), {"wrong": 1})), trusted)
    assert status == 422
    assert b"values" in answer


def test_prints_carry_their_request_even_without_a_newline(replica: ReplicaProcess) -> None:
    replica.call("say", {"text": "one\ntwo"}, Swell_Request_Id="talk")
    until(lambda: len([line for line in replica.lines if line[1] == "talk"]) == 3, "the lines")
    assert {line for line in replica.lines if line[1] == "talk"} == {
        ("out", "talk", "one"),
        ("out", "talk", "two"),
        ("err", "talk", "to err"),
    }


@pytest.mark.slow
def test_above_its_slots_it_says_busy_before_it_reads(replica: ReplicaProcess) -> None:
    running = replica.begin("/call/sleep", b"[1.0]")
    until(lambda: replica.request("/call/echo", b"[[1]]")[0] == 503, "busy")
    status, headers, _ = replica.request("/call/echo", b"[" + b" " * 1000 + b"[1]]")
    assert (status, headers["swell-busy"]) == (503, "1")
    # The body of this one never comes, and it is long: the answer does, and then the connection ends.
    sock = replica.begin("/call/echo", headers="X: y\r\n")
    sock.close()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(20)
    sock.connect(replica.path)
    sock.sendall(b"POST /call/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\nabc")
    answer = sock.recv(4096)
    assert b" 503 " in answer
    assert b"Connection: close" in answer
    assert b"Swell-Busy: 1" in answer
    sock.close()
    assert running.recv(4096).startswith(b"HTTP/1.1 200")
    running.close()
    assert replica.call("echo", [[1]]) == [2.0]


def test_busy_keeps_the_connection_after_a_short_body(replica: ReplicaProcess) -> None:
    running = replica.begin("/call/sleep", b"[0.7]")
    until(lambda: replica.request("/call/echo", b"[[1]]")[0] == 503, "busy")
    connection = replica.connect()
    connection.request("POST", "/call/echo", body=b"[[4]]")
    answer = connection.getresponse()
    assert answer.status == 503
    answer.read()
    assert running.recv(4096).startswith(b"HTTP/1.1 200")
    connection.request("POST", "/call/echo", body=b"[[4]]")
    assert connection.getresponse().read() == b"[8.0]"
    connection.close()
    running.close()


@pytest.mark.parametrize("method", ["burn", "burn_async"])
def test_cpu_time_is_that_of_the_input(replica: ReplicaProcess, method: str) -> None:
    _, headers, _ = replica.request(f"/call/{method}", b"[0.2]")
    assert 200_000 <= int(headers["swell-cpu-us"]) < 400_000
    _, headers, _ = replica.request("/call/sleep", b"[0.2]")
    assert int(headers["swell-cpu-us"]) < 100_000
    assert int(headers["swell-run-us"]) >= 200_000


def test_what_is_not_http_is_a_400(replica: ReplicaProcess) -> None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(20)
    sock.connect(replica.path)
    sock.sendall(b"nonsense\r\n\r\n")
    assert sock.recv(4096).startswith(b"HTTP/1.1 400")
    assert sock.recv(4096) == b""
    sock.close()


def test_a_request_before_its_turn_costs_the_connection(replica: ReplicaProcess) -> None:
    sock = replica.begin("/call/sleep", b"[0.3]")
    sock.sendall(b"POST /call/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n[[1]]")
    assert sock.recv(4096) == b""
    sock.close()


STREAMS = """
    import asyncio, threading, time
    seen = open("seen", "ab", buffering=0)

    def thing(n: int, fail: int = -1, size: int = 1):
        try:
            for i in range(n):
                if i == fail:
                    raise ValueError("at %d" % i)
                seen.write(b".")
                yield "x" * size if size > 1 else i
        finally:
            print("closed in", threading.current_thread().name)

    async def other(n: int, fail: int = -1, size: int = 1):
        try:
            for i in range(n):
                if i == fail:
                    raise ValueError("at %d" % i)
                seen.write(b".")
                yield "x" * size if size > 1 else i
                await asyncio.sleep(0)
        finally:
            print("closed in", threading.current_thread().name)
"""

both = pytest.mark.parametrize("name", ["thing", "other"])


@both
def test_a_generator_streams_events(name: str) -> None:
    with ready_replica(STREAMS, function(name, generator=True)) as replica:
        _, headers, body = replica.request(f"/call/{name}", b"[3]")
        assert headers["content-type"] == "text/event-stream"
        assert body == b"data: 0\n\ndata: 1\n\ndata: 2\n\nevent: end\ndata:\n\n"
        sock = replica.begin(f"/call/{name}", b"[1]")
        raw = b""
        while b"\r\n0\r\n" not in raw or not raw.endswith(b"\r\n\r\n"):
            raw += sock.recv(65536)
        sock.close()
        assert raw.split(b"\r\n0\r\n")[1].startswith(b"Swell-Cpu-Us: ")
        assert b"\r\nTrailer: Swell-Cpu-Us, Swell-Run-Us" in raw
        _, _, body = replica.request(f"/call/{name}", b'{"n": 3, "fail": 1}')
        first, error = body.split(b"\n\n")[:2]
        assert first == b"data: 0"
        assert error.startswith(b"event: error\ndata: ")
        told = msgspec.json.decode(error.partition(b"data: ")[2])["error"]
        assert (told["code"], told["message"]) == ("exception", "ValueError: at 1")
        assert replica.request(f"/call/{name}", b'{"n": "three"}')[0] == 422


@both
def test_a_generator_streams_frames_of_the_accepted_type(name: str) -> None:
    with ready_replica(STREAMS, function(name, generator=True)) as replica:
        wanted = {"Accept": f"{FRAMES}, {PICKLE}", "Swell-Trusted": "1"}
        _, headers, body = replica.request(f"/call/{name}", b'{"n": 4, "fail": 2}', wanted)
        assert (headers["content-type"], headers["swell-item-type"]) == (FRAMES, PICKLE)
        kinds, payloads = zip(*_frames(body), strict=True)
        assert kinds == (b"i", b"i", b"e")
        assert [pickle.loads(p) for p in payloads[:2]] == [0, 1]
        assert msgspec.json.decode(payloads[2])["error"]["message"] == "ValueError: at 2"
        _, headers, body = replica.request(f"/call/{name}", b"[1]", {"Accept": FRAMES})
        assert _frames(body) == [(b"i", b"0"), (b"z", b"")]
        assert headers["swell-item-type"] == "application/json"


@both
def test_a_generator_does_not_run_ahead_of_a_slow_reader(name: str) -> None:
    with ready_replica(STREAMS, function(name, generator=True)) as replica:
        seen = replica.folder / "seen"
        sock = replica.begin(f"/call/{name}", b'{"n": 10000, "size": 10000}')
        until(lambda: seen.stat().st_size > 0, "the first item")
        settled = [-1]

        def stands_still() -> bool:
            settled.append(seen.stat().st_size)
            return settled[-1] == settled[-2]

        for _ in range(3):
            until(stands_still)
        assert seen.stat().st_size < 200  # 2 MB in buffers at the most, of 100 MB
        read = 0
        while data := sock.recv(1 << 20):
            read += len(data)
            if data.endswith(b"\r\n\r\n") and read > 100_000_000:
                break
        assert seen.stat().st_size == 10000
        sock.close()


def _frames(body: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    while body:
        size = int.from_bytes(body[:4], "big")
        found.append((body[4:5], body[5 : 4 + size]))
        body = body[4 + size :]
    return found


@pytest.mark.slow
def test_drain_finishes_what_runs_refuses_the_rest_and_runs_exit_hooks() -> None:
    with ready_replica(SOURCE, cls(*NAMES, **HOOKS), max_inputs=4) as replica:
        running = replica.begin("/call/sleep", b"[0.8]")
        waiting = replica.begin("/call/wait", b"[0.8]")
        until(lambda: replica.call("echo", [[1]]), "another slot")
        replica.tell(Drain(reason="test"))
        until(lambda: replica.request("/call/echo", b"[[1]]")[0] == 503, "refused")
        assert running.recv(4096).startswith(b"HTTP/1.1 200")
        assert waiting.recv(4096).endswith(b'"q9"')
        assert replica.wait() == 0
        assert replica.printed("stopped well")
        running.close()
        waiting.close()


def test_sigterm_drains_too() -> None:
    with ready_replica(SOURCE, cls(*NAMES, **HOOKS)) as replica:
        replica.process.terminate()
        assert replica.wait() == 0
        assert replica.printed("stopped well")


def test_a_single_use_replica_serves_one_input() -> None:
    with ready_replica(SOURCE, cls(*NAMES, **HOOKS), single_use=True) as replica:
        running = replica.begin("/call/sleep", b"[2.0]")
        until(lambda: replica.request("/call/echo", b"[[1]]")[0] == 503, "refused")
        assert running.recv(4096).startswith(b"HTTP/1.1 200")
        assert isinstance(replica.hear(), Served)
        assert replica.wait() == 0
        running.close()


def test_slots_bound_inputs_of_synchronous_code_on_as_many_threads() -> None:
    source = """
        import threading
        meet = threading.Barrier(3)
        def thing():
            meet.wait(10)
            return True
    """
    with ready_replica(source, function(), max_inputs=3) as replica:
        first, second = replica.begin("/call/thing"), replica.begin("/call/thing")
        assert replica.call("thing") is True
        for sock in (first, second):
            assert sock.recv(4096).endswith(b"true")
            sock.close()


def test_a_fork_serves_with_its_own_randomness_and_only_the_remaining_hooks() -> None:
    source = """
        import random, os
        random.seed(1)
        class Thing:
            def snap(self): self.snapped = os.getpid()
            def start(self): self.started = os.getpid()
            def roll(self): return [self.snapped, self.started, os.getpid(), random.random()]
    """
    entry = Entry("user_code", "Thing", "cls", (Method("roll"),), enter_snap=("snap",), enter=("start",))
    fixed = random.Random(1).random()
    with ReplicaProcess(source, entry, fork=True) as replica:
        pid = replica.ready().pid
        snapped, started, own, rolled = replica.call("roll")
        assert snapped == replica.process.pid != started == own == pid
        assert rolled != fixed
        replica.tell(Drain(reason="test"))
        assert replica.wait() == 0
    with ReplicaProcess(source, entry) as replica:
        assert replica.ready().pid == replica.process.pid
        assert replica.call("roll") == [replica.process.pid] * 3 + [fixed]


def test_ready_tells_phases_that_sum_up_to_the_start() -> None:
    with ReplicaProcess(SOURCE, cls(*NAMES, **HOOKS)) as replica:
        phases = dict(replica.ready().timings_ms)
        assert list(phases) == ["load", "enter", "listen"]
        assert all(ms >= 0 for ms in phases.values())
