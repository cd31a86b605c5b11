"""Do the results of many calls come as they are done, however long the next input takes?"""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

import swell
from sdk.server import KEY, Server, serving

WAIT_S = 60.0
"""Long enough for any machine; nothing waits that long unless it fails."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving({"double": lambda x, plus=0: 2 * x + plus}) as state:
        monkeypatch.setenv("SWELL_URL", state.url)
        monkeypatch.setenv("SWELL_KEY", KEY)
        yield state


def double() -> swell.Function:
    return swell.Function.from_name("app", "double")


class Conversation:
    """Inputs of which each waits for the result of the one before."""

    def __init__(self) -> None:
        self.heard = threading.Semaphore(0)

    def inputs(self) -> Iterator[int]:
        for x in range(3):
            yield x
            assert self.heard.acquire(timeout=WAIT_S), f"no result for input {x}"

    def result(self, value: int) -> int:
        self.heard.release()
        return value


@pytest.mark.parametrize("ordered", [True, False])
def test_an_input_may_wait_for_the_result_of_the_one_before(server: Server, ordered: bool) -> None:
    talk = Conversation()
    assert [talk.result(x) for x in double().map(talk.inputs(), order_outputs=ordered)] == [0, 2, 4]
    pairs = Conversation()
    assert [pairs.result(x) for x in double().starmap((x, 1) for x in pairs.inputs())] == [1, 3, 5]


def test_so_it_may_within_asyncio(server: Server) -> None:
    async def waiting(heard: asyncio.Semaphore) -> AsyncIterator[int]:
        for x in range(3):
            yield x
            await asyncio.wait_for(heard.acquire(), WAIT_S)

    async def go() -> tuple[list[int], list[int], list[int]]:
        heard, beside, plain = asyncio.Semaphore(0), Conversation(), Conversation()
        alone = []
        async for x in double().map.aio(waiting(heard)):
            heard.release()
            alone.append(x)
        mixed = []
        heard = asyncio.Semaphore(0)
        async for x in double().map.aio(waiting(heard), beside.inputs()):
            heard.release()
            mixed.append(beside.result(x))
        return alone, mixed, [plain.result(x) async for x in double().map.aio(plain.inputs())]

    assert asyncio.run(go()) == ([0, 2, 4], [0, 3, 6], [0, 2, 4])


def failing() -> Iterator[int]:
    yield 1
    raise LookupError("no second input")


async def failing_too() -> AsyncIterator[int]:
    yield 1
    raise LookupError("no second input")


def test_what_the_inputs_raise_ends_it(server: Server) -> None:
    async def go() -> None:
        async for _ in double().map.aio(failing_too()):
            pass

    for call in (lambda: list(double().map(failing(), return_exceptions=True)), lambda: asyncio.run(go())):
        with pytest.raises(LookupError, match="no second input"):
            call()
    with pytest.raises(TypeError, match="not iterable"):
        list(double().map(5))  # type: ignore[arg-type]


def test_whoever_leaves_does_not_wait_for_the_next_input(server: Server) -> None:
    asked, release, closed = threading.Event(), threading.Event(), threading.Event()

    def inputs() -> Iterator[int]:
        try:
            yield 0
            asked.set()
            assert release.wait(WAIT_S)
            yield 1
        finally:
            closed.set()

    results = double().map(inputs())
    assert next(results) == 0
    assert asked.wait(WAIT_S)
    results.close()  # type: ignore[attr-defined]
    assert not closed.is_set()
    release.set()
    assert closed.wait(WAIT_S)
    assert server.calls == ["app/double"]


def test_whoever_leaves_within_asyncio_has_the_inputs_closed(server: Server) -> None:
    closed = []

    async def inputs() -> AsyncIterator[int]:
        try:
            yield 0
            await asyncio.sleep(WAIT_S)
        finally:
            closed.append(True)

    async def go() -> None:
        results = double().map.aio(inputs())
        assert await anext(results) == 0
        await results.aclose()  # type: ignore[attr-defined]
        assert closed

    asyncio.run(go())


def test_a_program_ends_although_its_inputs_never_do(server: Server) -> None:
    program = """
import threading, swell
def inputs():
    yield 1
    threading.Event().wait()
for x in swell.Function.from_name("app", "double").map(inputs()):
    print(x)
    break
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT_S * 4)
    assert (done.stdout, done.stderr, done.returncode) == ("2\n", "", 0)


def test_inputs_are_read_in_the_context_of_the_caller(server: Server) -> None:
    seen = contextvars.ContextVar("seen", default=0)
    seen.set(4)
    assert list(double().map(seen.get() for _ in range(2))) == [8, 8]


def test_a_plain_call_within_asyncio_refuses_what_only_asyncio_can_read(server: Server) -> None:
    async def go() -> None:
        with pytest.raises(swell.Error, match=r"use the \.aio form"):
            list(double().map(failing_too()))

    asyncio.run(go())
