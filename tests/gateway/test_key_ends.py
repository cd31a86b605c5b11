"""Does what a key holds open end with the key: by revocation, by its time, and with the one it comes from?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
import pytest
from holders import CI, bearer, call, give, key, said
from rig import Exchange, Reader, Rig, until, web
from sockets import agree, at, chat, ends, record
from websockets.asyncio.client import ClientConnection

from swell.gateway.upstream import reset_on_close
from swell.wire.websocket import close_frame, frame

Play = Callable[..., None]


async def opened(rig: Rig, id: str) -> ClientConnection:
    client = await at(rig, additional_headers={"authorization": bearer(id)})
    await client.send("x")
    assert await client.recv() == "x"
    return client


def test_its_websockets_are_closed_when_it_is_revoked(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        server = await chat(rig)
        await give(rig, CI, key("other222", "call:*/*"))
        mine, other = await opened(rig, CI.id), await opened(rig, "other222")
        async with at(rig) as nobodys:
            await give(rig, msgspec.structs.replace(CI, revoked_at=1.0))
            reason = "The key ci222222 was revoked. Have another made: `swell key create`."
            assert await ends(mine) == (1008, reason)
            await until(lambda: server.ended == [(1008, reason)], "the replica is told, too")
            for client in (other, nobodys):
                await client.send("still here")
                assert await client.recv() == "still here"
        await other.close()
        assert (await record(rig, key=CI.id)).status == 101

    play(scenario, slow_ms=0.001)


def test_they_are_closed_when_its_time_is_over(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await chat(rig)
        await give(rig, msgspec.structs.replace(CI, expires_at=time.time() + 1.0), key("later222", "call:*/*"))
        client = await opened(rig, CI.id)
        code, reason = await ends(client)
        assert (code, reason.partition(".")[0]) == (1008, "The key ci222222 has expired")
        # Nothing is waited for any more.
        assert rig.front.door.slot is None
        last = await opened(rig, "later222")
        await last.close()

    play(scenario)


def test_they_are_closed_with_the_key_that_it_was_made_with(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await chat(rig)
        maker = key("maker222", "admin")
        await give(rig, maker, key("middle22", "admin", made_by="maker222"))
        await give(rig, key("made2222", "call:*/*", made_by="middle22"))
        client = await opened(rig, "made2222")
        await give(rig, msgspec.structs.replace(maker, revoked_at=1.0))
        code, reason = await ends(client)
        assert code == 1008
        assert reason.startswith("The key made2222 was made with maker222, which was revoked, and ends with it")
        browser = await rig.browser()
        for id in ("maker222", "middle22", "made2222"):
            assert said(await call(browser, id, "/web/chat/")) == (401, "key_revoked")

    play(scenario)


def test_a_control_that_knows_of_no_such_key_closes_them(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await chat(rig)
        await give(rig, CI)
        client = await opened(rig, CI.id)
        await rig.control.stop()
        rig.control.table = msgspec.structs.replace(rig.control.table, version=9, keys=())
        await rig.control.start()
        assert (await ends(client))[0] == 1008

    play(scenario)


def test_one_that_was_held_meanwhile_is_closed_as_it_opens(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        pool = await rig.deploy(methods=(web("chat", kind="server", port=1),), native=False)
        await give(rig, CI)
        opening = asyncio.ensure_future(at(rig, additional_headers={"authorization": bearer(CI.id)}).__aenter__())
        await until(lambda: rig.front.deployed.pools[pool].held_count, "the hold")
        await give(rig, msgspec.structs.replace(CI, revoked_at=1.0))
        await chat(rig)
        assert (await ends(await opening))[0] == 1008

    play(scenario)


@pytest.mark.parametrize("whose", ["client", "replica"])
def test_who_does_not_heed_it_is_cut(play: Play, whose: str) -> None:
    """A frame that has no end leaves no place for a Close: its bytes must not pass for ever."""

    async def scenario(rig: Rig) -> None:
        endless = b"\x82\x7f" + (1 << 62).to_bytes(8, "big")

        async def deaf(exchange: Exchange, reader: Reader) -> None:
            await agree(exchange)
            if whose == "replica":
                exchange.writer.write(endless)
            while await reader.reader.read(1000):
                if whose == "replica":
                    exchange.writer.write(bytes(100))

        replica = await rig.replica(deaf)
        await rig.deploy(replica, methods=(web("chat"),))
        await give(rig, CI)
        client = await at(rig, additional_headers={"authorization": bearer(CI.id)})
        if whose == "client":
            client.transport.write(b"\x82\xff" + endless[2:] + b"mask")
        await give(rig, msgspec.structs.replace(CI, revoked_at=1.0))
        while not client.transport.is_closing() and replica.running:
            client.transport.write(bytes(100))
            await asyncio.sleep(0.02)
        await until(lambda: not replica.running, "its replica is let go")
        assert (await record(rig, key=CI.id)).error == "key_revoked"

    play(scenario)


def test_a_replica_that_reads_nothing_is_let_go_once_its_client_has_said_close(play: Play) -> None:
    """What the client had said before is for the replica to read; but it must not keep a connection for ever."""

    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()

        async def deaf(exchange: Exchange, reader: Reader) -> None:
            await agree(exchange)
            exchange.writer.transport.pause_reading()
            await gate.wait()

        await rig.deploy(await rig.replica(deaf), methods=(web("chat"),))
        client = await at(rig)
        await until(lambda: [*rig.front.deployed._tunnels()], "the session")
        (tunnel,) = rig.front.deployed._tunnels()
        while not tunnel.transport.get_write_buffer_size():
            # Little by little: with more than that on its way its client would not be read at all.
            client.transport.write(frame(2, bytes(2000), b"mask"))
            await asyncio.sleep(0.002)
        client.transport.write(close_frame(1000, "", b"mask"))
        await until(lambda: tunnel.up.ends.closed, "the Close")
        # One that only ended its sending would be waited for until the deadline.
        reset_on_close(client.transport)
        client.transport.abort()
        await until(lambda: tunnel.request.done, "the end of the session")
        assert tunnel.transport.get_write_buffer_size()
        connection = tunnel.transport.get_extra_info("socket")
        await until(lambda: connection.fileno() < 0, "the end of its connection")
        gate.set()

    play(scenario, idle_timeout_s=0.5)
