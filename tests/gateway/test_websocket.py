"""Does a WebSocket pass through the gateway as it is, when does it end, and is each side told how?"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable

import pytest
from rig import PATIENCE_S, Exchange, Reader, Rig, until, web
from sockets import HANDSHAKE, Server, agree, at, chat, echo, ends, record
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from swell.wire.websocket import PONG, accept_key, close_frame, frame

pytestmark = pytest.mark.slow

Play = Callable[..., None]


def test_messages_of_all_kinds_and_sizes_pass(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        server = await chat(rig)
        async with at(rig, subprotocols=None, additional_headers={"X-Own": "1"}) as client:
            assert client.response is not None
            assert client.response.headers["swell-request-id"].startswith("g1-")
            assert "held;dur=" in client.response.headers["server-timing"]
            # The two ends agreed on compression between them.
            assert "permessage-deflate" in client.response.headers["sec-websocket-extensions"]
            for message in ("", "ä", b"\x00", b"x" * 70_000, "y" * 1_000_000, b"z" * 3_000_000):
                await client.send(message)
                assert await client.recv() == message
            await client.ping()
            seen = next(iter(server.server.connections)).request
            assert (seen.path, seen.headers["x-own"], "upgrade" in seen.headers) == ("/x", "1", True)
            assert [name for name in seen.headers if name.startswith("swell")] == ["swell-request-id"]
        assert server.ended == [(1000, "")]
        one = await record(rig, status=101)
        assert (one.error, one.method, one.attempts) == ("", "WEB /x", 1)
        assert [name for name, _ in one.phases_ms] == ["held", "connect", "run"]

    play(scenario, slow_ms=0.001)


def test_at_zero_it_is_held_and_then_opened(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        pool = await rig.deploy(methods=(web("chat", kind="server", port=1),), native=False)
        opening = asyncio.ensure_future(at(rig).__aenter__())
        await until(lambda: rig.control.levels(pool)[-1:] == [(1, 0)], "it is held")
        server = await Server(rig, echo).start()
        await rig.endpoints("fn", server, native=False)  # type: ignore[arg-type]
        client = await opening
        assert client.response is not None
        assert client.response.headers["swell-cold"] == "1"
        await client.send("x")
        assert await client.recv() == "x"
        await until(lambda: rig.control.levels(pool)[-1:] == [(0, 1)], "a slot for as long as it is open")
        await client.close()
        await until(lambda: rig.control.levels(pool)[-1:] == [(0, 0)], "its slot is free")
        assert (await record(rig, status=101)).cold

    play(scenario)


def test_whoever_leaves_while_it_is_held_is_forgotten(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        pool = await rig.deploy(methods=(web("chat"),))
        browser = await rig.browser()
        browser.send(HANDSHAKE)
        await until(lambda: rig.control.levels(pool)[-1:] == [(1, 0)], "it is held")
        browser.writer.write_eof()
        await until(lambda: rig.control.levels(pool)[-1:] == [(0, 0)], "nobody waits")
        assert await browser.rest() == b""
        await record(rig, status=499)

    play(scenario)


def test_nobody_waits_longer_than_any_request(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(methods=(web("chat"),))
        with pytest.raises(InvalidStatus) as refused:
            await at(rig)
        assert refused.value.response.status_code == 503
        assert json.loads(refused.value.response.body)["error"]["code"] == "held_too_long"

    play(scenario, hold_s=0.2)


def test_each_side_waits_while_the_other_is_slow(play: Play) -> None:
    sent = []

    async def push(socket: ServerConnection) -> None:
        while True:
            await socket.send(bytes(100_000))
            sent.append(1)

    async def scenario(rig: Rig) -> None:
        server = await chat(rig, push)
        async with at(rig, max_queue=1, compression=None) as client:
            count = -1
            while len(sent) != count or not sent:
                count = len(sent)
                await asyncio.sleep(0.3)
            assert count * 100_000 < 30_000_000
            got = 0
            while got <= count:
                got += len(await client.recv()) == 100_000
            client.transport.abort()
        await until(lambda: server.ended, "the server hears of it")

    play(scenario)


def test_a_replica_that_does_not_read_makes_its_client_wait(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()

        async def slow(socket: ServerConnection) -> None:
            await gate.wait()
            got = 0
            async for message in socket:
                got += len(message)
                if got == 30_000_000:
                    await socket.send("all")

        await chat(rig, slow)
        async with at(rig, compression=None) as client:
            sending = asyncio.ensure_future(_send_all(client))
            _, waiting = await asyncio.wait({sending}, timeout=1)
            assert waiting
            gate.set()
            await sending
            assert await client.recv() == "all"

    play(scenario)


async def _send_all(client: ClientConnection) -> None:
    for _ in range(300):
        await client.send(bytes(100_000))


def test_a_hundred_at_once(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await chat(rig)
        clients = await asyncio.gather(*[at(rig) for _ in range(100)])
        await asyncio.gather(*[client.send(str(n)) for n, client in enumerate(clients)])
        assert await asyncio.gather(*[client.recv() for client in clients]) == [str(n) for n in range(100)]
        await asyncio.gather(*[client.close() for client in clients])

    play(scenario)


def test_codes_of_both_sides_arrive(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def parting(socket: ServerConnection) -> None:
            if await socket.recv() == "you":
                await socket.close(4002, "from the server")
            await socket.wait_closed()

        server = await chat(rig, parting)
        async with at(rig) as client:
            await client.send("you")
            assert await ends(client) == (4002, "from the server")
        async with at(rig) as client:
            await client.send("me")
            await client.close(4001, "from the client")
        await until(lambda: len(server.ended) == 2)
        assert server.ended[1] == (4001, "from the client")
        await until(lambda: [r.status for r in rig.control.records()] == [101, 101], "both ended in order")

    play(scenario, slow_ms=0.001)


def test_a_client_that_says_close_and_leaves_at_once_ended_in_order(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        server = await chat(rig)
        client = await at(rig)
        client.transport.write(close_frame(4010, "off", b"mask"))
        client.transport.close()
        await until(lambda: server.ended == [(4010, "off")], "the server reads why")
        assert (await record(rig, status=101)).error == ""
        await client.wait_closed()

    play(scenario, slow_ms=0.001)


@pytest.mark.parametrize("how", ["eof", "abort"])
def test_a_client_that_leaves_without_a_word(play: Play, how: str) -> None:
    async def scenario(rig: Rig) -> None:
        server = await chat(rig)
        browser = await rig.browser()
        browser.send(HANDSHAKE + frame(1, b"early", b"mask"))
        head = await browser.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") in head
        assert await browser.reader.readexactly(7) == frame(1, b"early")
        if how == "eof":
            browser.writer.write_eof()
            assert await browser.rest() in (b"", close_frame(1000, ""))
        else:
            browser.writer.transport.abort()
        await until(lambda: server.ended, "the server hears of it")
        await until(lambda: rig.control.records(), "its record")
        assert rig.control.records()[-1].status in ((101, 499) if how == "eof" else (499,))

    play(scenario, slow_ms=0.001)


@pytest.mark.parametrize("how", ["reset", "closed", "half"])
def test_a_client_that_leaves_a_replica_which_does_not_read_is_missed(play: Play, how: str) -> None:
    """Behind what it said its end cannot be heard; and a deadline may be far."""

    async def scenario(rig: Rig) -> None:
        ended = asyncio.Event()

        async def deaf(exchange: Exchange, _reader: Reader) -> None:
            await agree(exchange)
            await ended.wait()

        pool = await rig.deploy(await rig.replica(deaf), methods=(web("chat"),), timeout_s=3600)
        browser = await rig.browser()
        browser.send(HANDSHAKE)
        assert (await browser.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        client = browser.writer.transport
        if how == "half":
            browser.send(frame(2, b"and no more", b"mask"))
            browser.writer.write_eof()
            # It hears that it is still thought to be there.
            async with asyncio.timeout(PATIENCE_S):
                assert await browser.reader.readexactly(2) == frame(PONG, b"")
        else:
            browser.send(frame(2, bytes(30_000_000), b"mask"))
            left = 0
            while client.get_write_buffer_size() != left:
                left = client.get_write_buffer_size()
                await asyncio.sleep(0.5)
            assert left > 0
        if how == "reset":
            client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.abort()
        one = await record(rig, status=499)
        assert one.error == "client_left"
        await until(lambda: rig.control.levels(pool)[-1:] == [(0, 0)], "its slot is free")
        ended.set()

    play(scenario, slow_ms=0.001)


def test_a_replica_that_dies_breaks_it_off(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        server = await chat(rig)
        async with at(rig) as client:
            await client.send("x")
            assert await client.recv() == "x"
            server.kill()
            with pytest.raises(ConnectionClosedError):
                await client.recv()
            assert await ends(client) == (1006, "")
        assert (await record(rig, status=502)).error == "replica_died"

    play(scenario)


def test_its_time_is_that_of_the_function(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        server = await chat(rig, timeout_s=0.3)
        async with at(rig) as client:
            assert await ends(client) == (1008, "The deadline of 0.3 s (timeout= of the function) has passed.")
        await until(lambda: server.ended, "the server is told, too")
        assert server.ended[0][0] == 1008
        assert (await record(rig, status=504)).error == "deadline"

    play(scenario)


def test_a_server_that_does_not_heed_its_deadline_is_cut(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def deaf(exchange: Exchange, reader: Reader) -> None:
            await agree(exchange)
            exchange.writer.write(b"\x82\x7e\xff\xff" + bytes(100))  # a frame whose end never comes
            await asyncio.sleep(3)

        await rig.deploy(await rig.replica(deaf), methods=(web("chat"),), timeout_s=0.3)
        async with at(rig) as client:
            assert await ends(client) == (1006, "")
        assert (await record(rig, status=504)).error == "deadline"

    play(scenario)


def test_when_the_server_stops_both_sides_are_told(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        server = await chat(rig)
        async with at(rig) as client:
            closing = asyncio.ensure_future(rig.gateway.close(PATIENCE_S))
            assert await ends(client) == (1001, "The server is being stopped.")
        await until(lambda: server.ended == [(1001, "The server is being stopped.")], "the replica is told")
        async with asyncio.timeout(PATIENCE_S):
            await closing

    play(scenario)


def test_when_its_replica_is_to_go_both_sides_are_told_between_two_frames(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        heard = bytearray()
        half = asyncio.Event()

        async def halting(exchange: Exchange, reader: Reader) -> None:
            await agree(exchange)
            whole = frame(2, b"0123456789")
            exchange.writer.write(whole[:6])
            await half.wait()
            exchange.writer.write(whole[6:] + frame(2, b"never seen"))
            while data := await reader.reader.read(1000):
                heard.extend(data)
                if len(heard) >= 8:
                    exchange.writer.close()

        replica = await rig.replica(halting)
        await rig.deploy(replica, methods=(web("chat"),))
        async with at(rig) as client:
            await until(lambda: rig.control.levels("default/app/fn@rv-000000000001")[-1:] == [(0, 1)])
            await asyncio.sleep(0.05)
            await rig.endpoints("fn")
            await rig.seen()
            half.set()
            assert await client.recv() == b"0123456789"
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert (await ends(client))[0] == 1001
        await until(
            lambda: heard[:2] == bytes((0x88, 0x80 | 2 + len("This version of the app is being replaced or stopped.")))
        )

    play(scenario)


def test_replicas_with_a_session_are_counted_as_at_work(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        server = await chat(rig, max_inputs=1)
        async with at(rig):
            waiting = asyncio.ensure_future(at(rig).__aenter__())
            await until(
                lambda: rig.control.levels("default/app/fn@rv-000000000001")[-1:] == [(1, 1)], "the second is held"
            )
            assert rig.control.loads("default/app/fn@rv-000000000001") == {server.name: 1}
        second = await waiting
        await second.close()

    play(scenario)
