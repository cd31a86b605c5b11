"""Does each input of a map have its result once, whatever is lost on the way, and is no more taken in than may be?"""

from __future__ import annotations

import math
import os
import pty
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swell
from sdk.server import KEY, Many, Server, serving
from swell.sdk import group as group_module
from swell.sdk import mapping, progress, protocol, shared
from swell.sdk.bridge import drive
from swell.sdk.protocol import Request
from swell.sdk.transport import Transport
from swell.wire import call_rows, http


class Odd(Exception):
    """An exception of the user's own."""


def even(x: int, plus: int = 0) -> int:
    if x % 2:
        raise Odd(x)
    return x + plus


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    patched = pytest.MonkeyPatch()
    patched.setattr(shared, "AGAIN_S", (0.001,))
    with serving({"double": lambda x, plus=0: 2 * x + plus, "even": even, "large": lambda x: bytes(x)}) as state:
        patched.setenv("SWELL_URL", state.url)
        patched.setenv("SWELL_KEY", KEY)
        yield state
    patched.undo()


def named(name: str) -> swell.Function:
    return swell.Function.from_name("app", name)


def only(server: Server) -> Many:
    (group,) = server.groups.values()
    return group


@pytest.fixture(autouse=True)
def clean(server: Server) -> None:
    server.groups.clear()
    server.calls.clear()
    server.accepts = server.unsure = server.busy = 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 60), st.integers(0, 7), st.integers(0, 5), st.booleans())
def test_each_result_comes_once_although_answers_are_lost(
    server: Server, inputs: int, accepts: int, unsure: int, ordered: bool
) -> None:
    server.calls.clear()
    server.accepts, server.unsure = accepts, unsure if inputs else 0
    found = list(named("double").map(range(inputs), order_outputs=ordered))
    assert (found if ordered else sorted(found)) == [2 * x for x in range(inputs)]
    assert len(server.calls) == inputs, "nothing was accepted twice"


def test_a_map_asks_for_little_keeping(server: Server) -> None:
    assert list(named("double").map([1])) == [2]
    assert only(server).keep_s == f"{mapping.KEEP_S:g}"


def test_what_has_come_is_not_kept_on_the_server(server: Server) -> None:
    assert list(named("double").map(range(600))) == [2 * x for x in range(600)]
    group = only(server)
    with group.changed:
        assert group.changed.wait_for(lambda: group.had == 600, 60)
    assert not group.inputs
    server.groups.clear()
    call = named("double").spawn_map(range(9))
    assert list(call.iter()) == [2 * x for x in range(9)]
    assert (call.get(index=3), only(server).had) == (6, 0), "of these there is no one consumer"


def test_no_more_inputs_are_taken_than_the_consumer_is_behind(server: Server) -> None:
    taken = 0

    def inputs() -> Iterator[int]:
        nonlocal taken
        for x in range(10_000):
            taken += 1
            yield x

    results = named("double").map(inputs())
    for given_ in range(400):
        assert next(results) == 2 * given_
        assert taken <= given_ + mapping.QUEUED_MIN + given_ + 2
    results.close()  # type: ignore[attr-defined]


def test_results_beyond_a_bound_stay_on_the_server_until_their_turn(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "HELD_BYTES_MAX", 5000)
    fetched: list[str] = []
    kept: list[bool] = []

    async def result(self: Any, id: str) -> Any:
        fetched.append(id)
        index = int(id.removeprefix("fc-"))
        kept.append(index in only(server).inputs)
        body = next(end.body for end in only(server).ends if end.index == index)
        return mapping.Answer(200, {"content-type": http.PICKLE}, body)

    monkeypatch.setattr(mapping.Group, "result", result)
    first = threading.Event()
    server.functions["large"] = lambda x: (x or first.wait(60)) and bytes(1000 + x)

    def let_go() -> Iterator[int]:
        yield from range(30)
        first.set()

    assert [len(x) for x in named("large").map(let_go())] == [1000 + x for x in range(30)]
    assert 0 < len(fetched) < 30
    assert all(kept), "what is not here yet is not forgotten there"


def test_inputs_too_large_for_the_queue_are_called_directly(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "INPUT_MAX", 1000)
    server.functions["size"] = lambda data: len(data)
    sizes = [10, 5000, 20, 6000, 30]
    assert list(named("size").map([bytes(size) for size in sizes])) == sizes
    assert sorted(only(server).taken) == [0, 2, 4]


def test_what_one_version_alone_is_asked_for_is_called_directly(server: Server) -> None:
    server.functions["double"] = lambda x: 2 * x
    assert list(swell.Function.from_name("app", "double", version=3).map(range(40))) == [2 * x for x in range(40)]
    assert not server.groups


def test_where_nothing_can_be_worked_on_the_reason_is_told(server: Server) -> None:
    began = threading.Event()
    server.functions["stuck"] = lambda x: began.wait(60)

    def inputs() -> Iterator[int]:
        yield 1
        while not server.groups:
            pass
        only(server).problem = http.ErrorBody("no_replica", "It has no weights.")
        with only(server).changed:
            only(server).changed.notify_all()

    try:
        with pytest.raises(swell.Error, match="no weights"):
            list(named("stuck").map(inputs()))
        assert only(server).cancelled
    finally:
        began.set()


def test_an_exception_cancels_what_is_not_done(server: Server) -> None:
    release = threading.Event()

    def first_fails(x: int) -> bool:
        if x == 0:
            raise Odd(x)
        return release.wait(60)

    server.functions["first_fails"] = first_fails
    try:
        with pytest.raises(Odd):
            list(named("first_fails").map(range(50)))
        assert only(server).cancelled
    finally:
        release.set()


def first(server: Server, release: threading.Event) -> Callable[[int], bool]:
    """A function: of input 0 the result comes once there are more, of the others when they are let go."""

    def run(x: int) -> bool:
        deadline = time.monotonic() + 60
        while x == 0 and len(only(server).taken) < 10 and time.monotonic() < deadline:
            time.sleep(0.001)
        return x == 0 or release.wait(60)

    return run


def test_who_leaves_while_the_server_is_away_is_not_held_up_and_what_is_not_done_is_cancelled_later(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_module, "CLOSE_S", 0.01)
    release = threading.Event()
    server.functions["first"] = first(server, release)
    try:
        for _ in named("first").map(range(50)):
            server.unsure = 50
            break
        group = only(server)
        with group.changed:
            assert group.changed.wait_for(lambda: group.cancelled, 60)
        assert server.unsure == 0
    finally:
        release.set()
        server.unsure = 0


@pytest.mark.parametrize("leave", [False, True])
def test_a_server_that_is_started_anew_meanwhile_is_asked_again(
    server: Server, monkeypatch: pytest.MonkeyPatch, leave: bool
) -> None:
    send, away = Transport.send, 0
    release = threading.Event()

    async def reached(self: Transport, request: Request, **more: Any) -> protocol.Answer:
        nonlocal away
        if away:
            away -= 1
            raise swell.Error("no_server", "No server runs there.", status=503)
        return await send(self, request, **more)

    monkeypatch.setattr(Transport, "send", reached)
    server.functions["first"] = first(server, release)
    had = 0
    try:
        for _ in named("first").map(range(50)):
            had += 1
            if had == 1:
                away = 10
                if leave:
                    break
                release.set()
        group = only(server)
        with group.changed:
            assert group.changed.wait_for(lambda: group.cancelled or not leave, 60)
        assert had == (1 if leave else 50)
        assert not away
    finally:
        release.set()


def test_one_that_was_never_there_is_not_asked_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    async def send(_self: Transport, request: Request, **_more: Any) -> protocol.Answer:
        asked.append((request.method, request.path))
        raise swell.Error("no_server", "No server runs there.", status=503)

    monkeypatch.setattr(Transport, "send", send)
    with pytest.raises(swell.Error, match="No server runs there"):
        list(named("double").map(range(3)))
    assert asked
    assert len(set(asked)) == len(asked)


class Silent:
    """A group that is sent to, and answers by hand."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []

    def send(self, requests: list[Request], first: int, _keep_s: float) -> Future[int]:
        self.sent.append((first, len(requests)))
        return Future()


def test_what_ended_before_it_was_told_to_be_accepted_is_not_sent_again() -> None:
    group = Silent()
    queue = mapping.Queue(cast(mapping.Group, group))
    for index in range(5):
        queue.add(index, Request("POST", "/call/a/f", body=b"1"))
    assert queue.send() is not None
    assert queue.send() is None
    for index in (0, 3):
        queue.over(index)
    queue.accepted(2)
    assert list(queue.waiting) == [1, 2, 4]
    assert queue.send() is not None
    queue.accepted(1)
    assert queue.send() is not None
    assert group.sent == [(0, 5), (2, 1), (4, 1)], "those that follow each other, and no other"


def test_what_is_accepted_takes_no_memory_here_and_holds_up_no_other_input() -> None:
    queue = mapping.Queue(cast(mapping.Group, Silent()))
    half = Request("POST", "/call/a/f", body=bytes(mapping.QUEUED_BYTES_MAX // 2))
    bodies = [weakref.ref(half)]
    queue.add(0, half)
    queue.add(1, half)
    assert queue.full
    assert queue.send() is not None
    queue.accepted(1)
    assert not queue.full
    assert queue.send() is not None
    queue.accepted(1)
    del half
    assert bodies[0]() is None, "its body is on the server"
    assert list(queue.waiting) == [0, 1]
    queue.over(0)
    queue.over(1)
    assert not queue.waiting


def end_of(index: int, body: bytes = b"1") -> call_rows.GroupEndRow:
    return call_rows.GroupEndRow(f"fc-{index}", index, "done", 200, http.JSON, body)


def test_what_may_be_sent_once_more_is_not_forgotten_before_it_is_known_to_be_accepted() -> None:
    queue = mapping.Queue(cast(mapping.Group, Silent()))
    request = Request("POST", "/call/a/f", body=b"1")
    queue.add(0, request)
    queue.send()
    queue.accepted(1)
    queue.ended(call_rows.GroupPage((end_of(0),), 7))
    queue.over(0)
    assert (queue.forgettable(7), queue.forgettable(3)) == (7, 3)
    queue.add(1, request)
    queue.send()
    queue.ended(call_rows.GroupPage((end_of(1),), 8))
    queue.over(1)
    assert queue.forgettable(8) == 7, "whether it was accepted is not known: its answer may be lost"
    queue.accepted(1)
    assert queue.forgettable(8) == 8


def test_what_is_still_on_the_server_is_not_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "HELD_BYTES_MAX", 10)

    class Server:
        async def result(self, id: str) -> mapping.Answer:
            return mapping.Answer(200, {}, id.encode())

    outcomes = mapping.Outcomes(cast(mapping.Group, Server()))
    for number, ends in ((2, [end_of(0, bytes(10))]), (4, [end_of(2), end_of(1)]), (5, [])):
        for end in ends:
            outcomes.put_end(end)
        outcomes.put_page(call_rows.GroupPage(tuple(ends), number))
    assert outcomes.had() == 2
    for index, had in ((0, 2), (1, 2), (2, 5)):
        drive(outcomes.pop(index))
        assert outcomes.had() == had


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10), st.floats(0, 1)), max_size=30))
def test_all_that_was_had_is_forgotten_though_a_server_forgets_only_so_many_at_once(
    pages: list[tuple[int, float]],
) -> None:
    coming = [ends for ends, _ in pages]
    forgotten = 0

    class Asked(group_module.Group):
        async def _answer(self, request: Request, *_: Any, **_named: Any) -> mapping.Answer:
            nonlocal forgotten
            asked = {name: int(value) for name, value in re.findall(r"(had|after)=(\d+)", request.path)}
            forgotten = max(forgotten, min(asked.get("had", 0), forgotten + 10))
            ends = coming.pop(0) if coming else 0
            page = call_rows.GroupPage((end_of(0),) * ends, asked["after"] + ends)
            return mapping.Answer(200, {}, msgspec.msgpack.encode(page))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(group_module, "BATCH_MAX", 10)
        group = Asked(cast(group_module.Client, None), "fg-1")
        for _, share in pages:
            drive(group._ends(1, -math.inf, int(group.last * share)))
        drive(group._forget(group.last, None))
    assert forgotten == sum(ends for ends, _ in pages)


def test_an_input_that_has_no_plain_form_takes_no_others_number() -> None:
    def plain() -> Request:
        return Request("POST", "/call/a/f", {"accept": http.MSGPACK, "content-type": http.MSGPACK}, b"1")

    headers = {"accept": http.PICKLE, "content-type": http.PICKLE}
    both = [Request("POST", "/call/a/f", headers, b"1", plain=each) for each in (plain, None)]
    grouped = protocol.grouped(both, "fg-1", 0)
    assert grouped.plain is not None
    with pytest.raises(AssertionError, match="by its place"):
        grouped.plain()


@pytest.mark.shows("Function.spawn_map", "input_iterators", "kwargs")
@pytest.mark.shows("FunctionCall.get", "index")
@pytest.mark.shows("FunctionCall.iter", "start", "end")
def test_what_is_spawned_together_is_had_by_number_or_in_order(server: Server) -> None:
    server.accepts = 7
    server.functions["double"] = lambda x, plus=0: 2 * x + plus
    call = named("double").spawn_map(range(30), kwargs={"plus": 1})
    assert only(server).keep_s == "", "it is kept as long as any"
    found = swell.FunctionCall.from_id(call.object_id)
    assert found == call
    assert found.num_inputs() == 30
    assert (found.get(), found.get(index=29), found.get(60, index=3)) == (1, 59, 7)
    assert list(found.iter()) == [2 * x + 1 for x in range(30)]
    assert list(found.iter(start=28)) == [57, 59]
    assert list(found.iter(start=1, end=3)) == [3, 5]
    for index in (30, -1):
        with pytest.raises(swell.Error, match="no input with that number"):
            found.get(index=index)
    found.cancel()
    assert only(server).cancelled


def test_one_of_what_was_spawned_together_is_had_without_the_others(server: Server) -> None:
    server.functions["double"] = lambda x: 2 * x
    call = named("double").spawn_map(range(30))
    group = only(server)
    assert (call.get(index=17), call.get(timeout=60, index=29)) == (34, 58)
    assert group.pages == 0
    group.inputs.pop(4)
    with pytest.raises(swell.Error) as raised:
        call.get(index=4)
    assert raised.value.code == "unknown_call"


def test_what_fails_among_what_was_spawned_together_ends_no_other(server: Server) -> None:
    call = named("even").spawn_map(range(4))
    with pytest.raises(Odd):
        list(call.iter())
    assert (call.get(index=0), call.get(index=2)) == (0, 2)
    with pytest.raises(Odd):
        call.get(index=1)


def test_to_spawn_nothing_is_refused_and_what_inputs_raise_ends_what_was_accepted(server: Server) -> None:
    with pytest.raises(swell.Error, match="no inputs"):
        named("double").spawn_map([])

    def inputs() -> Iterator[int]:
        yield from range(1500)
        raise LookupError("no more")

    with pytest.raises(LookupError):
        named("double").spawn_map(inputs())
    assert only(server).cancelled


def test_a_call_of_one_input_has_that_alone(server: Server) -> None:
    call = named("double").spawn(4)
    assert call.num_inputs() == 1
    assert list(call.iter()) == [8]
    with pytest.raises(swell.Error, match="no input with that number"):
        call.get(index=1)


# -- progress -------------------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[tuple[Any, int]]:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as out:
        yield out, ours
    os.close(ours)


def test_progress_is_a_line_on_a_terminal_that_goes_away(
    terminal: tuple[Any, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, screen = terminal
    monkeypatch.setattr(progress, "AFTER_S", 0.0)
    bar = progress.Progress("f", 4, out)
    bar.step()
    assert b"f: [######..................] 1/4" in os.read(screen, 1000)
    bar.close()
    assert os.read(screen, 1000) == b"\r\x1b[K"


@pytest.mark.parametrize("why", ["brief", "off", "no terminal"])
def test_elsewhere_nothing_is_written(terminal: tuple[Any, int], monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    out, screen = terminal
    monkeypatch.setattr(progress, "AFTER_S", 3600.0 if why == "brief" else 0.0)
    monkeypatch.setenv("SWELL_PROGRESS", "0" if why == "off" else "1")
    with open(os.devnull, "w") as null:
        bar = progress.Progress("f", None, null if why == "no terminal" else out)
        bar.step()
        bar.close()
    os.set_blocking(screen, False)
    with pytest.raises(BlockingIOError):
        os.read(screen, 1000)


def test_the_number_of_inputs_is_known_where_all_say_it() -> None:
    assert progress.total_of(([1, 2, 3], range(2))) == 2
    assert progress.total_of(([1], iter([1]))) is None
    assert progress.total_of(()) is None
