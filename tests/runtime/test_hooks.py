"""Do `before` and `after` stand around a method of each kind, and beside its batches? And what may it know and say?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from replica_harness import ReplicaProcess, ready_replica, until
from test_replica_batch import answer, arrived, go_on, send

import swell
from swell.model.caching import Caching
from swell.model.errors import InvalidError
from swell.model.workload import Batch, Entry, Method
from swell.runtime.hooks import Refusal, around, hooks_of


def noted(function: Any, before: Any = None, after: Any = None) -> Any:
    function.__swell_transform__ = (before, after)
    return function


def halves(text: str) -> tuple[str, str]:
    if not text:
        raise InvalidError("there is nothing to halve")
    return text[: len(text) // 2], text[len(text) // 2 :]


def test_what_before_returns_is_the_argument_and_of_several_each() -> None:
    assert around(noted(lambda x: x, before=halves), False)("abcd") == ("ab", "cd")
    assert around(noted(lambda x, y: [x, y], before=halves), False)("abcd") == ["ab", "cd"]
    assert around(noted(lambda x, y=2: [x, y], before=lambda v: {"y": v, "x": 1}), False)(7) == [1, 7]
    assert around(noted(lambda x: x, before=lambda v: {"y": v}), False)(7) == {"y": 7}
    assert around(noted(lambda x, y=2: [x, y], before=lambda v: v + 1), False)(7) == [8, 2]
    assert around(noted(lambda x: x, after=str), False)(7) == "7"
    plain = len
    assert around(plain, False) is plain


@pytest.mark.shows("transform", "before", "after")
def test_the_decorator_notes_them_where_they_are_found() -> None:
    @swell.transform(before=halves, after=list)
    def joined(one: str, other: str) -> str:
        return other + one

    assert around(joined, False)("abcd") == ["c", "d", "a", "b"]
    assert joined("ab", "cd") == "cdab", "called here it is as it is written"


def test_streams_are_made_into_something_else_item_by_item() -> None:
    closed = []

    def numbers(most: int) -> Iterator[int]:
        try:
            yield from range(most)
        finally:
            closed.append(most)

    made = around(noted(numbers, before=len, after=lambda n: n * 10), True)("abc")
    assert [next(made), next(made)] == [0, 10]
    made.close()
    assert closed == [3]
    assert list(around(noted(lambda: [1, 2], after=str), True)()) == ["1", "2"]


def test_asynchronous_methods_have_hooks_of_either_kind() -> None:
    async def before(value: int) -> int:
        return value + 1

    async def method(value: int) -> int:
        return value * 10

    async def items(value: int):
        for each in range(value):
            yield each

    async def play() -> Any:
        whole = await around(noted(method, before=before, after=str), False)(1)
        stream = await around(noted(items, before=before, after=before), True)(1)
        return whole, [item async for item in stream]

    assert asyncio.run(play()) == ("20", [1, 2])


def test_a_method_of_the_class_is_bound_and_a_function_is_not() -> None:
    class Thing:
        def __init__(self, by: int) -> None:
            self.by = by

        def more(self, value: int) -> int:
            return value + self.by

        @staticmethod
        def twice(value: int) -> int:
            return value * 2

        both = noted(lambda self, value: value, before=more, after=str)
        still = noted(lambda self, value: value, before=twice)

    assert around(Thing(5).both, False)(1) == "6"
    assert around(Thing(5).still, False)(4) == 8
    assert not hooks_of(Thing(1).more)


def test_what_a_hook_says_is_invalid_is_the_callers_and_what_else_it_raises_is_not() -> None:
    with pytest.raises(Refusal, match="nothing to halve") as raised:
        around(noted(lambda x: x, before=halves), False)("")
    assert (raised.value.code, raised.value.status) == ("bad_arguments", 422)
    with pytest.raises(TypeError):
        around(noted(lambda x: x, before=halves), False)(7)


SOURCE = """
    import asyncio, os, threading, time
    import swell
    from swell.wire.context import InputCancellation, current

    asked = swell.current_request

    def gate():
        while not os.path.exists("open"):
            time.sleep(0.002)

    class Thing:
        def decode(self, text: str) -> int:
            request = asked()
            print("decoding", text)
            if text == "spin":
                try:
                    while True:
                        pass
                finally:
                    open("stopped", "w").close()
            if not text.isdigit():
                raise swell.exception.InvalidError(f"{text!r} is no number")
            if text == "13":
                raise ValueError("unlucky")
            return int(text)

        def encode(self, number: int) -> dict:
            print("encoding", number)
            asked().set_header("X-Number", str(number))
            if number == 99:
                asked().set_status(201)
            return {"number": number, "by": asked().headers.get("x-caller"), "id": asked().id}

        def sums(self, numbers: list[int]) -> list[int]:
            gate()
            print("worked on", numbers)
            return [number + 100 * (len(numbers) > 1) for number in numbers]

        sums.__swell_transform__ = (decode, encode)

        async def decode_async(self, text: str) -> int:
            await asyncio.sleep(0)
            return self.decode(text)

        async def sums_async(self, numbers: list[int]) -> list[int]:
            while not os.path.exists("open"):
                await asyncio.sleep(0.002)
            print("worked on", numbers)
            return [number + 100 * (len(numbers) > 1) for number in numbers]

        sums_async.__swell_transform__ = (decode_async, encode)

        def alone(self, number: int) -> int:
            return number

        alone.__swell_transform__ = (decode, encode)

        def whose(self, numbers: list[int]) -> list[int]:
            asked()
            return numbers

        def heads(self, status: int = 0, name: str = "x-own", value: str = "1") -> dict:
            request = asked()
            if status:
                request.set_status(status)
            request.set_header(name, value)
            return dict(request.headers)

        def stream(self, late: bool = False):
            if not late:
                asked().set_header("X-Early", "yes")
            return self.items(late)

        def items(self, late):
            if late:
                asked().set_header("X-Late", "no")
            yield 1
"""


@contextmanager
def thing(name: str, batch: Batch | None = None, **options: Any) -> Iterator[ReplicaProcess]:
    entry = Entry("user_code", "Thing", "cls", (Method(name, batch=batch, **options),))
    most = batch.max_inputs if batch is not None else 4
    with ready_replica(SOURCE, entry, max_inputs=most) as replica:
        replica.name = name
        yield replica


slow = pytest.mark.slow


@slow
@pytest.mark.parametrize("name", ["sums", "sums_async"])
def test_beside_a_batch_each_input_is_read_and_answered_by_itself(name: str) -> None:
    with thing(name, Batch(4, 0)) as replica:
        calls = []
        for at, text in enumerate(["1", "2", "x", "13", "5"]):
            calls.append(send(replica, {"text": text}, f"q{at}", f"X-Caller: c{at}\r\n"))
            # While the first is worked on the others are read.
            until(lambda text=text: replica.printed(f"decoding {text}"), "it is read")
        arrived(replica)
        go_on(replica)
        told = [answer(call) for call in calls]
        assert [status for status, _, _ in told] == [200, 200, 422, 500, 200]
        assert told[0][2] == {"number": 1, "by": "c0", "id": "q0"}
        assert [told[at][2] for at in (1, 4)] == [
            {"number": 102, "by": "c1", "id": "q1"},
            {"number": 105, "by": "c4", "id": "q4"},
        ]
        assert told[1][1]["x-number"] == "102"
        assert told[2][2]["error"]["code"] == "bad_arguments"
        assert told[2][2]["error"]["message"] == "'x' is no number"
        assert told[3][2]["error"]["message"] == "ValueError: unlucky"
        assert told[1][1]["swell-batch"].split()[::3] == ["2", "q1"]
        assert int(told[1][1]["swell-cpu-us"]) >= 0
        until(lambda: replica.printed("encoding 105"), "the log")
        by = {text: request for _, request, text in replica.printed("ing ")}
        assert (by["decoding 2"], by["encoding 102"]) == ("q1", "q1")
        assert not replica.printed("is no number")
        # All slots are free again.
        for at in range(8):
            assert answer(send(replica, {"text": str(at)}, f"r{at}"))[0] == 200


@slow
def test_who_leaves_while_its_arguments_are_made_is_stopped_alone() -> None:
    with thing("sums", Batch(4, 0)) as replica:
        spinning = send(replica, {"text": "spin"}, "q0")
        until(lambda: replica.printed("decoding spin"), "it spins")
        spinning.close()
        until(lambda: (replica.folder / "stopped").exists(), "it was stopped")
        go_on(replica)
        assert answer(send(replica, {"text": "4"}, "q1"))[2]["number"] == 4


@slow
def test_a_deadline_that_passes_while_its_arguments_are_made_is_told() -> None:
    with thing("sums", Batch(4, 0)) as replica:
        late = answer(send(replica, {"text": "spin"}, "q0", "Swell-Remaining-Ms: 200\r\n"))
        assert (late[0], late[2]["error"]["code"]) == (504, "deadline")
        go_on(replica)
        assert answer(send(replica, {"text": "4"}, "q1"))[2]["number"] == 4


@slow
def test_around_a_plain_method_they_are_part_of_the_call() -> None:
    with thing("alone") as replica:
        status, headers, body = replica.request("/call/alone", b'{"text": "99"}', {"X-Caller": "me"})
        assert (status, headers["x-number"], json.loads(body)["by"]) == (201, "99", "me")
        status, _, body = replica.request("/call/alone", b'{"text": "x"}')
        assert (status, json.loads(body)["error"]["code"]) == (422, "bad_arguments")
        # Its callers are told what it takes of them.
        status, _, body = replica.request("/call/alone", b'{"number": 1}')
        assert json.loads(body)["error"]["message"].endswith("It takes alone(text: str).")


@slow
def test_a_batch_has_no_one_request() -> None:
    with thing("whose", Batch(4, 0)) as replica:
        told = answer(send(replica, [1], "q0"))
        assert told[0] == 500
        assert "A batch is of several requests" in told[2]["error"]["message"]


@slow
def test_headers_are_read_and_set_within_bounds() -> None:
    with thing("heads") as replica:
        sent = {"X-A": "1", "Authorization": "Bearer k", "Swell-Trusted": "0", "Cookie": "c=1"}
        status, headers, body = replica.request("/call/heads", b"{}", sent)
        assert (status, headers["x-own"]) == (200, "1")
        seen = json.loads(body)
        assert (seen["x-a"], seen["cookie"]) == ("1", "c=1")
        assert not {name for name in seen if name.startswith("swell-") or name in ("authorization", "connection")}
        assert replica.request("/call/heads", b'{"status": 418}')[0] == 418
        for wrong in (
            {"status": 204},
            {"status": 101},
            {"status": 299},
            {"name": "content-length"},
            {"name": "Swell-Cost-Usd"},
            {"name": "a b"},
            {"value": "1\r\nX-Evil: 1"},
            {"value": "€"},
            {"value": "x" * 9000},
        ):
            status, _, body = replica.request("/call/heads", json.dumps(wrong).encode())
            assert (status, json.loads(body)["error"]["code"]) == (500, "exception"), wrong


@slow
def test_a_kept_answer_depends_on_no_header_that_was_not_named() -> None:
    with thing("heads", cache=Caching(5.0, ("x-a",))) as replica:
        _, _, body = replica.request("/call/heads", b"{}", {"X-A": "1", "X-B": "2"})
        assert json.loads(body) == {"x-a": "1"}


@slow
def test_the_head_of_a_stream_is_set_before_it_begins() -> None:
    with thing("stream") as replica:
        status, headers, body = replica.request("/call/stream")
        assert (status, headers["x-early"], b"data: 1" in body) == (200, "yes", True)
        _, headers, body = replica.request("/call/stream", b'{"late": true}')
        assert "x-late" not in headers
        assert b"The head of this answer has left" in body
