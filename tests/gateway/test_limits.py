"""Is what is not HTTP, too much, or too slow refused, and nothing smuggled past it?"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
from rig import PATIENCE_S, Exchange, Reader, Rig, echo_after, request, until

from swell.gateway import client

pytestmark = pytest.mark.slow

Play = Callable[..., None]
SNEAKED = b"POST /call/app/fn HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


def post(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"POST /call/app/fn HTTP/1.1", *lines, b"", body))


MALFORMED = {
    "length and chunked": (
        post(b"Host: x", b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        400,
    ),
    "chunked and length": (
        post(b"Host: x", b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
        400,
    ),
    "two lengths": (post(b"Host: x", b"Content-Length: 5", b"Content-Length: 6", body=b"hello!"), 400),
    "the same length twice": (post(b"Host: x", b"Content-Length: 5", b"Content-Length: 5", body=b"hello"), 400),
    "a list of lengths": (post(b"Host: x", b"Content-Length: 5, 5", body=b"hello"), 400),
    "a signed length": (post(b"Host: x", b"Content-Length: +5", body=b"hello"), 400),
    "a length that is no number": (post(b"Host: x", b"Content-Length: 0x5", body=b"hello"), 400),
    "chunked twice": (post(b"Host: x", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
    "chunked not last": (post(b"Host: x", b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"), 400),
    "another coding": (post(b"Host: x", b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    "an obscured coding": (post(b"Host: x", b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"), 400),
    "a folded header": (post(b"Host: x", b"X: a", b" b"), 400),
    "a space before the colon": (post(b"Host : x"), 400),
    "a header without a name": (post(b"Host: x", b": x"), 400),
    "a name with a space": (post(b"Host: x", b"X y: z"), 400),
    "a control character": (post(b"Host: x", b"X: a\x00b"), 400),
    "a bare line feed": (b"POST /call/app/fn HTTP/1.1\nHost: x\n\n", 400),
    "a bare line feed between headers": (post(b"Host: x\nX: y"), 400),
    "a bare carriage return": (post(b"Host: x", b"X: a\rb"), 400),
    "no host": (post(b"X: y"), 400),
    "two hosts": (post(b"Host: x", b"Host: y"), 400),
    "a host that is none": (post(b"Host: x/y"), 400),
    "hosts in a list": (post(b"Host: x, y"), 400),
    "two authorizations": (post(b"Host: x", b"Authorization: Bearer a", b"Authorization: Bearer b"), 400),
    "a bad chunk size": (post(b"Host: x", b"Transfer-Encoding: chunked", body=b"5g\r\nhello\r\n0\r\n\r\n"), 400),
    "a chunk without its end": (post(b"Host: x", b"Transfer-Encoding: chunked", body=b"5\r\nhello!!0\r\n\r\n"), 400),
    "a chunk size too large": (post(b"Host: x", b"Transfer-Encoding: chunked", body=b"f" * 17 + b"\r\n"), 400),
    "a method nobody knows": (b"FROB /call/app/fn HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "connect": (b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", 501),
    "a version to come": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    "no version": (b"GET /\r\n\r\n", 505),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a target that is no path": (b"GET call HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a websocket by POST": (post(b"Host: x", b"Upgrade: websocket", b"Connection: upgrade"), 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "a large header": (post(b"Host: x", b"X: " + b"y" * 100_000), 431),
    "a large target": (b"GET /" + b"y" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    "an endless header": (post(b"Host: x", b"X: " + b"y" * 2_000_000)[:-4], 431),
    "too many headers": (post(b"Host: x", *(b"X%d: y" % n for n in range(101))), 431),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests_are_refused_and_end_the_connection(play: Play, name: str) -> None:
    raw, status = MALFORMED[name]

    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica)
        browser = await rig.browser()
        browser.send(raw + SNEAKED)
        answer = await browser.answer()
        assert answer.status == status, answer.body
        assert answer.error["request"] == answer.headers["swell-request-id"]
        assert answer.headers["connection"] == "close"
        assert await browser.rest() == b""
        assert [exchange.body for exchange in replica.seen if exchange.body] == []
        # The gateway goes on.
        assert (await (await rig.browser()).call("/healthz", method="GET")).status == 200

    play(scenario)


def test_requests_before_a_malformed_one_are_answered_first(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def slow(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            await asyncio.sleep(0.05)
            await exchange.answer(body=exchange.body)

        await rig.deploy(await rig.replica(slow))
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"one") + request("/call/app/fn", b"two") + b"nonsense\r\n\r\n")
        assert [(await browser.answer()).body for _ in range(2)] == [b"one", b"two"]
        assert (await browser.answer()).status == 400
        assert await browser.rest() == b""

    play(scenario)


def test_an_offer_to_upgrade_is_ignored(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica)
        browser = await rig.browser()
        offer = request(
            "/healthz", method="GET", connection="Upgrade, HTTP2-Settings", upgrade="h2c", http2_settings="A"
        )
        browser.send(offer + request("/call/app/fn", b"next"))
        assert (await browser.answer("GET")).status == 200
        assert (await browser.answer()).body == b"next"

    play(scenario)


@pytest.mark.parametrize("pieces", [1, 7])
def test_a_request_may_come_in_pieces_of_any_size(play: Play, pieces: int) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        chunked = request("/call/app/fn", transfer_encoding="chunked").replace(b"content-length: 0\r\n", b"")
        raw = request("/call/app/fn", b"hello") + chunked + b"3\r\nabc\r\n0\r\nx: y\r\n\r\n"
        for at in range(0, len(raw), pieces):
            browser.send(raw[at : at + pieces])
            await asyncio.sleep(0.0005)
        assert (await browser.answer()).body == b"hello"
        assert (await browser.answer()).body == b"abc"

    play(scenario)


@pytest.mark.parametrize("behind", [request("/call/app/fn", b"own"), b"GET / HTTP/9\r\n\r\n"])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_end_of_a_body_may_come_in_one_read_with_what_is_behind_it(
    play: Play, chunked: bool, behind: bytes
) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica)
        browser = await rig.browser()
        if chunked:
            browser.send(b"POST /call/app/fn HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        else:
            browser.send(request("/call/app/fn", content_length="5"))
        await until(lambda: replica.running, "the first")
        browser.send((b"5\r\nhello\r\n0\r\n\r\n" if chunked else b"hello") + behind)
        assert (await browser.answer()).body == b"hello"
        assert (await browser.answer()).status == (200 if behind.endswith(b"own") else 400)

    play(scenario)


def test_empty_lines_behind_a_body_are_not_passed_on(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        replica = await rig.replica(echo_after(gate))
        await rig.deploy(replica)
        browser, other = await rig.browser(), await rig.browser()
        browser.send(b"POST /call/app/fn HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        await until(lambda: replica.running, "the first")
        browser.send(b"\r\n")
        # Read after the empty line, on another connection: by then the gateway has seen both.
        assert (await other.call("/healthz", method="GET")).status == 200
        gate.set()
        assert (await browser.answer()).status == 200
        assert (await other.call("/call/app/fn", b"own")).body == b"own"
        assert replica.connections == 1

    play(scenario)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_413(play: Play, chunked: bool) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica)
        browser = await rig.browser()
        if chunked:
            head = request("/call/app/fn", transfer_encoding="chunked").replace(b"content-length: 0\r\n", b"")
            browser.send(head + b"320\r\n" + b"x" * 800 + b"\r\n")
            await until(lambda: replica.seen, "the request upstream")
            browser.send(b"320\r\n" + b"x" * 800 + b"\r\n")
        else:
            browser.send(request("/call/app/fn", b"x" * 1001))
        answer = await browser.answer()
        assert (answer.status, answer.error["code"]) == (413, "body_too_large")
        assert "1000" in answer.error["message"]
        assert [exchange for exchange in replica.seen if exchange.body] == []
        exact = await (await rig.browser()).call("/call/app/fn", b"x" * 1000)
        assert exact.status == 200

    play(scenario, body_max=1000)


@pytest.mark.parametrize("chunked", [False, True])
def test_who_sends_all_before_reading_reads_why_it_was_refused(
    play: Play, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    monkeypatch.setattr(client, "LINGER_S", 0.4)

    async def scenario(rig: Rig) -> None:
        loop = asyncio.get_running_loop()
        await rig.deploy(await rig.replica())
        with await connected(rig) as sock:
            length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 100000000"
            await loop.sock_sendall(sock, post(b"Host: x", length))
            # Longer than silence would be waited for.
            for _ in range(8):
                piece = b"x" * 1_000_000
                await loop.sock_sendall(sock, b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await asyncio.sleep(0.1)
            assert (await loop.sock_recv(sock, 65536)).startswith(b"HTTP/1.1 413 ")
            # It does not close either, and is not waited for.
            await until(lambda: not rig.gateway.clients, "the end of the connection")

    play(scenario, body_max=1_000_000)


@pytest.mark.parametrize(("name", "most"), [("LINGER_MAX", 10_000_000), ("LINGER_MAX_S", 0.5)])
def test_who_never_stops_sending_is_cut(play: Play, monkeypatch: pytest.MonkeyPatch, name: str, most: float) -> None:
    monkeypatch.setattr(client, name, most)

    async def scenario(rig: Rig) -> None:
        loop = asyncio.get_running_loop()
        await rig.deploy(await rig.replica())
        with await connected(rig) as sock:
            await loop.sock_sendall(sock, post(b"Host: x", b"Content-Length: 100000000000"))
            with pytest.raises(ConnectionError):
                await send_for_ever(sock)

    play(scenario, body_max=1_000_000)


async def send_for_ever(sock: socket.socket) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await asyncio.get_running_loop().sock_sendall(sock, b"x" * 100_000)


async def connected(rig: Rig) -> socket.socket:
    """A client that reads only when it wants to."""
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", rig.port))
    return sock


def test_a_head_that_does_not_come_is_408(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()
        assert (await browser.call("/healthz", method="GET")).status == 200
        browser.send(b"GET /healthz HTTP/1.1\r\nHost:")
        answer = await browser.answer()
        assert (answer.status, answer.error["code"]) == (408, "slow_client")
        assert await browser.rest() == b""
        silent = await rig.browser()
        assert await silent.rest() == b""

    play(scenario, header_timeout_s=0.2, control=False)


def test_a_body_that_does_not_come_is_408_and_cancels(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", content_length="10") + b"hel")
        answer = await browser.answer()
        assert (answer.status, answer.error["code"]) == (408, "slow_client")
        assert await browser.rest() == b""
        await until(lambda: replica.open == 0, "the cancel")
        assert replica.seen[0].body == b""

    play(scenario, body_timeout_s=0.2)


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def slow(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            await asyncio.sleep(0.6)
            await exchange.answer()

        await rig.deploy(await rig.replica(slow))
        browser = await rig.browser()
        assert (await browser.call("/call/app/fn", b"x")).status == 200
        assert await browser.rest() == b""

    play(scenario, idle_timeout_s=0.2)
