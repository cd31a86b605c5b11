"""Does a call that is spawned come back as if it had been waited for, once, and from any program?"""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import swell
from sdk import deployable
from sdk.server import KEY, Queued, Server, serving
from swell.sdk import protocol, shared, waiting
from swell.wire import context, http


class Odd(Exception):
    """An exception of the user's own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def even(x: int, plus: int = 0) -> int:
    if x % 2:
        raise Odd(x)
    return x + plus


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(shared, "AGAIN_S", (0.001,))
    functions = {"even": even, "M.m": lambda x: -x, "numbers": lambda: iter(())}
    with serving(functions) as state:
        monkeypatch.setenv("SWELL_URL", state.url)
        monkeypatch.setenv("SWELL_KEY", KEY)
        yield state


def spawned(x: int = 2, **kwargs: Any) -> swell.FunctionCall:
    found: swell.FunctionCall = swell.Function.from_name("a", "even").spawn(x, **kwargs)
    return found


def only(server: Server) -> Queued:
    (call,) = server.queued.values()
    return call


@pytest.mark.shows("Function.spawn", "args", "kwargs")
@pytest.mark.shows("FunctionCall.from_id", "function_call_id")
def test_it_is_accepted_first_and_its_result_is_had_later_by_anybody(server: Server) -> None:
    call = spawned(2, plus=40)
    assert server.calls == []
    assert pickle.loads(only(server).body) == ((2,), {"plus": 40})
    assert call.object_id == only(server).id
    assert call.get() == 42
    assert swell.FunctionCall.from_id(call.object_id).get() == 42
    assert pickle.loads(pickle.dumps(call)) == call != spawned(0)
    assert repr(call) == f"swell.FunctionCall.from_id('{call.object_id}')"


def test_what_it_raised_is_raised(server: Server) -> None:
    with pytest.raises(Odd) as raised:
        spawned(3).get()
    assert raised.value.number == 3
    assert isinstance(raised.value.__cause__, protocol.RemoteTraceback)


@pytest.mark.parametrize("code", shared.LOST)
def test_an_error_of_its_own_is_not_taken_for_one_of_the_way_to_it(server: Server, code: str) -> None:
    """The same code that has a request sent again is the result here."""
    call = spawned()
    only(server).state, only(server).code = "failed", code
    before = len(server.authorizations)
    with pytest.raises(swell.Error, match="That is how it ended") as raised:
        call.get()
    assert raised.value.code == code
    assert len(server.authorizations) == before + 1


def test_methods_have_it_too(server: Server) -> None:
    assert swell.Cls.from_name("a", "M", environment_name="staging")().m.spawn(3).get() == -3
    assert only(server).target == "staging/a/M.m"


def test_asyncio_has_all_of_it(server: Server) -> None:
    async def program() -> list[int]:
        even = swell.Function.from_name("a", "even")
        call = await even.spawn.aio(2)
        assert await call.get.aio(timeout=30) == 2
        await call.cancel.aio()
        return await swell.FunctionCall.gather.aio(*[await even.spawn.aio(x) for x in (4, 6)])

    assert asyncio.run(program()) == [4, 6]


@pytest.mark.shows("FunctionCall.get", "timeout")
def test_it_is_waited_for_as_long_as_one_likes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    call = spawned()
    only(server).may_run = False
    for timeout in (0, 0.01):
        with pytest.raises(TimeoutError, match="has not ended within") as raised:
            call.get(timeout=timeout)
        assert isinstance(raised.value, swell.exception.TimeoutError)
        assert not isinstance(raised.value, swell.exception.FunctionTimeoutError)
    # One request after the other, until there is something.
    monkeypatch.setattr(waiting, "WAIT_S", 0.001)
    looked = 0
    request = waiting.Waiting._request

    def counted(self: waiting.Waiting, asking: waiting.Asking) -> Any:
        nonlocal looked
        looked += 1
        only(server).may_run = looked > 3
        return request(self, asking)

    monkeypatch.setattr(waiting.Waiting, "_request", counted)
    assert call.get() == 2
    assert looked == 4
    for timeout in (-1, float("nan")):
        with pytest.raises(swell.Error, match="seconds"):
            call.get(timeout=timeout)


def test_how_long_a_request_waits_is_said_in_it(server: Server) -> None:
    call = spawned()
    call.get()
    call.get(timeout=0)
    assert server.waits_s == [50.0, 0.0]


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_a_timeout_is_kept_while_control_is_away(server: Server, timeout: float) -> None:
    call = spawned()
    server.unsure = 1_000_000
    with pytest.raises(TimeoutError, match="could not be asked within"):
        call.get(timeout=timeout)
    server.unsure = 1
    assert call.get(timeout=30) == 2
    # Asked again, it waits for what is left.
    assert max(server.waits_s[:-2], default=0.0) <= timeout
    assert server.waits_s[-1] < server.waits_s[-2] <= 30


def test_a_server_that_does_not_answer_is_not_waited_for_for_ever(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LATE_S", 0.2)
    call = spawned()
    server.silences = 1_000
    try:
        with pytest.raises(TimeoutError, match="could not be asked within"):
            call.get(timeout=0.1)
    finally:
        server.silences = 0
        server.silent.set()
    server.silent.clear()
    server.silences = 1
    monkeypatch.setattr(waiting, "WAIT_S", 0.1)
    try:
        assert call.get() == 2
    finally:
        server.silent.set()


def test_where_too_many_wait_it_is_looked_for_again_and_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "BUSY_S", 0.001)
    call = spawned()
    server.busy = 1
    only(server).may_run = False
    with pytest.raises(TimeoutError, match="has not ended within"):
        call.get(timeout=0.5)
    assert server.waits_s[0] > 0
    assert len(server.waits_s) > 2
    assert set(server.waits_s[1:]) == {0.0}
    only(server).may_run = True
    server.busy = 1
    assert call.get() == 2
    # What the call itself ended in is no answer of the queue.
    other = spawned(4)
    kept = server.queued[other.object_id]
    kept.state, kept.code = "failed", "busy"
    with pytest.raises(swell.Error, match="That is how it ended"):
        other.get()


def test_a_call_whose_answer_was_lost_is_sent_again_and_made_once(server: Server) -> None:
    server.unsure = 3
    call = spawned(8)
    assert len(server.queued) == 1
    server.unsure = 2
    assert call.get() == 8
    assert spawned(8).object_id != call.object_id


def test_without_pickles_it_is_as_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that may only call sends plain data, under the same key of the call."""
    asked = protocol.queued(protocol.call("a/even", (2,), {}), "mine")
    assert asked.plain is not None
    for request in (asked, asked.plain()):
        assert (request.headers[http.ASYNC], request.headers[http.IDEMPOTENCY_KEY]) == ("true", "mine")
    assert asked.headers["content-type"] == http.PICKLE
    assert asked.plain().headers["content-type"] == http.MSGPACK


def test_it_does_not_end_with_the_input_that_sent_it(server: Server) -> None:
    token = context.current.set(context.Input("q1", time.monotonic() + 5))
    try:
        assert protocol.queued(protocol.call("a/even", (), {}), "k").until > time.monotonic() + 1e6
    finally:
        context.current.reset(token)


def test_a_call_that_is_cancelled_has_no_result(server: Server) -> None:
    call = spawned()
    call.cancel()
    assert only(server).state == "cancelled"
    with pytest.raises(swell.exception.RemoteError) as raised:
        call.get()
    assert raised.value.code == "cancelled"
    call.cancel()


@pytest.mark.shows("FunctionCall.gather", "function_calls")
def test_several_are_gathered_in_their_order(server: Server) -> None:
    found = [spawned(2 * x) for x in range(40)]
    assert swell.FunctionCall.gather(*found) == [2 * x for x in range(40)]
    assert swell.FunctionCall.gather() == []
    with pytest.raises(Odd):
        swell.FunctionCall.gather(found[0], spawned(1), found[1])


def test_an_id_that_is_not_known_is_told_so(server: Server) -> None:
    with pytest.raises(swell.exception.NotFoundError) as raised:
        swell.FunctionCall.from_id("fc-gone").get()
    assert raised.value.code == "unknown_call"
    for id in ("cat.jpg", 17):
        with pytest.raises(swell.Error, match="no id of a call"):
            swell.FunctionCall.from_id(id)  # type: ignore[arg-type]


def test_what_streams_or_answers_the_web_cannot_be_spawned(server: Server) -> None:
    app = swell.App("a")
    numbers = app.function()(deployable.numbers)
    with app.run(), pytest.raises(swell.Error) as raised:
        numbers.spawn(3)
    assert raised.value.code == "is_generator"
    assert server.queued == {}


def test_within_a_function_the_call_that_it_works_on_has_a_name() -> None:
    assert swell.current_function_call_id() is None
    for request, id in (("g1-2", None), ("fc-01JD", "fc-01JD")):
        token = context.current.set(context.Input(request, time.monotonic() + 5))
        try:
            assert swell.current_function_call_id() == id
        finally:
            context.current.reset(token)


# -- an older server -------------------------------------------------------------------------------


@pytest.fixture
def older(server: Server) -> Server:
    server.older = True
    return server


def test_a_server_that_knows_calls_one_by_one_alone_is_asked_so(older: Server) -> None:
    found = at_once(16, lambda x: spawned(2 * x))
    assert len({call.object_id for call in found}) == 16
    assert at_once(16, lambda x: found[x].get(timeout=60)) == [2 * x for x in range(16)]
    assert swell.FunctionCall.gather(*found) == [2 * x for x in range(16)]
    # From then on it is known.
    refused, groups = older.refused, len(older.groups)
    more = at_once(16, lambda x: spawned(2 * x))
    assert at_once(16, lambda x: more[x].get(timeout=60)) == [2 * x for x in range(16)]
    assert (older.refused, len(older.groups)) == (refused, groups)
    assert len(older.queued) + sum(len(group.taken) for group in older.groups.values()) == 32


def test_what_such_a_server_says_of_a_call_is_said_as_ever(older: Server) -> None:
    with pytest.raises(Odd, match="3"):
        spawned(3).get()
    assert older.refused == 1
    call = swell.FunctionCall.from_id("fc-00000000000000000000000009")
    with pytest.raises(swell.exception.NotFoundError):
        call.get()
    waits = spawned()
    older.queued[waits.object_id].may_run = False
    for timeout in (0, 0.05):
        with pytest.raises(TimeoutError):
            waits.get(timeout=timeout)
    older.busy = older.unsure = 1
    older.queued[waits.object_id].may_run = True
    assert waits.get() == 2
    assert (older.refused, older.busy, older.unsure) == (1, 0, 0)


@pytest.mark.parametrize(("unsure", "accepts"), [(0, 1), (0, 3), (2, 0), (4, 5)])
def test_such_a_server_accepts_each_of_many_once_although_answers_are_lost(
    older: Server, unsure: int, accepts: int
) -> None:
    older.unsure, older.accepts = unsure, accepts
    found = at_once(16, lambda x: spawned(2 * x))
    assert at_once(16, lambda x: found[x].get(timeout=60)) == [2 * x for x in range(16)]
    assert len(older.queued) + sum(len(group.taken) for group in older.groups.values()) == 16


# -- many at once ----------------------------------------------------------------------------------


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What it gives in so many threads that begin together."""
    together = threading.Barrier(count)

    def begin(number: int) -> Any:
        together.wait(60)
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(begin, range(count)))


def test_what_many_threads_spawn_and_wait_for_at_once_each_has_its_own(server: Server) -> None:
    found = at_once(48, lambda x: spawned(2 * x))
    assert len({call.object_id for call in found}) == 48
    assert at_once(48, lambda x: found[x].get(timeout=60)) == [2 * x for x in range(48)]
    again = [swell.FunctionCall.from_id(call.object_id) for call in found]
    assert swell.FunctionCall.gather(*again) == [2 * x for x in range(48)]


def test_those_that_differ_are_not_sent_together(server: Server) -> None:
    model = swell.Cls.from_name("a", "M", environment_name="staging")()
    even = swell.Function.from_name("a", "even")

    async def program() -> list[Any]:
        # The first goes alone, and the others gather behind it.
        sent = [model.m.spawn.aio(x) if x % 2 else even.spawn.aio(x) for x in range(12)]
        found = await asyncio.gather(*sent)
        return [await call.get.aio(timeout=60) for call in found]

    assert asyncio.run(program()) == [-x if x % 2 else x for x in range(12)]
    assert {*server.calls} == {"a/even", "staging/a/M.m"}
    assert len(server.calls) == 12


@pytest.mark.parametrize(("unsure", "accepts"), [(0, 1), (0, 3), (2, 0), (4, 5)])
def test_each_of_many_is_made_once_although_answers_are_lost_and_limits_let_in_a_few(
    server: Server, unsure: int, accepts: int
) -> None:
    server.unsure, server.accepts = unsure, accepts
    found = at_once(16, lambda x: spawned(2 * x))
    assert at_once(16, lambda x: found[x].get(timeout=60)) == [2 * x for x in range(16)]
    assert len(server.queued) + sum(len(group.taken) for group in server.groups.values()) == 16


def test_one_that_cannot_be_sent_keeps_no_other_from_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsendable(*_: Any, **__: Any) -> protocol.Request:
        raise swell.Error("cannot_pickle", "An argument cannot be sent with a key that may only call.")

    monkeypatch.setattr(protocol, "grouped", unsendable)
    found = at_once(12, lambda x: spawned(2 * x))
    assert at_once(12, lambda x: found[x].get(timeout=60)) == [2 * x for x in range(12)]
    assert len(server.queued) == 12


def test_in_a_forked_child_it_works_too(server: Server) -> None:
    call = spawned()
    assert call.get() == 2
    child = os.fork()
    if child == 0:
        os._exit(0 if call.get(timeout=60) == 2 and spawned(4).get(timeout=60) == 4 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
