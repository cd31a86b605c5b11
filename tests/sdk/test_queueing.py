"""Is a call put into the queue as its function was told to, and is its caller told what it is not for?"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swell
from sdk import deployable
from sdk.server import KEY, Server, serving
from swell.sdk import mapping, protocol
from swell.sdk.binding import Known, Named
from swell.sdk.marks import Given
from swell.sdk.queueing import IN_TURN, Queueing
from swell.sdk.retries import NEVER
from swell.wire import http

NONE = dict.fromkeys(("priority", "delay", "idempotency_key", "timeout"))
HOW = {"priority": 7, "delay": 90.5, "timeout": 2}
HEADERS = {"swell-priority": "7", "swell-delay": "90.500", "swell-timeout": "2.000"}


def numbers(n: int) -> Iterator[int]:
    yield from range(n)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    functions = {"double": lambda x: 2 * x, "plain": lambda *a, **k: (a, k), "numbers": numbers}
    with serving(functions) as state:
        monkeypatch.setenv("SWELL_URL", state.url)
        monkeypatch.setenv("SWELL_KEY", KEY)
        yield state


def double(**how: Any) -> swell.Function:
    return swell.Function.from_name("a", "double").with_queueing(**how)


def asked(server: Server) -> list[dict[str, str]]:
    return [{name: value for name, value in each.items() if name in HEADERS} for each in server.how]


@pytest.mark.shows("Function.with_queueing", "priority", "delay", "timeout")
@pytest.mark.parametrize(
    "use",
    [
        lambda f: [f.spawn(1).get()],
        lambda f: f.spawn_map([1]).get() and [2],
        lambda f: list(f.map([1])),
        lambda f: list(f.starmap([(1,)])),
        lambda f: f.for_each([1]) or [2],
    ],
)
def test_whatever_goes_by_the_queue_goes_so(server: Server, use: Callable[[swell.Function], list[int]]) -> None:
    for name, value in HOW.items():
        server.how.clear()
        assert use(double(**{name: value})) == [2]
        header = f"swell-{name}"
        assert asked(server) == [{"swell-priority": "0", header: HEADERS[header]}]
    server.how.clear()
    assert use(double(**HOW)) == [2]
    assert use(double()) == [2]
    assert asked(server) == [HEADERS, {"swell-priority": "0"}]


@pytest.mark.shows("Function.with_queueing", "idempotency_key")
def test_a_call_with_a_key_of_the_users_own_is_made_once(server: Server) -> None:
    once = double(idempotency_key="order-17")
    with ThreadPoolExecutor(8) as threads:
        calls = [*threads.map(once.spawn, [4] * 8)]
    assert len(set(calls)) == 1
    assert calls[0].get() == 8
    assert {each["idempotency-key"] for each in server.how} == {"order-17"}
    assert double(idempotency_key="order-18").spawn(4) != calls[0]
    assert double().spawn(4) != calls[0]
    # Also where it is of an event, which has one by itself.
    event = swell.Event("1", "here", "test")
    assert once.spawn(event) == calls[0] != double().spawn(event)


def test_what_is_said_later_counts_over_what_was_said_and_stays_with_the_function(server: Server) -> None:
    app = swell.App("a")
    function = app.function()(deployable.plain)
    with app.run():
        first = function.with_queueing(priority=1, delay=2)
        later = first.with_queueing(priority=0, timeout=3.5)
        for each in (later, pickle.loads(pickle.dumps(later)), later.with_queueing()):
            each.spawn()
        assert asked(server) == 3 * [{"swell-priority": "0", "swell-delay": "2.000", "swell-timeout": "3.500"}]
        server.how.clear()
        function.spawn()
        assert asked(server) == [{"swell-priority": "0"}], "it is another one"
        assert later.local() == function.local()


def test_a_job_that_is_waited_for_goes_so_too(server: Server) -> None:
    server.jobs.add("double")
    job = Known(False, NEVER, gang=True)
    found = swell.Function("double", Named("a", None), known=job)
    assert found.with_queueing(priority=3).remote(4) == 8
    assert asked(server) == [{"swell-priority": "3"}]


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda f: f.remote(1), r"\.remote\(\) does not put them there: use \.spawn"),
        (lambda f: list(f.remote_gen(1)), r"\.remote_gen\(\) does not"),
        (lambda f: list(f.map([1])), "a map of one version"),
    ],
)
def test_what_does_not_go_by_the_queue_is_refused(server: Server, use: Callable[[Any], Any], words: str) -> None:
    name = "numbers" if "gen" in words else "double"
    function = swell.Function.from_name("a", name, version=3 if "version" in words else None)
    with pytest.raises(swell.Error, match=words) as raised:
        use(function.with_queueing(priority=0, delay=1))
    assert raised.value.code == "bad_call"
    assert server.calls == server.how == []
    # Said of nothing, it is as before.
    use(function.with_queueing(priority=1).with_queueing(priority=0))


def test_one_key_is_not_for_many_inputs(server: Server) -> None:
    once = double(idempotency_key="k")
    for use in (once.map, once.spawn_map, once.for_each, lambda inputs: once.starmap((x,) for x in inputs)):
        with pytest.raises(swell.Error, match="is for one call"):
            list(use([1]) or [])
    assert server.how == []


def test_an_input_that_is_too_large_for_the_queue_is_not_called_directly_then(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "INPUT_MAX", 1000)
    server.functions["double"] = len
    sizes = [10, 5000, 20]
    assert list(double(priority=1).map([bytes(size) for size in sizes])) == sizes
    (group,) = server.groups.values()
    assert sorted(group.taken) == [0, 1, 2]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"priority": 101}, "from -100 to 100"),
        ({"priority": -101}, "from -100 to 100"),
        ({"priority": 1.0}, "whole number"),
        ({"priority": True}, "whole number"),
        ({"delay": -0.1}, "seconds from 0 to 2592000"),
        ({"delay": 2592001}, "seconds from 0"),
        ({"delay": math.nan}, "seconds from 0"),
        ({"delay": "10m"}, "seconds from 0"),
        ({"idempotency_key": ""}, "1 to 255"),
        ({"idempotency_key": "a b"}, "without spaces"),
        ({"idempotency_key": "é"}, "ASCII"),
        ({"idempotency_key": "k" * 256}, "1 to 255"),
        ({"idempotency_key": 17}, "1 to 255"),
        ({"timeout": 0}, "seconds above 0"),
        ({"timeout": math.inf}, "at most a year"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(how: dict[str, Any], words: str) -> None:
    (name,) = how
    with pytest.raises(swell.Error, match=words) as raised:
        double(**how)
    assert f"Function.with_queueing({name}=" in raised.value.message


@given(st.none() | st.integers(-100, 100), st.none() | st.floats(0, 2592000), st.none() | st.floats(1e-9, 31_536_000))
def test_the_server_is_told_what_was_said(priority: int | None, delay: float | None, timeout: float | None) -> None:
    values = {**NONE, "priority": priority, "delay": delay, "timeout": timeout}
    headers = IN_TURN.over(Given("Function.with_queueing", values)).headers
    assert int(headers[http.PRIORITY]) == (priority or 0)
    assert float(headers.get(http.DELAY, 0)) == pytest.approx(delay or 0, abs=0.001)
    assert float(headers.get(http.TIMEOUT, 0)) == pytest.approx(timeout or 0, abs=0.001)
    assert (http.TIMEOUT in headers) == (timeout is not None)
    assert float(headers.get(http.TIMEOUT, 1)) > 0


def test_what_is_put_into_the_queue_in_one_way_is_so_in_every_form() -> None:
    how, request = Queueing(7, 1.5, "", 2.5), protocol.call("a/f", (1,), {})
    one, many = protocol.queued(request, "k", how), protocol.grouped([request, request], "fg-1", 0, how=how)
    for each in (one, many):
        assert each.plain is not None
        for form in (each, each.plain()):
            assert form.headers.items() >= how.headers.items()
