"""A real replica with a batched method: who is worked on together, and what each is answered."""

from __future__ import annotations

import pickle
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from replica_harness import ReplicaProcess, ready_replica, stops_growing, until

from swell.model.tensors import Tensor, Tensors
from swell.model.workload import Batch, Entry, Method
from swell.wire.child import Stuck

pytestmark = pytest.mark.slow

SOURCE = """
    import asyncio, os, time
    from swell.wire.context import InputCancellation, current

    counter = open("counter", "ab", buffering=0)

    def gate(values):
        # The first batch waits until the test has sent the next one.
        while not os.path.exists("open"):
            time.sleep(0.002)

    class Rows:
        asked = 0  # Nobody can say twice how many there are.

        def __getitem__(self, at):
            return 1.0

        def __len__(self):
            Rows.asked += 1
            if Rows.asked > 1:
                raise ValueError("who knows")
            return 1

    class Thing:
        def sizes(self, values: list[int], scale: list[float] = None) -> list[int]:
            gate(values)
            print("worked on", values, scale)
            return [[value, len(values), scale and scale[at]] for at, value in enumerate(values)]

        async def sizes_async(self, values: list[int], scale: list[float] = None) -> list[int]:
            while not os.path.exists("open"):
                await asyncio.sleep(0.002)
            print("worked on", values, scale)
            return [[value, len(values), scale and scale[at]] for at, value in enumerate(values)]

        def moody(self, values: list[int]) -> list:
            gate(values)
            if min(values) < 0:
                raise KeyError("all of them")
            return tuple(ValueError(f"not {value}") if value % 2 else value for value in values)

        def wrong(self, values):
            gate(values)
            return values[1:] if len(values) > 1 else 7

        def odd(self, values: list[int]) -> list:
            gate(values)
            return [object() if value == 1 else value for value in values]

        def loop(self, values):
            counter.write(b"<")
            try:
                while True:
                    counter.write(b".")
                    if os.path.exists("open"):
                        return values
            finally:
                counter.write(b"!")

        async def loop_async(self, values):
            counter.write(b"<")
            try:
                while not os.path.exists("open"):
                    counter.write(b".")
                    await asyncio.sleep(0.002)
                return values
            finally:
                counter.write(b"!")

        def deaf(self, values):
            counter.write(b"<")
            while True:
                try:
                    while True:
                        counter.write(b".")
                except InputCancellation:
                    pass

        async def blocks(self, values):
            while len(values) == 1 and not os.path.exists("open"):
                await asyncio.sleep(0.002)
            until = time.monotonic() + 2
            while len(values) > 1 and time.monotonic() < until:
                counter.write(b".")
                time.sleep(0.01)
            return values

        def burns(self, values):
            gate(values)
            until = time.thread_time() + 0.12
            while time.thread_time() < until:
                pass
            return values

        def seen(self, values):
            gate(values)
            return [current.get().request for _ in values]

        def tensors(self, x, other=None):
            gate(x)
            return x

        def bytes(self, values: list[bytes]) -> list[bytes]:
            gate(values)
            return [bytes(reversed(value)) for value in values]
"""


@contextmanager
def batched(name: str, max_size: int = 4, wait_ms: int = 0, **options: Any) -> Iterator[ReplicaProcess]:
    batch = Batch(max_size, wait_ms)
    entry = Entry("user_code", "Thing", "cls", (Method(name, batch=batch, tensors=options.pop("tensors", None)),))
    with ready_replica(SOURCE, entry, max_inputs=options.pop("max_inputs", batch.max_inputs), **options) as replica:
        replica.name = name
        yield replica


def send(replica: ReplicaProcess, body: Any, id: str, headers: str = "", raw: bytes | None = None) -> socket.socket:
    """A call under way."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(30)
    sock.connect(replica.path)
    content = msgspec.json.encode(body) if raw is None else raw
    lines = (
        f"Swell-Request-Id: {id}\r\nSwell-Remaining-Ms: 60000\r\n"
        if "Remaining" not in headers
        else (f"Swell-Request-Id: {id}\r\n")
    )
    head = f"POST /call/{replica.name} HTTP/1.1\r\n{lines}{headers}Content-Length: {len(content)}\r\n\r\n"
    sock.sendall(head.encode() + content)
    return sock


def answer(sock: socket.socket) -> tuple[int, dict[str, str], Any]:
    """(status, headers, the JSON)."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += received(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    while len(body) < int(headers["content-length"]):
        body += received(sock)
    sock.close()
    return int(lines[0].split()[1]), headers, msgspec.json.decode(body)


def received(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    assert data, "the connection was closed"
    return data


def begun(replica: ReplicaProcess, bodies: list[Any], **options: Any) -> list[socket.socket]:
    """Calls under way: the first alone, the others waiting for it, in this order."""
    calls = []
    for at, body in enumerate(bodies):
        calls.append(send(replica, body, f"q{at}", **options))
        arrived(replica)
    return calls


def arrived(replica: ReplicaProcess) -> None:
    """What was sent before is there by the time that what is sent after it, twice, is answered."""
    for _ in range(2):
        assert replica.request("/call/nothing")[0] == 404


def noted(replica: ReplicaProcess, mark: bytes) -> int:
    """How often its code has noted this: "<" where it begins, "!" where it ends."""
    counter = replica.folder / "counter"
    return counter.read_bytes().count(mark) if counter.exists() else 0


def go_on(replica: ReplicaProcess) -> None:
    (replica.folder / "open").touch()


def batch(headers: dict[str, str]) -> tuple[int, str]:
    """With how many it was worked on, and the first of them."""
    size, waited_us, run_us, lead = headers["swell-batch"].split()
    assert int(waited_us) >= 0 <= int(run_us)
    return int(size), lead


@pytest.mark.parametrize("name", ["sizes", "sizes_async"])
def test_what_comes_while_a_batch_runs_is_the_next_one(name: str) -> None:
    with batched(name) as replica:
        calls = begun(replica, [[value] for value in range(7)])
        go_on(replica)
        answers = [answer(call) for call in calls]
        assert [status for status, _, _ in answers] == [200] * 7
        assert [body[:2] for _, _, body in answers] == [[0, 1], [1, 4], [2, 4], [3, 4], [4, 4], [5, 2], [6, 2]]
        assert [batch(headers) for _, headers, _ in answers] == [(1, "q0")] + [(4, "q1")] * 4 + [(2, "q5")] * 2
        # One line a batch, under its own id; in front of it stands who was in it.
        until(lambda: len(replica.printed("worked on")) == 3, "the log")
        worked = [(request, text) for _, request, text in replica.printed("worked on")]
        assert worked == [
            ("q0", "worked on [0] None"),
            ("q1-b", "worked on [1, 2, 3, 4] None"),
            ("q5-b", "worked on [5, 6] None"),
        ]
        lines = [(stream, request, text) for stream, request, text in replica.lines if request == "q1-b"]
        assert lines[0] == ("batch", "q1-b", "q1 q2 q3 q4")
        assert [stream for stream, _, _ in lines[1:]] == ["out"] * (len(lines) - 1)


def test_who_calls_alone_does_not_wait() -> None:
    with batched("sizes", max_size=4, wait_ms=600_000) as replica:
        go_on(replica)
        for value in range(5):
            assert answer(send(replica, [value], f"q{value}"))[2] == [value, 1, None]


def test_only_what_gave_the_same_arguments_is_one_call() -> None:
    with batched("sizes") as replica:
        given = [[0], [1], {"values": 2, "scale": 0.5}, {"values": 3}, {"scale": 1.5, "values": 4}]
        calls = begun(replica, given)
        pickled = send(replica, None, "q9", PICKLED, pickle.dumps(((5,), {})))
        arrived(replica)
        go_on(replica)
        answers = [answer(call)[2] for call in (*calls, pickled)]
        assert answers == [[0, 1, None], [1, 2, None], [2, 2, 0.5], [3, 2, None], [4, 2, 1.5], [5, 1, None]]


PICKLED = "Content-Type: application/x-swell-pickle\r\nSwell-Trusted: 1\r\n"


def test_an_argument_that_does_not_fit_is_its_own_callers_alone() -> None:
    with batched("sizes") as replica:
        calls = begun(replica, [[0], ["x"], [2], []])
        go_on(replica)
        answers = [answer(call) for call in calls]
        assert [status for status, _, _ in answers] == [200, 422, 200, 422]
        assert answers[2][2] == [2, 1, None]
        said = [body["error"]["message"] for status, _, body in answers if status == 422]
        # As one caller sees it.
        takes = "It takes sizes(values: int, scale: float = None) -> int."
        assert said[0].startswith("Argument 'values'")
        assert said[1] == f"Argument 'values' is missing. {takes}"


def test_each_has_its_own_error_and_what_raises_is_everybodys() -> None:
    with batched("moody") as replica:
        calls = begun(replica, [[0], [1], [2], [3], [4], [-5], [6]])
        go_on(replica)
        answers = [answer(call) for call in calls]
        assert [status for status, _, _ in answers] == [200, 500, 200, 500, 200, 500, 500]
        said = [body["error"]["message"] for status, _, body in answers if status == 500]
        assert said == ["ValueError: not 1", "ValueError: not 3"] + ["KeyError: 'all of them'"] * 2
        assert all(body["error"]["code"] == "exception" for status, _, body in answers if status == 500)
        # That of all is there once.
        until(lambda: len(replica.printed("Error: ")) >= 3, "the log")
        logged = [(request, text) for _, request, text in replica.printed("Error: ")]
        assert logged == [
            ("q1-b", "ValueError: not 1"),
            ("q1-b", "ValueError: not 3"),
            ("q5-b", "KeyError: 'all of them'"),
        ]


class Rows:
    """One of the replica's, as a pickle."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("__import__('user_code').Rows()",)


def test_what_cannot_be_put_together_is_everybodys_error() -> None:
    with batched("tensors", tensors=Tensors((Tensor("x"),), (Tensor("y"),))) as replica:
        calls = begun(replica, [{"x": [1]}, {"x": [2]}])
        calls.append(send(replica, None, "q9", PICKLED, pickle.dumps(((), {"x": Rows()}))))
        arrived(replica)
        go_on(replica)
        assert answer(calls[0])[0] == 200
        assert [answer(call)[2]["error"]["message"] for call in calls[1:]] == ["ValueError: who knows"] * 2


def test_a_wrong_number_of_results_is_told_to_each() -> None:
    with batched("wrong") as replica:
        calls = begun(replica, [[value] for value in range(4)])
        go_on(replica)
        answers = [answer(call) for call in calls]
        assert {(status, body["error"]["code"]) for status, _, body in answers} == {(500, "bad_batch")}
        said = [body["error"]["message"] for _, _, body in answers]
        way_out = "return a list with one result for each, in the order of the inputs."
        assert said[0] == f"wrong is batched and returned a int for 1 input: {way_out}"
        assert set(said[1:]) == {f"wrong is batched and returned 2 results for 3 inputs: {way_out}"}
        assert all(headers["swell-error"] == "500 bad_batch" for _, headers, _ in answers)


def test_a_result_that_cannot_be_sent_is_the_error_of_one() -> None:
    with batched("odd") as replica:
        calls = begun(replica, [[0], [1], [2]])
        go_on(replica)
        assert [answer(call)[0] for call in calls] == [200, 500, 200]


def test_bytes_and_pickles_are_taken_and_given_as_those_of_calls() -> None:
    with batched("bytes") as replica:
        calls = [send(replica, None, "q0", "Content-Type: application/octet-stream\r\n", b"abc")]
        arrived(replica)
        calls.append(
            send(replica, None, "q1", PICKLED + "Accept: application/x-swell-pickle\r\n", pickle.dumps(((b"de",), {})))
        )
        calls.append(send(replica, ["Zg=="], "q2", "Accept: application/json\r\n"))
        arrived(replica)
        go_on(replica)
        bodies = []
        for call in calls:
            data = b""
            while not data.endswith((b"cba", b'Zg=="', b".")):
                data += received(call)
            bodies.append(data.partition(b"\r\n\r\n")[2])
        assert (bodies[0], pickle.loads(bodies[1]), bodies[2]) == (b"cba", b"ed", b'"Zg=="')


def test_the_code_knows_the_first_of_its_inputs() -> None:
    with batched("seen") as replica:
        calls = begun(replica, [[0], [1], [2]])
        go_on(replica)
        assert [answer(call)[2] for call in calls] == ["q0", "q1", "q1"]


def test_cpu_time_is_shared_and_adds_up() -> None:
    with batched("burns") as replica:
        calls = begun(replica, [[0], [1], [2], [3]])
        go_on(replica)
        told = [answer(call)[1] for call in calls]
        alone, *shared = [int(headers["swell-cpu-us"]) for headers in told]
        assert alone >= 120_000
        assert max(shared) - min(shared) <= 1
        assert sum(shared) >= 120_000
        assert max(shared) < 120_000
        runs = [int(headers["swell-run-us"]) for headers in told]
        whole = {headers["swell-batch"].split()[2] for headers in told[1:]}
        assert whole == {str(sum(runs[1:]))}


@pytest.mark.parametrize("name", ["loop", "loop_async"])
def test_the_code_stops_when_the_last_caller_has_left(name: str) -> None:
    with batched(name) as replica:
        counter = replica.folder / "counter"
        first, second, third = begun(replica, [[0], [1], [2]])
        until(lambda: noted(replica, b"<") == 1, "the first runs")
        first.close()
        until(lambda: (noted(replica, b"!"), noted(replica, b"<")) == (1, 2), "it was stopped, and the others run")
        # Now both others run; one leaves, and the other is still waited for.
        second.close()
        arrived(replica)
        assert not stops_growing(counter)
        assert noted(replica, b"!") == 1
        third.close()
        until(lambda: noted(replica, b"!") == 2, "nobody is left")
        assert stops_growing(counter)
        go_on(replica)
        assert answer(send(replica, [3], "q3"))[2] == 3
        assert not replica.printed("Traceback")


def test_who_left_before_the_batch_began_is_not_in_it() -> None:
    with batched("sizes") as replica:
        first, second, third = begun(replica, [[0], [1], [2]])
        second.close()
        arrived(replica)
        go_on(replica)
        assert (answer(first)[2], answer(third)[2]) == ([0, 1, None], [2, 1, None])


LIMIT = "Swell-Limit: 0.2 s (timeout= of the function)\r\nSwell-Remaining-Ms: 200\r\n"


@pytest.mark.parametrize("name", ["loop", "loop_async"])
def test_a_deadline_is_that_of_one(name: str) -> None:
    with batched(name) as replica:
        counter = replica.folder / "counter"
        first = send(replica, [0], "q0")
        until(lambda: noted(replica, b"<") == 1, "the first runs")
        # Waiting for its batch.
        status, _, body = answer(send(replica, [1], "q1", LIMIT))
        assert (status, body["error"]["code"]) == (504, "deadline")
        said = "The deadline of 0.2 s (timeout= of the function) passed while it waited to be worked on together"
        assert body["error"]["message"].startswith(said)
        first.close()
        until(lambda: noted(replica, b"!") == 1, "the first was stopped")
        # In a batch whose other goes on.
        blocker = send(replica, [2], "q2")
        until(lambda: noted(replica, b"<") == 2, "it runs")
        late, patient = send(replica, [3], "q3", LIMIT.replace("200", "4000")), send(replica, [4], "q4")
        arrived(replica)
        blocker.close()
        status, _, body = answer(late)
        assert (status, body["error"]["code"]) == (504, "deadline")
        assert "goes on" in body["error"]["message"]
        assert not stops_growing(counter)
        go_on(replica)
        assert answer(patient)[2] == 4


@pytest.mark.parametrize("name", ["loop", "loop_async"])
def test_the_deadline_of_all_stops_the_code(name: str) -> None:
    with batched(name) as replica:
        status, headers, body = answer(send(replica, [0], "q0", LIMIT))
        assert (status, body["error"]["code"]) == (504, "deadline")
        assert "told to stop" in body["error"]["message"]
        assert int(headers["swell-run-us"]) > 0
        assert stops_growing(replica.folder / "counter")
        assert (replica.folder / "counter").read_bytes().endswith(b"!")


@pytest.mark.parametrize("queued", ["", "Swell-Hand-Out: 1\r\n"])
def test_a_batch_that_does_not_stop_ends_the_replica_and_gives_back_what_waits(queued: str) -> None:
    with batched("deaf", cancel_grace_s=0.3) as replica:
        first, second = begun(replica, [[0], [1]], headers=queued)
        until(lambda: noted(replica, b"."), "it runs")
        # Of a queued call a half alone is a cancel, of any other the whole as well.
        first.shutdown(socket.SHUT_WR) if queued else first.close()
        status, headers, body = answer(second)
        assert (status, headers["swell-busy"], body["error"]["code"]) == (503, "1", "drained" if queued else "busy")
        stuck = replica.hear()
        assert isinstance(stuck, Stuck)
        assert (stuck.requests, stuck.ending) == (("q0",), True)
        assert replica.wait() == 75


def test_a_replica_ends_once_all_batches_that_it_may_run_do_not_stop() -> None:
    with batched("deaf", max_size=1, max_inputs=3, cancel_grace_s=0.3) as replica:
        first, second, third = begun(replica, [[0], [1], [2]])
        until(lambda: noted(replica, b"<") == 2, "two run")
        first.close()
        assert replica.hear() == Stuck(requests=("q0",), ending=False)
        assert replica.process.poll() is None
        second.close()
        status, headers, body = answer(third)
        assert (status, headers["swell-busy"], body["error"]["code"]) == (503, "1", "busy")
        assert replica.hear() == Stuck(requests=("q0", "q1"), ending=True)
        assert replica.wait() == 75


def test_code_that_blocks_the_loop_is_left_alone_while_anybody_waits_for_it() -> None:
    with batched("blocks", max_size=2, cancel_grace_s=0.3) as replica:
        first, second, third = begun(replica, [[0], [1], [2]])
        go_on(replica)
        assert answer(first)[2] == 0
        until(lambda: (replica.folder / "counter").stat().st_size, "the others block the loop")
        second.close()
        assert answer(third)[2] == 2
        assert replica.process.poll() is None


def test_with_room_for_more_batches_run_side_by_side() -> None:
    with batched("loop", max_size=1, max_inputs=4) as replica:
        calls = begun(replica, [[value] for value in range(4)])
        until(lambda: noted(replica, b"<") == 3, "three run")
        for call in calls[:3]:
            call.close()
        until(lambda: noted(replica, b"!") == 3, "three were stopped")
        go_on(replica)
        assert answer(calls[3])[2] == 3


def test_more_than_it_has_room_for_is_refused_as_busy() -> None:
    with batched("sizes", max_size=2) as replica:
        calls = begun(replica, [[value] for value in range(4)])
        status, headers, _ = answer(send(replica, [4], "q4"))
        assert (status, headers["swell-busy"]) == (503, "1")
        go_on(replica)
        assert [answer(call)[0] for call in calls] == [200] * 4


def test_a_body_that_never_comes_holds_up_nobody() -> None:
    with batched("sizes") as replica:
        unfinished = replica.begin_incomplete("/call/sizes")
        go_on(replica)
        assert answer(send(replica, [1], "q1"))[2] == [1, 1, None]
        unfinished.close()
        began = time.monotonic()
        assert answer(send(replica, [1], "q1"))[2] == [1, 1, None]
        assert time.monotonic() - began < 30
