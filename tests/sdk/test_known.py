"""Is a function that is found by its name called as its author meant it: its retries, and whether it streams?"""

from __future__ import annotations

import asyncio
import math
import pickle
from collections.abc import Iterator

import pytest

import swell
from sdk import deployable
from sdk.server import KEY, Server, serving
from swell.sdk import binding
from swell.wire import context


class Failing:
    """Raises a number of times, then answers how often it was called."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    def __call__(self, x: int = 0) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise LookupError(self.calls)
        return self.calls


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    functions = {"plain": deployable.plain, "numbers": deployable.numbers, "Child.seen": lambda: "seen"}
    with serving({**functions, "Child.more": lambda: deployable.numbers(2)}) as state:
        monkeypatch.setenv("SWELL_URL", state.url)
        monkeypatch.setenv("SWELL_KEY", KEY)
        app = swell.App("a")
        twice = swell.Retries(max_retries=2, initial_delay=0.0)
        app.function(retries=twice)(deployable.plain)
        app.function()(deployable.numbers)
        app.cls(retries=twice)(deployable.Child)
        app.deploy()
        state.lookups = 0
        yield state


def test_nothing_is_called_where_there_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = context.Inside(app="", replica="", gateway_url="", call_key="")
    monkeypatch.setattr(context, "inside", [checked])
    with pytest.raises(swell.exception.InvalidError, match=r"within a function, or in a method with @swell\.enter"):
        swell.Function.from_name("a", "plain").remote()


def test_a_failed_call_is_tried_again_as_its_author_asked(server: Server) -> None:
    plain = swell.Function.from_name("a", "plain")
    assert server.lookups == 0
    server.functions["plain"] = Failing(2)
    assert plain.remote() == 3
    server.functions["plain"] = Failing(2)
    assert asyncio.run(plain.remote.aio()) == 3
    server.functions["plain"] = Failing(3)
    with pytest.raises(LookupError, match="3"):
        plain.remote()
    assert server.lookups == 1


def test_methods_of_a_class_share_one_look_up(server: Server) -> None:
    found = swell.Cls.from_name("a", "Child")
    server.functions["Child.seen"] = failing = Failing(2)
    assert found().seen.remote() == 3
    assert failing.calls == 3
    assert list(found().more.remote_gen()) == [0, 1]
    with pytest.raises(swell.Error, match=r"Child\.more is a generator: use \.remote_gen"):
        found().more.remote()
    assert server.lookups == 1


def test_a_call_of_the_wrong_kind_is_refused_before_it_is_sent(server: Server) -> None:
    plain, numbers = swell.Function.from_name("a", "plain"), swell.Function.from_name("a", "numbers")

    async def wrongly() -> None:
        with pytest.raises(swell.Error, match=r"numbers is a generator: use \.remote_gen"):
            await numbers.remote.aio(3)
        with pytest.raises(swell.Error, match=r"plain is not a generator: use \.remote\("):
            await anext(aiter(plain.remote_gen.aio(3)))

    asyncio.run(wrongly())
    with pytest.raises(swell.Error, match=r"use \.remote_gen"):
        numbers.remote(3)
    with pytest.raises(swell.Error, match=r"use \.remote_gen"):
        list(numbers.map([3]))
    with pytest.raises(swell.Error, match=r"use \.remote\("):
        list(plain.remote_gen(3))
    assert server.calls == []
    assert list(numbers.remote_gen(2)) == [0, 1]


def test_a_call_does_not_need_what_control_would_tell(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(binding, "_AGAIN_S", math.inf)
    server.control_answers.clear()
    plain = swell.Function.from_name("a", "plain")
    assert [plain.remote(x) for x in (1, 2, 3)] == [1, 2, 3]
    # On a busy machine the patience may end before the question has come here.
    assert server.lookups <= 1
    server.control_answers.set()
    assert swell.Function.from_name("nowhere", "plain").remote(4) == 4


def test_nothing_is_asked_without_the_api_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    here = context.Inside("a", "r1-1", server.url, KEY, "plain")
    monkeypatch.setattr(context, "inside", [here])
    assert swell.Function.from_name("a", "plain").remote(3) == 3
    assert server.lookups == 0


def test_a_handle_that_is_sent_along_keeps_what_it_knows(server: Server) -> None:
    app = swell.App("a")
    plain = app.function(retries=swell.Retries(max_retries=1, initial_delay=0.0))(deployable.plain)
    app.deploy()
    sent = pickle.loads(pickle.dumps(plain))
    server.functions["plain"] = Failing(1)
    assert sent.remote() == 2
    assert server.lookups == 0


def test_handles_to_one_server_share_its_connections(server: Server) -> None:
    plain = swell.Function.from_name("a", "plain")
    one, other = plain._resolve(), swell.Function.from_name("b", "plain")._resolve()
    assert one.client is other.client
