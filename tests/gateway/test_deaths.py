"""What is a caller told whose replica died, or whose answer was broken off? And what was never begun is tried again."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec
import pytest
from holders import CI, bearer, call, give, said
from rig import Exchange, Reader, Rig, echo, pool_row, request, until

from swell.decide.price import marginal
from swell.gateway.request import REPLAY_MAX
from swell.model.limits import Limits
from swell.model.request import Prices
from swell.wire.link import ReplicaEnded

pytestmark = pytest.mark.slow

Play = Callable[..., None]
POOL = "default/app/fn@rv-000000000001"


async def read_and_die(exchange: Exchange, reader: Reader) -> None:
    await exchange.read_body(reader)
    exchange.writer.transport.abort()
    raise ConnectionError


def dies_after(gate: asyncio.Event) -> Callable[[Exchange, Reader], Coroutine[Any, Any, None]]:
    async def die(exchange: Exchange, reader: Reader) -> None:
        await exchange.read_body(reader)
        await gate.wait()
        exchange.writer.transport.abort()
        raise ConnectionError

    return die


async def die_mid_answer(exchange: Exchange, reader: Reader) -> None:
    await exchange.read_body(reader)
    head = b"content-length: 10\r\n" if exchange.body == b"length" else b"transfer-encoding: chunked\r\n"
    exchange.writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n4\r\nhalf\r\n" % head)
    await exchange.writer.drain()
    await asyncio.sleep(0.05)
    raise ConnectionError


async def break_off(exchange: Exchange, reader: Reader) -> None:
    """As our runtime does where an application fails in its answer."""
    await exchange.read_body(reader)
    head = b"content-length: 10\r\n" if exchange.body == b"length" else b"transfer-encoding: chunked\r\n"
    exchange.writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n4\r\nhalf\r\n" % head)
    exchange.writer.write_eof()
    await reader.event()
    raise ConnectionError


async def talk_nonsense(exchange: Exchange, reader: Reader) -> None:
    await exchange.read_body(reader)
    exchange.writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    await asyncio.sleep(0.05)
    raise ConnectionError


@pytest.mark.parametrize("death", [read_and_die, talk_nonsense])
def test_a_replica_that_dies_before_its_answer_is_a_502_and_no_second_try(
    play: Play, death: Callable[..., None]
) -> None:
    async def scenario(rig: Rig) -> None:
        bad, good = await rig.replica(death), await rig.replica()
        await rig.deploy(bad)
        browser = await rig.browser()
        died = await browser.call("/call/app/fn", b"x")
        assert (died.status, died.error["code"]) == (502, "replica_died")
        await rig.endpoints("fn", good)
        await rig.seen()
        assert (await browser.call("/call/app/fn", b"y")).body == b"y"
        assert (len(bad.seen), len(good.seen)) == (1, 1)

    play(scenario)


@pytest.mark.parametrize("told", ["before", "behind", "never", "control leaves"])
def test_what_ended_a_replica_is_told_to_whom_it_died_with(
    play: Play, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swell.gateway.deaths.WAIT_S", 0.2 if told == "never" else 60.0)

    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        bad, other = await rig.replica(dies_after(gate)), await rig.replica()
        await rig.deploy(bad)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"x"))
        levels = partial(rig.control.levels, pool_row("fn").pool)
        await until(lambda: levels() and levels()[-1] == (0, 1), "the request is there")
        if told == "before":
            rig.control.say(ReplicaEnded("of another", "no"))
            rig.control.say(ReplicaEnded(bad.name, "its process crashed: exit code 3"))
            await rig.endpoints("fn", other)
            await rig.seen()
        gate.set()
        if told in ("behind", "control leaves"):
            await until(lambda: not bad.open, "it is dead")
            # What comes next does not wait with it, and it is not told as work.
            await rig.endpoints("fn", other)
            assert (await (await rig.browser()).call("/call/app/fn", b"y")).body == b"y"
            await until(lambda: levels()[-1] == (0, 0), "its slot is given back")
            if told == "behind":
                rig.control.say(ReplicaEnded(bad.name, "its process crashed: exit code 3"))
            else:
                await rig.control.stop()
        answer = await browser.answer()
        assert (answer.status, answer.error["code"]) == (502, "replica_died")
        why = " (its process crashed: exit code 3)" if told in ("before", "behind") else ""
        assert answer.error["message"].startswith(f"The replica died while running the request{why}. Not retried: ")
        assert answer.error["message"].endswith(f" More: `swell why {answer.error['request']}`.")
        if told != "control leaves":
            died = [("replica_died", bad.name)]
            await until(lambda: [(r.error, r.replica) for r in rig.control.records() if r.error] == died, "its record")

    play(scenario)


def test_whose_time_is_up_before_that_is_told_so_once(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swell.gateway.deaths.WAIT_S", 60.0)

    async def scenario(rig: Rig) -> None:
        bad = await rig.replica(read_and_die)
        await rig.deploy(bad)
        browser = await rig.browser()
        late = await browser.call("/call/app/fn", b"x", **{"Swell-Timeout": "2"})
        assert (late.status, late.error["code"]) == (504, "deadline")
        died = "passed just after its replica had died while running it. Not retried: it may have had effects."
        assert late.error["message"] == f"The deadline of 2 s (the caller's Swell-Timeout) {died}"
        rig.control.say(ReplicaEnded(bad.name, "its process crashed: exit code 3"))
        bad.behaviour = echo
        assert (await browser.call("/call/app/fn", b"y")).body == b"y"
        assert len(bad.seen) == 2

    play(scenario)


def test_a_body_that_comes_while_that_is_awaited_keeps_nothing_behind_it_waiting(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swell.gateway.deaths.WAIT_S", 60.0)

    async def scenario(rig: Rig) -> None:
        async def read_most_and_die(exchange: Exchange, reader: Reader) -> None:
            came = 0
            while came < REPLAY_MAX:
                came += len((await reader.event()).data)
            exchange.writer.transport.abort()
            raise ConnectionError

        bad = await rig.replica(read_most_and_die)
        pool = await rig.deploy(bad)
        browser = await rig.browser()
        whole = request("/call/app/fn", b"x" * (REPLAY_MAX + 1), **{"Swell-Timeout": "3"})
        browser.send(whole[:-1])
        await until(lambda: bad.seen and not rig.front.deployed.pools[pool].in_flight, "its slot is given back")
        browser.send(whole[-1:])
        assert (await browser.answer()).error["code"] == "deadline"
        bad.behaviour = echo
        assert (await browser.call("/call/app/fn", b"y")).body == b"y"

    play(scenario)


def test_what_died_costs_nothing_more_and_counts_no_more_while_that_is_awaited(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swell.gateway.deaths.WAIT_S", 60.0)

    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        bad, other = await rig.replica(dies_after(gate)), await rig.replica()
        pool = await rig.deploy(bad)
        await give(rig, msgspec.structs.replace(CI, limits=Limits(concurrency=1)))
        browser = await rig.browser()
        began = time.monotonic()
        browser.send(request("/call/app/fn", b"x", authorization=bearer(CI.id)))
        await until(lambda: bad.seen, "the request is there")
        gate.set()
        await until(lambda: not rig.front.deployed.pools[pool].in_flight, "its slot is given back")
        over = time.monotonic()
        await rig.endpoints("fn", other)
        await rig.seen()
        assert said(await call(await rig.browser(), CI.id, body=b"y")) == (200, "")
        # So that this would be seen in what it costs.
        await asyncio.sleep(0.3)
        rig.control.say(ReplicaEnded(bad.name, "its process crashed: exit code 3"))
        assert said(await browser.answer()) == (502, "replica_died")
        await until(lambda: [r for r in rig.control.records() if r.error], "its record")
        (record,) = [r for r in rig.control.records() if r.error]
        assert 0 < record.cost_usd <= marginal(Prices(), 0.0, over - began, pool_row("fn").memory_mib)
        # It is not given back a second time.
        (limited,) = rig.front.door.gates.values()
        assert limited.in_flight == 0

    play(scenario)


def test_a_request_that_a_dying_replica_never_read_is_tried_again(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        deaf = await rig.replica(start=False)
        good = await rig.replica()
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(deaf.path)
            listener.listen()
            listener.setblocking(False)
            await rig.deploy(deaf)
            browser = await rig.browser()
            browser.send(request("/call/app/fn", b"once"))
            connection, _ = await loop.sock_accept(listener)
            await asyncio.sleep(0.05)
            await rig.endpoints("fn", deaf, good)
            await rig.seen()
            connection.close()
        assert (await browser.answer()).body == b"once"
        assert len(good.seen) == 1

    play(scenario)


@pytest.mark.parametrize(("size", "begins"), [(40_000, False), (10, True)], ids=["long", "answered"])
def test_a_request_of_which_a_dying_replica_read_a_part_or_that_it_began_to_answer_is_not(
    play: Play, size: int, begins: bool
) -> None:
    """It leaves bytes unread, too. But whoever reads a part may have begun."""

    async def scenario(rig: Rig) -> None:
        dying, good = await rig.replica(start=False), await rig.replica()
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(dying.path)
            listener.listen()
            listener.setblocking(False)
            await rig.deploy(dying)
            browser = await rig.browser()
            browser.send(request("/call/app/fn", b"x" * size))
            connection, _ = await loop.sock_accept(listener)
            assert await loop.sock_recv(connection, 10)
            if begins:
                await loop.sock_sendall(connection, b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            await asyncio.sleep(0.05)
            await rig.endpoints("fn", dying, good)
            await rig.seen()
            connection.close()
        if begins:
            assert (await browser.rest()).endswith(b"\r\n\r\nhalf")
        else:
            answer = await browser.answer()
            assert (answer.status, answer.error["code"]) == (502, "replica_died")
        await until(lambda: [r.error for r in rig.control.records()] == ["replica_died"])
        assert good.seen == []

    play(scenario)


@pytest.mark.parametrize("kind", [b"length", b"chunked", b"http10"])
def test_a_replica_that_dies_in_its_answer_breaks_the_connection(play: Play, kind: bytes) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(die_mid_answer))
        browser = await rig.browser()
        raw = request("/call/app/fn", kind)
        browser.send(raw.replace(b"HTTP/1.1", b"HTTP/1.0") if kind == b"http10" else raw)
        if kind == b"http10":
            # Nothing but a reset can tell a client that reads to the end.
            with pytest.raises(ConnectionResetError):
                await browser.reader.read(-1)
        else:
            whole = await browser.rest()
            assert b"half" in whole
            assert not whole.endswith(b"0\r\n\r\n")
        await until(lambda: [(r.error, r.cpu_us) for r in rig.control.records()] == [("replica_died", -1)])
        assert rig.control.records()[0].cost_usd > 0

    play(scenario)


@pytest.mark.parametrize("kind", [b"length", b"chunked"])
def test_code_that_fails_in_its_answer_is_not_told_as_a_replica_that_died(play: Play, kind: bytes) -> None:
    async def scenario(rig: Rig) -> None:
        one = await rig.replica(break_off)
        await rig.deploy(one)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", kind))
        whole = await browser.rest()
        assert b"half" in whole
        assert not whole.endswith(b"0\r\n\r\n")
        await until(lambda: [(r.status, r.error) for r in rig.control.records()] == [(500, "exception")])
        one.behaviour = echo
        assert (await (await rig.browser()).call("/call/app/fn", b"y")).body == b"y"
        await until(lambda: one.open == 1, "its connection is closed by the gateway")

    play(scenario)
