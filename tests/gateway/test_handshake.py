"""Which requests for a WebSocket are passed on, to whom, and what else is answered?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from rig import KEY, Exchange, Reader, Rig, until, web
from sockets import HANDSHAKE, KEY_LINE, UPGRADE, Server, agree, at, chat, record
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import InvalidStatus

from swell.wire.websocket import close_frame, frame

Play = Callable[..., None]


def test_a_replica_that_is_full_is_passed_over(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def busy(exchange: Exchange, reader: Reader) -> None:
            await reader.event()
            await exchange.answer(503, b"{}", Swell_Busy="1")

        async def takes(exchange: Exchange, reader: Reader) -> None:
            assert exchange.headers["upgrade"] == "websocket"
            await agree(exchange)
            exchange.writer.write(frame(1, b"here") + close_frame(1000))
            await reader.reader.read(100)
            exchange.writer.close()

        full = await rig.replica(busy)
        await rig.deploy(full, methods=(web("chat"),))
        opening = asyncio.ensure_future(at(rig).__aenter__())
        await until(lambda: full.seen, "it was asked")
        await rig.endpoints("fn", full, await rig.replica(takes))
        client = await opening
        assert await client.recv() == "here"
        assert (await record(rig, status=101)).attempts > 1

    play(scenario, slow_ms=0.001)


def test_a_session_takes_the_slot_that_was_asked_for(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def full_at_first(exchange: Exchange, reader: Reader) -> None:
            if exchange.target == "/slot":
                await exchange.read_body(reader)
                await exchange.answer(200, b"{}", Swell_Free="0 0")
            elif len(replica.seen) == 1:
                await reader.event()
                await exchange.answer(503, b"{}", Swell_Busy="1")
            else:
                await agree(exchange)
                exchange.writer.write(frame(1, b"here") + close_frame(1000))
                await reader.reader.read(100)
                exchange.writer.close()

        replica = await rig.replica(full_at_first)
        await rig.deploy(replica, methods=(web("chat"),), max_inputs=1)
        async with at(rig) as client:
            assert await client.recv() == "here"
        assert [exchange.target for exchange in replica.seen][1] == "/slot"
        assert replica.seen[2].writer is replica.seen[1].writer

    play(scenario)


def test_anything_but_101_is_a_plain_answer_and_the_connection_ends(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def refuse(exchange: Exchange, reader: Reader) -> None:
            await reader.event()
            await exchange.answer(403, b'"no"')

        replica = await rig.replica(refuse)
        await rig.deploy(replica, methods=(web("chat"),))
        browser = await rig.browser()
        sneaked = b"GET /web/chat/sneaked HTTP/1.1\r\nHost: localhost\r\n\r\n"
        browser.send(HANDSHAKE + sneaked)
        answer = await browser.answer("GET")
        assert (answer.status, answer.body, answer.headers["connection"]) == (403, b'"no"', "close")
        browser.writer.write_eof()
        assert await browser.rest() == b""
        assert [exchange.target for exchange in replica.seen] == ["/x"]

    play(scenario)


BAD_AGREEMENTS = {
    "without upgrade": b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\n\r\n",
    "without connection": b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n",
    "to another": b"HTTP/1.1 101 S\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
    "with a length": b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nab",
    "with chunks": b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_AGREEMENTS)
@pytest.mark.parametrize("asked", [True, False])
def test_anagreement_to_something_else_is_none(play: Play, name: str, asked: bool) -> None:
    async def scenario(rig: Rig) -> None:
        async def agree(exchange: Exchange, reader: Reader) -> None:
            exchange.writer.write(BAD_AGREEMENTS[name])
            await exchange.writer.drain()
            await asyncio.sleep(0.5)

        await rig.deploy(await rig.replica(agree), methods=(web("chat"),))
        browser = await rig.browser()
        browser.send(HANDSHAKE if asked else b"GET /web/chat/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await browser.answer("GET")).status == 502

    play(scenario)


def test_anagreement_nobody_asked_for_is_none(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def agree(exchange: Exchange, reader: Reader) -> None:
            exchange.writer.write(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            await exchange.writer.drain()

        await rig.deploy(await rig.replica(agree), methods=(web("chat"),))
        browser = await rig.browser()
        assert (await browser.call("/web/chat/x", method="GET")).status == 502

    play(scenario)


GET = b"GET /web/chat/ HTTP/1.1\r\nHost: localhost\r\n"
BAD = {
    "no key": (GET + UPGRADE, 400),
    "two keys": (GET + UPGRADE + KEY_LINE + KEY_LINE, 400),
    "a short key": (GET + UPGRADE + b"Sec-WebSocket-Key: YQ==\r\n", 400),
    "a key named away": (GET + UPGRADE + KEY_LINE + b"Connection: sec-websocket-key\r\n", 400),
    "no version": (GET + UPGRADE.replace(b"Sec-WebSocket-Version: 13\r\n", b"") + KEY_LINE, 426),
    "an old version": (GET + UPGRADE.replace(b"13", b"8") + KEY_LINE, 426),
    "no Connection": (GET + UPGRADE.replace(b"Connection: Upgrade\r\n", b"") + KEY_LINE, 400),
    "a POST": (GET.replace(b"GET", b"POST") + UPGRADE + KEY_LINE, 400),
    "HTTP/1.0": (GET.replace(b"/1.1", b"/1.0") + UPGRADE + KEY_LINE, 400),
    "a body": (GET + UPGRADE + KEY_LINE + b"Content-Length: 3\r\n", 501),
    "a body in chunks": (GET + UPGRADE + KEY_LINE + b"Transfer-Encoding: chunked\r\n", 501),
}


@pytest.mark.parametrize("name", BAD)
def test_a_handshake_that_is_none_is_refused_and_ends_the_connection(play: Play, name: str) -> None:
    raw, status = BAD[name]

    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica, methods=(web("chat"),))
        browser = await rig.browser()
        browser.send(raw + b"\r\nGET /web/chat/sneaked HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await browser.answer(raw.partition(b" ")[0].decode())
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        if status == 426:
            assert (answer.headers["sec-websocket-version"], answer.headers["upgrade"]) == ("13", "websocket")
        browser.writer.write_eof()
        assert await browser.rest() == b""
        assert not replica.seen

    play(scenario)


def test_where_there_is_no_websocket(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        methods = (web("page", kind="endpoint"), web("locked", kind="asgi", needs_key=True))
        await rig.deploy(await rig.replica(), methods=methods)
        for path, status in (("/web/page/", 501), ("/call/app/fn", 404), ("/web/none/", 404), ("/web/locked/", 401)):
            with pytest.raises(InvalidStatus) as refused:
                await at(rig, path)
            assert refused.value.response.status_code == status

    play(scenario)


def test_with_the_key_of_the_server_a_locked_one_opens_and_origins_are_passed_on(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def say(socket: ServerConnection) -> None:
            assert socket.request is not None
            await socket.send(json.dumps(dict(socket.request.headers.raw_items())))

        server = await Server(rig, say).start()
        methods = (web("chat", kind="server", port=1, needs_key=True),)
        await rig.deploy(server, methods=methods, native=False)  # type: ignore[arg-type]
        with pytest.raises(InvalidStatus):
            await at(rig, origin="https://else.where")
        async with at(
            rig, origin="https://else.where", additional_headers={"Authorization": f"Bearer {KEY}"}
        ) as client:
            seen = json.loads(await client.recv())
        assert seen["origin"] == "https://else.where"
        assert "authorization" not in {name.lower() for name in seen}

    play(scenario)


def test_what_is_sent_too_early_is_kept_within_bounds(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        pool = await rig.deploy(methods=(web("chat"),))
        browser = await rig.browser()
        browser.send(HANDSHAKE)
        messages = [frame(2, bytes(50_000), b"mask") for _ in range(200)]
        for message in messages:
            browser.send(message)
        await until(lambda: rig.control.levels(pool)[-1:] == [(1, 0)], "it is held")
        client = next(iter(rig.gateway.clients))
        await until(lambda: client.unread, "it is not read further")
        assert len(client.early) < 1_000_000
        got = bytearray()

        async def take(exchange: Exchange, reader: Reader) -> None:
            await agree(exchange)
            trailing, _ = exchange.conn.trailing_data
            got.extend(trailing)
            while len(got) < sum(map(len, messages)):
                got.extend(await reader.reader.read(65536))
            exchange.writer.write(close_frame(1000))
            exchange.writer.close()

        await rig.endpoints("fn", await rig.replica(take))
        await browser.reader.readuntil(b"\r\n\r\n")
        assert await browser.reader.readexactly(4) == close_frame(1000)
        assert bytes(got) == b"".join(messages)

    play(scenario)


def test_requests_before_a_handshake_are_answered_first(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await chat(rig)
        browser = await rig.browser()
        browser.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + HANDSHAKE + frame(1, b"a", b"mask"))
        assert (await browser.answer("GET")).status == 200
        rest, _ = browser.conn.trailing_data
        while not rest.endswith(frame(1, b"a")):
            rest += await browser.reader.read(1000)
        assert rest.startswith(b"HTTP/1.1 101 ")

    play(scenario)
