"""Do calls reach a server and come back as values, as the function's own exceptions, or as clear errors?"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pickle
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import swell
from sdk.server import KEY, STOPPED, Server, serving
from swell.model.retrying import Retrying
from swell.sdk import protocol
from swell.sdk.bridge import drive, iterate
from swell.sdk.client import Client
from swell.sdk.protocol import Answer, Lines, Request
from swell.sdk.transport import again
from swell.wire.api import LogRow
from swell.wire.http import error_body


class Odd(Exception):
    """An exception of the user's own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def double(x: int, plus: int = 0) -> int:
    return 2 * x + plus


def even(x: int) -> int:
    if x % 2:
        raise Odd(x)
    return x


def count(n: int) -> Iterator[int]:
    for at in range(n):
        if at == 5:
            raise Odd(at)
        yield at


def forever() -> Iterator[int]:
    at = 0
    while True:
        yield at
        at += 1


class Flaky:
    """Fails a number of times, then answers."""

    def __init__(self, failures: int) -> None:
        self.left = failures

    def __call__(self) -> str:
        self.left -= 1
        if self.left >= 0:
            raise ConnectionError("not yet")
        return "there"


class Unpickled:
    def __reduce__(self) -> Any:
        raise TypeError("it holds a socket")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving({"double": double, "even": even, "count": count, "forever": forever, "C.m": double}) as state:
        monkeypatch.setenv("SWELL_URL", state.url)
        monkeypatch.setenv("SWELL_KEY", KEY)
        yield state


def named(name: str) -> swell.Function:
    return swell.Function.from_name("app", name)


def test_a_call_gives_the_value(server: Server) -> None:
    assert named("double").remote(3, plus=1) == 7
    assert asyncio.run(named("double").remote.aio(4)) == 8
    assert swell.Cls.from_name("app", "C", environment_name="staging")().m.remote(5) == 10
    assert server.calls == ["app/double", "app/double", "staging/app/C.m"]


def printed(error: BaseException) -> str:
    """What Python prints where nobody catches it."""
    return "".join(traceback.format_exception(error))


def failed_call() -> None:
    named("even").remote(3)


def failed_stream() -> None:
    list(named("count").remote_gen(9))


def failed_map() -> None:
    list(named("even").map([3]))


async def failed_aio() -> None:
    await named("even").remote.aio(3)


@pytest.mark.parametrize("call", [failed_call, failed_stream, failed_map, lambda: asyncio.run(failed_aio())])
def test_an_exception_is_raised_as_itself_with_the_line_that_failed_there(
    server: Server, call: Callable[[], None]
) -> None:
    with pytest.raises(Odd) as raised:
        call()
    assert raised.value.number in (3, 5)
    there, here = printed(raised.value).split("The above exception was the direct cause of the following exception")
    assert there.startswith("swell.RemoteTraceback: in a replica\nTraceback (most recent call last):\n")
    assert "    raise Odd(" in there
    assert "swell why q7" in here.splitlines()[-1]
    assert "/swell/sdk/" not in here


def test_an_exception_that_map_returns_has_its_traceback(server: Server) -> None:
    (kept,) = named("even").map([3], return_exceptions=True)
    assert "    raise Odd(x)" in printed(kept)
    assert "swell why q7" in kept.__notes__[-1]


def test_an_exception_whose_class_is_not_here_is_told_with_its_traceback(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.functions["loses"] = loses
    monkeypatch.setattr(Lost, "__reduce__", lambda self: (pickle.loads, (b"cnowhere_at_all\nLost\n.",)))
    with pytest.raises(swell.exception.RemoteError, match="Lost: gone") as raised:
        named("loses").remote()
    assert raised.value.code == "exception"
    assert "No module named 'nowhere_at_all'" in raised.value.__notes__[0]
    assert '    raise Lost("gone")' in printed(raised.value)


class Lost(Exception):
    """Of a module that only the replica has."""


def loses() -> None:
    raise Lost("gone")


def test_an_error_of_the_platform_has_code_message_and_request(server: Server) -> None:
    with pytest.raises(swell.exception.NotFoundError) as raised:
        named("missing").remote()
    assert (raised.value.code, raised.value.request, raised.value.status) == ("unknown_function", "q7", 404)
    assert "no function app/missing" in str(raised.value)


def test_an_error_of_the_platform_crosses_processes(server: Server) -> None:
    with pytest.raises(swell.exception.NotFoundError) as raised:
        named("missing").remote()
    again = pickle.loads(pickle.dumps(raised.value))
    assert (type(again), str(again), again.__dict__) == (
        swell.exception.NotFoundError,
        str(raised.value),
        raised.value.__dict__,
    )


def test_an_argument_that_cannot_be_sent_is_named(server: Server) -> None:
    with pytest.raises(swell.Error, match=r"Argument plus of app/double \(Unpickled\).*it holds a socket"):
        named("double").remote(1, plus=Unpickled())
    with pytest.raises(swell.Error, match="Argument number 1 of app/double"):
        named("double").remote(Unpickled())
    assert server.calls == []


def test_what_cannot_be_sent_is_told_without_the_parameters_of_its_class() -> None:
    target = "bank/Bank.convert?currency=eur"
    with pytest.raises(swell.Error, match=r"Argument number 1 of bank/Bank\.convert \(function\) cannot be sent"):
        protocol.call(target, (lambda: 1,), {})
    asked = protocol.call(target, (object(),), {})
    assert asked.plain is not None
    with pytest.raises(swell.Error, match=r"An argument of bank/Bank\.convert cannot be sent"):
        asked.plain()
    plain = protocol.call(target, (1,), {}).plain
    assert plain is not None
    assert asked.path == plain().path == f"/call/{target}"


def test_no_server_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("SWELL_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(swell.Error, match=r"No Swell server at http://127\.0\.0\.1:.*swell up") as raised:
        named("double").remote(1)
    assert raised.value.code == "no_server"


def test_a_wrong_key_is_the_servers_own_message(server: Server) -> None:
    with pytest.raises(swell.Error, match="The key is not this server's"):
        Client(server.url, "sk-other").apps()


def test_the_key_comes_from_the_state_directory_when_the_environment_has_none(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("SWELL_KEY")
    monkeypatch.setenv("SWELL_HOME", str(tmp_path))
    (tmp_path / "key").write_text(KEY + "\n")
    assert named("double").remote(1) == 2
    assert set(server.authorizations) == {f"Bearer {KEY}"}


def test_a_generator_streams_and_raises_where_it_failed(server: Server) -> None:
    assert list(named("count").remote_gen(4)) == [0, 1, 2, 3]
    items = named("count").remote_gen(9)
    assert [next(items) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(Odd) as raised:
        next(items)
    assert raised.value.number == 5

    async def gather() -> list[int]:
        return [item async for item in named("count").remote_gen.aio(4)]

    assert asyncio.run(gather()) == [0, 1, 2, 3]


def test_leaving_a_stream_closes_the_connection(server: Server) -> None:
    for item in named("forever").remote_gen():
        if item == 3:
            break
    assert server.left.wait(10)

    async def peek() -> None:
        stream = named("forever").remote_gen.aio()
        assert await anext(stream) == 0
        await stream.aclose()

    server.left.clear()
    asyncio.run(peek())
    assert server.left.wait(10)


def test_a_call_of_the_wrong_kind_says_which_is_right(server: Server) -> None:
    with pytest.raises(swell.Error, match=r"use \.remote_gen\(\)"):
        named("count").remote(3)
    with pytest.raises(swell.Error, match=r"use \.remote\(\)"):
        list(named("double").remote_gen(3))


def test_failures_are_sent_again_as_often_as_allowed(server: Server) -> None:
    server.functions["flaky"] = Flaky(2)
    retrying = Retrying(max_retries=2, initial_delay_s=0.0)

    async def call(target: str) -> object:
        asked = protocol.call(target, (), {})
        return protocol.result(await Client(server.url, KEY).transport.send(asked, retrying), target)

    assert drive(call("app/flaky")) == "there"
    assert server.calls == ["app/flaky"] * 3
    server.functions["flaky"] = Flaky(3)
    with pytest.raises(ConnectionError, match="not yet"):
        drive(call("app/flaky"))
    with pytest.raises(swell.Error):
        drive(call("app/missing"))
    assert server.calls.count("app/missing") == 1


def test_output_is_asked_for_again_until_it_is_refused_and_that_is_told(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.log_errors += [(503, "no_runner"), (502, "bad_gateway"), (503, "stopping")]
    heard: list[str] = []
    enough = threading.Event()

    def hear(row: LogRow) -> None:
        heard.append(row.text)
        if len(heard) == 8:
            server.log_errors.append((404, "unknown_app"))
            enough.set()

    followed = Client(server.url, KEY).follow_logs("app", "default", lambda: (1.0, 0.0), hear)
    assert enough.wait(30)
    with pytest.raises(swell.Error, match="not now"):
        followed.result(30)
    assert heard[:3] == ["app says 0", "app says 1", "app says 2"]
    assert "shown no longer: not now" in caplog.text


@pytest.mark.parametrize("way", ["call", "stream"])
def test_what_waited_for_too_long_is_sent_again_and_is_no_retry(server: Server, way: str) -> None:
    server.held = 3
    match way:
        case "call":
            assert named("double").remote(2) == 4
        case _:
            assert list(named("count").remote_gen(3)) == [0, 1, 2]
    assert (server.held, len(server.calls)) == (0, 4)


def test_what_waited_for_too_long_is_told_so_where_its_own_deadline_is_near(server: Server) -> None:
    server.held = 3
    asked = protocol.call("app/double", (2,), {})
    late = dataclasses.replace(asked, until=time.monotonic())
    answer = Client(server.url, KEY).transport.submit(late).result(30)
    with pytest.raises(swell.exception.ResourceExhaustedError):
        protocol.result(answer, "app/double")
    assert len(server.calls) == 1


def test_what_waits_for_a_limit_is_told_in_a_users_words(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.limited = 2
    assert Client(server.url, KEY).apps() == []
    assert server.limited == 0
    (told,) = (record.getMessage() for record in caplog.records if record.name.startswith("swell"))
    assert told.startswith("What is asked of the server waits for a limit: Requests of the key a")


def test_the_line_about_a_new_try_is_one_to_be_read() -> None:
    body = error_body("exception", "ValueError: " + "x" * 200_000 + "\nmore", "q1")
    said = again(Request("POST", "/call/app/flaky"), Answer(500, {}, body), 1, 2, 0.0)
    assert said.startswith("flaky failed with ValueError: xxx")
    assert said.endswith("xxx…; try 2 of 3 now")
    assert len(said) < 500


def test_map_keeps_order_and_takes_several_iterators(server: Server) -> None:
    assert list(named("double").map(range(200))) == [2 * x for x in range(200)]
    assert list(named("double").map([1, 2, 3], [10, 20])) == [12, 24]
    assert sorted(named("double").map(range(50), kwargs={"plus": 1}, order_outputs=False)) == list(range(1, 100, 2))
    assert list(named("double").starmap([(1, 2), (3, 4)])) == [4, 10]
    assert named("double").for_each(range(5)) is None
    assert list(named("double").map([])) == []
    assert list(named("double").map()) == []


def test_map_stops_at_the_first_exception_unless_told_otherwise(server: Server) -> None:
    with pytest.raises(Odd):
        list(named("even").map(range(10)))
    kept = list(named("even").map(range(4), return_exceptions=True))
    assert [getattr(item, "number", item) for item in kept] == [0, 1, 2, 3]
    with pytest.raises(Odd):
        named("even").for_each(range(10))
    named("even").for_each(range(10), ignore_exceptions=True)


def test_map_reads_its_input_only_as_far_as_it_must(server: Server) -> None:
    from swell.sdk.mapping import QUEUED_MIN

    taken = []

    def inputs() -> Iterator[int]:
        at = 0
        try:
            while True:
                taken.append(threading.current_thread())
                yield at
                at += 1
        finally:
            closed.set()

    closed = threading.Event()
    results = named("double").map(inputs())
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    results.close()  # type: ignore[attr-defined]
    assert closed.wait(10)
    assert len(taken) <= QUEUED_MIN + 3
    assert len(set(taken)) == 1


def test_leaving_a_map_cancels_what_is_in_flight(server: Server) -> None:
    release = threading.Event()
    server.functions["wait"] = lambda x: (x == 0 or release.wait(30)) and x
    results = named("wait").map(range(100))
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    (group,) = server.groups.values()
    assert group.cancelled
    release.set()
    group.workers.shutdown()
    assert len(server.calls) < 20, "what had not begun does not"


def test_map_within_asyncio_takes_asynchronous_input(server: Server) -> None:
    async def numbers() -> Any:
        for x in range(5):
            await asyncio.sleep(0)
            yield x

    async def go() -> tuple[list[int], list[int], int]:
        function = named("double")
        first = [item async for item in function.map.aio(numbers(), range(100))]
        second = [item async for item in function.starmap.aio([(1,), (2,)])]
        await function.for_each.aio(range(3))
        alone = await asyncio.gather(*(function.remote.aio(x) for x in range(20)))
        return first, second, sum(alone)

    assert asyncio.run(go()) == ([0, 3, 6, 9, 12], [2, 4], 380)

    with pytest.raises(swell.Error, match=r"use the \.aio form"):
        list(named("double").map(numbers_that_wait()))


async def numbers_that_wait() -> Any:
    await asyncio.sleep(0)
    yield 1


def test_cancelling_a_task_cancels_its_call(server: Server) -> None:
    begun, release = threading.Event(), threading.Event()
    server.functions["wait"] = lambda: (begun.set(), release.wait(30))

    async def go() -> None:
        task = asyncio.create_task(named("wait").remote.aio())
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())
    release.set()


def test_an_interrupt_ends_a_call(server: Server) -> None:
    release = threading.Event()

    def interrupt() -> None:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        release.wait(30)

    server.functions["wait"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        named("wait").remote()
    release.set()
    assert named("double").remote(2) == 4


def test_the_control_api(server: Server) -> None:
    client = Client(server.url, KEY)
    assert client.serving()
    assert not client.has_blob("sha256-0")
    client.put_blob("sha256-0", b"x")
    assert client.has_blob("sha256-0")
    assert server.blobs == {"sha256-0": b"x"}
    assert [row.text for row in client.logs("app")] == [*(f"app says {n}" for n in range(3)), STOPPED]
    assert not Client("http://127.0.0.1:9", KEY).serving()
    with pytest.raises(swell.Error, match="no app default/none"):
        client.stop("none")


def test_a_forked_child_calls_too(server: Server) -> None:
    assert named("double").remote(1) == 2
    child = os.fork()
    if child == 0:
        os._exit(0 if named("double").remote(21) == 42 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Files(SimpleHTTPRequestHandler):
    """Any server that is not ours."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("path", ["call", "apps", "page"])
def test_what_is_no_swell_server_is_told_so(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as other:
        threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        client = Client(f"http://127.0.0.1:{other.server_port}", KEY)
        asked = {
            "call": lambda: drive(client.transport.send(protocol.call("app/double", (1,), {}))),
            "apps": client.apps,
            # It answers with success, and that is no more of a Swell server's.
            "page": lambda: list(iterate(client.transport.stream(Request("GET", "/"), lambda _: Lines(dict)))),
        }
        with pytest.raises(swell.Error, match=r"What answers at http://127\.0\.0\.1:\d+ is no Swell server") as raised:
            asked[path]()
        assert raised.value.code == "no_server"
        assert "<" not in str(raised.value)
        assert not client.serving()
        other.shutdown()
