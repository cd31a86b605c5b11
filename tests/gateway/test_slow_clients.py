"""Does every way to keep the gateway waiting end by its limit, and hold neither a slot nor memory after it?"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable

import pytest
from rig import PATIENCE_S, Browser, Exchange, Reader, Rig, request, until

from swell.gateway import client
from swell.gateway.client import Client
from swell.gateway.upstream import READING_UPSTREAM

pytestmark = pytest.mark.slow

Play = Callable[..., None]

CHUNKED = b"POST /call/app/fn HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
HELD_MAX = 4 * 1024 * 1024
"""Bytes that the gateway may keep for one client that does not read: a few reads' worth of answers."""


def clients(rig: Rig) -> set[Client]:
    return rig.gateway.clients


def unsent(rig: Rig) -> int:
    return sum(client.transport.get_write_buffer_size() for client in clients(rig))


async def all_gone(rig: Rig) -> None:
    await until(lambda: not clients(rig), "the end of all connections")
    assert rig.timers == 0
    assert rig.shared.held_bytes == 0


async def ended_as(rig: Rig, pool: str) -> list[tuple[int, str]]:
    """What the records say of requests that a pool had, once all clients are gone and its slots are free."""
    await all_gone(rig)
    await until(lambda: rig.control.levels(pool)[-1:] == [(0, 0)], "the slot")
    await until(rig.control.records, "its record")
    return [(each.status, each.error) for each in rig.control.records()]


async def drip(browser: Browser, data: bytes, answered: asyncio.Task[object]) -> None:
    """Send byte by byte, faster than any silence is noticed, until there is an answer or an end."""
    for at in range(len(data)):
        if answered.done():
            return
        browser.send(data[at : at + 1])
        await asyncio.sleep(0.02)


async def deaf(rig: Rig) -> socket.socket:
    """A client whose system takes as little as it can, and that reads nothing of that."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", rig.port))
    return sock


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after a last answer is thrown away for a short time only."""
    monkeypatch.setattr(client, "LINGER_S", 0.3)
    monkeypatch.setattr(client, "LINGER_MAX_S", 1.0)


@pytest.mark.usefixtures("impatient")
def test_a_head_that_drips_in_is_408(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()
        answered = asyncio.ensure_future(browser.answer())
        await drip(browser, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 2000, answered)
        answer = await answered
        assert (answer.status, answer.error["code"]) == (408, "slow_client")
        assert await browser.rest() == b""
        await all_gone(rig)

    play(scenario, control=False, header_timeout_s=0.2)


def test_empty_lines_do_not_keep_an_idle_connection(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()
        assert (await browser.call("/healthz", method="GET")).status == 200
        ended = asyncio.ensure_future(browser.rest())
        await drip(browser, b"\r\n" * 1000, ended)
        assert await ended == b""
        await all_gone(rig)

    play(scenario, control=False, idle_timeout_s=0.2)


DRIPS = {
    "its bytes": (request("/call/app/fn", content_length="3000"), b"y"),
    "its chunks": (CHUNKED, b"1\r\ny\r\n"),
    "an extension": (CHUNKED + b"5;", b"y"),
    "zeros of a size": (CHUNKED, b"0"),
    "trailers": (CHUNKED + b"0\r\n", b"x: y\r\n"),
    "what was expected": (request("/call/app/fn", content_length="3000", expect="100-continue"), b"y"),
}
"""How a body may never end: how it begins, and what then comes of it again and again."""


@pytest.mark.parametrize("name", DRIPS)
def test_a_body_that_drips_in_ends_by_the_deadline_and_frees_its_slot(play: Play, name: str) -> None:
    begins, drop = DRIPS[name]

    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        pool = await rig.deploy(replica, timeout_s=0.4)
        browser = await rig.browser()
        browser.send(begins)
        answered = asyncio.ensure_future(browser.answer())
        await drip(browser, drop * 2000, answered)
        answer = await answered
        assert (answer.status, answer.error["code"]) == (504, "deadline")
        await until(lambda: replica.open == 0, "the cancel")
        await until(lambda: rig.control.levels(pool)[-1:] == [(0, 0)], "the slot")
        browser.close()
        await all_gone(rig)

    play(scenario)


@pytest.mark.usefixtures("impatient")
def test_an_unwanted_body_that_drips_in_is_not_waited_for(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()
        browser.send(request("/healthz", content_length="3000"))
        assert (await browser.answer()).status == 405
        ended = asyncio.ensure_future(browser.rest())
        await drip(browser, b"y" * 2000, ended)
        assert await ended == b""
        await all_gone(rig)

    play(scenario, control=False, body_timeout_s=0.2)


def test_answers_that_are_not_read_do_not_pile_up_and_are_dropped(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        sock = await deaf(rig)
        loop = asyncio.get_running_loop()
        many = request("/nothing", method="GET") * 500
        sending = asyncio.ensure_future(_send_for_ever(loop, sock, many))
        await until(lambda: unsent(rig) > 0, "a client that does not read")
        while clients(rig):
            assert unsent(rig) < HELD_MAX
            await asyncio.sleep(0.01)
        await all_gone(rig)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        sock.close()

    play(scenario, control=False, idle_timeout_s=0.4)


async def _send_for_ever(loop: asyncio.AbstractEventLoop, sock: socket.socket, data: bytes) -> None:
    while True:
        await loop.sock_sendall(sock, data)


@pytest.mark.slow
def test_pipelined_requests_of_a_slow_reader_are_all_answered(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()
        browser.writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's own transports have it
        browser.send(request("/healthz") * 20_000)
        await until(lambda: unsent(rig) > 0, "a client that does not read")
        browser.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(20_000):
            assert (await browser.answer()).status == 405

    play(scenario, control=False)


@pytest.mark.parametrize("ends", ["connection: close", "its deadline", "its silence", "an end of its requests"])
def test_a_last_answer_that_is_not_read_is_dropped(play: Play, ends: str) -> None:
    running = ends in ("its deadline", "its silence")

    async def scenario(rig: Rig) -> None:
        async def large(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            try:
                await exchange.answer(body=b"x" * 8_000_000)
            except ConnectionError:
                pass

        replica = await rig.replica(large)
        pool = await rig.deploy(replica, timeout_s=0.5 if ends == "its deadline" else 30.0)
        await rig.deploy(replica, name="small")
        sock = await deaf(rig)
        loop = asyncio.get_running_loop()
        if running:
            await loop.sock_sendall(sock, request("/call/app/fn"))
            await until(lambda: rig.control.levels(pool)[-1:] == [(0, 1)], "the request")
        else:
            last = request("/nothing", connection="close") if ends == "connection: close" else b""
            await loop.sock_sendall(sock, request("/nothing") * 30_000 + last)
            if not last:
                sock.shutdown(socket.SHUT_WR)
        await until(lambda: unsent(rig) > 0, "a client that does not read")
        await all_gone(rig)
        await until(lambda: replica.running == 0, "the cancel")
        if running:
            await until(lambda: rig.control.levels(pool)[-1:] == [(0, 0)], "the slot")
        sock.close()

    play(scenario, idle_timeout_s=30.0 if ends == "its deadline" else 0.4)


def test_hundreds_of_idle_connections_end_and_leave_nothing(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        silent = [await rig.browser() for _ in range(200)]
        begun = [await rig.browser() for _ in range(100)]
        for browser in begun:
            assert (await browser.call("/healthz", method="GET")).status == 200
        assert (await (await rig.browser()).call("/healthz", method="GET")).status == 200
        for browser in (*silent, *begun):
            assert await browser.rest() == b""
        await all_gone(rig)

    # Long enough for all of them to be opened on a busy machine.
    play(scenario, control=False, idle_timeout_s=3.0, header_timeout_s=3.0)


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HT", request("/call/app/fn", content_length="9") + b"hello"])
def test_a_client_that_closed_its_sending_side_too_early_is_let_go(play: Play, sent: bytes) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica)
        browser = await rig.browser()
        browser.send(sent)
        if sent.endswith(b"hello"):
            await until(lambda: replica.open, "the request")
        browser.writer.write_eof()
        assert await browser.rest() == b""
        await all_gone(rig)
        await until(lambda: replica.open == 0, "the cancel")

    play(scenario)


def test_time_in_which_a_client_was_not_read_is_not_its_own(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def slow(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            await asyncio.sleep(0.5)
            await exchange.answer()

        await rig.deploy(await rig.replica(slow))
        browser = await rig.browser()
        third = request("/healthz", method="GET")
        # While the first two are under way the gateway does not read the rest of the third, however early it was sent.
        browser.send(request("/call/app/fn") + request("/call/app/fn") + third[:20])
        await until(lambda: any(client.current is not None for client in clients(rig)), "the first")
        browser.send(third[20:])
        assert [(await browser.answer("POST")).status for _ in range(3)] == [200, 200, 200]

    play(scenario, header_timeout_s=0.3)


async def uploading(rig: Rig, head: bytes, piece: bytes) -> socket.socket:
    """A client of whose body no more is taken."""
    sock = socket.socket()
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", rig.port))
    await loop.sock_sendall(sock, head + piece)
    await until(lambda: rig.replicas[0].seen, "the request")
    while not any(each.unread & READING_UPSTREAM for each in clients(rig)):
        await loop.sock_sendall(sock, piece)
        await asyncio.sleep(0)
    return sock


async def fill(sock: socket.socket) -> None:
    """Send until the system takes no more: what it moves on meanwhile makes room again."""
    while select.select([], [sock], [], 0)[1]:
        sock.send(bytes(65536))
        if not select.select([], [sock], [], 0)[1]:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("more", [False, True], ids=["all sent", "more to send"])
def test_a_client_that_leaves_while_nobody_takes_its_body_is_noticed(play: Play, more: bool) -> None:
    async def takes_nothing(exchange: Exchange, reader: Reader) -> None:
        await asyncio.Event().wait()

    async def scenario(rig: Rig) -> None:
        pool = await rig.deploy(await rig.replica(takes_nothing), timeout_s=600.0)
        head = request("/call/app/fn", content_length="50000000", **({"expect": "100-continue"} if more else {}))
        sock = await uploading(rig, head, bytes(65536))
        if more:
            # Its end is behind what its system has still to send: it is asked whether it is there, if it expects to be.
            await fill(sock)
        sock.close()
        assert await ended_as(rig, pool) == [(499, "client_left")]

    play(scenario)


def test_a_client_that_sent_the_next_request_and_left_is_noticed(play: Play) -> None:
    async def never(exchange: Exchange, reader: Reader) -> None:
        await exchange.read_body(reader)
        await asyncio.Event().wait()

    async def scenario(rig: Rig) -> None:
        pool = await rig.deploy(await rig.replica(never), timeout_s=600.0)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"first") + request("/call/app/fn", b"next"))
        await until(lambda: rig.control.levels(pool)[-1:] == [(0, 1)], "the first runs")
        browser.close()
        assert await ended_as(rig, pool) == [(499, "client_left")]

    play(scenario)


def test_all_that_was_sent_before_the_end_is_answered_though_the_end_was_seen_first(play: Play) -> None:
    gate = asyncio.Event()

    async def counts(exchange: Exchange, reader: Reader) -> None:
        size = len(await exchange.read_body(reader))
        await gate.wait()
        await exchange.answer(body=b"%d" % size)

    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(counts))
        browser = await rig.browser()
        # More than comes in one read: the last ones are not read before their turn.
        for _ in range(10):
            browser.send(request("/call/app/fn", bytes(100_000)))
        browser.writer.write_eof()
        await until(lambda: any(each.probes for each in clients(rig)), "it is asked whether it is there")
        assert not any(each.half_closed for each in clients(rig))
        gate.set()
        assert [(await browser.answer()).body for _ in range(10)] == [b"100000"] * 10
        assert await browser.rest() == b""

    play(scenario)


def test_a_client_that_has_sent_all_of_a_body_that_nobody_takes_yet_gets_its_answer(play: Play) -> None:
    gate = asyncio.Event()

    async def takes_it_later(exchange: Exchange, reader: Reader) -> None:
        await gate.wait()
        await exchange.answer(body=b"%d" % len(await exchange.read_body(reader)))

    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(takes_it_later))
        sock = await uploading(rig, CHUNKED, b"8000\r\n%b\r\n" % bytes(0x8000))
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, b"0\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        await until(lambda: any(each.half_closed for each in clients(rig)), "its end is heard")
        gate.set()
        told = b""
        async with asyncio.timeout(PATIENCE_S):
            while more := await loop.sock_recv(sock, 65536):
                told += more
        assert b"HTTP/1.1 200 " in told
        sock.close()

    play(scenario)
