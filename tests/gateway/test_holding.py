"""Do requests wait, get the next slot, and give it back, whatever replicas and callers do?"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable

import h11
import msgspec
import pytest
from rig import Browser, Exchange, Reader, Rig, echo, echo_after, pool_row, request, until

from swell.gateway.request import REPLAY_MAX
from swell.wire.link import Endpoint

pytestmark = pytest.mark.slow

Play = Callable[..., None]
POOL = "default/app/fn@rv-000000000001"


async def held(rig: Rig, count: int) -> None:
    """Wait until control was told that this many wait."""
    await until(lambda: rig.control.levels(POOL)[-1:] == [(count, 0)], f"{count} held")


@pytest.mark.slow
def test_a_thousand_held_requests_are_answered_in_order(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(max_inputs=1)
        browsers = [await rig.browser() for _ in range(1000)]
        for n, browser in enumerate(browsers):
            browser.send(request("/call/app/fn", b"%d" % n))
            await browser.writer.drain()
            if n % 50 == 0:
                await asyncio.sleep(0)
        await held(rig, 1000)
        refused = await (await rig.browser()).call("/call/app/fn")
        assert (refused.status, refused.error["code"], refused.headers["retry-after"]) == (429, "too_many_held", "1")
        arrived = [request.body[0] for request in rig.front.deployed.pools[POOL].held]
        await rig.endpoints("fn", replica, max_inputs=1)
        answers = await asyncio.gather(*(browser.answer() for browser in browsers))
        assert [answer.body for answer in answers] == [b"%d" % n for n in range(1000)]
        assert all(answer.headers["swell-cold"] == "1" for answer in answers)
        assert "start-fork;dur=4.10" in answers[0].headers["server-timing"]
        assert [exchange.body for exchange in replica.seen] == arrived
        assert replica.most_running == 1

    play(scenario, hold_max=1000)


def test_one_input_at_a_time_and_none_waits_beside_a_free_replica(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        chance = random.Random(7)
        idle_while_held = 0

        async def work(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            await asyncio.sleep(chance.random() * 0.004)
            await exchange.answer()

        replicas = [await rig.replica(work) for _ in range(4)]
        await rig.deploy(*replicas, max_inputs=1)
        pool = rig.front.deployed.pools[POOL]
        browsers = [await rig.browser() for _ in range(12)]

        async def caller(browser: Browser) -> None:
            nonlocal idle_while_held
            for _ in range(25):
                assert (await browser.call("/call/app/fn", b"x")).status == 200
                if pool.held and (pool.free or pool.in_flight < 4):
                    idle_while_held += 1

        await asyncio.gather(*map(caller, browsers))
        assert sum(len(replica.seen) for replica in replicas) == 300
        assert [replica.most_running for replica in replicas] == [1, 1, 1, 1]
        assert idle_while_held == 0
        assert (pool.in_flight, len(pool.free), len(pool.held)) == (0, 4, 0)

    play(scenario)


def test_a_busy_refusal_is_tried_elsewhere_or_waits_at_the_front(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        full = True

        async def refusing(exchange: Exchange, reader: Reader) -> None:
            if full:
                await exchange.answer(503, b"", swell_busy="1")
            else:
                await echo(exchange, reader)

        one = await rig.replica(refusing)
        two = await rig.replica()
        await rig.deploy(one, two)
        browser = await rig.browser()
        for n in range(8):
            assert (await browser.call("/call/app/fn", b"%d" % n)).body == b"%d" % n
        assert len(two.seen) == 8
        await rig.endpoints("fn", one)
        await rig.seen()
        browser.send(request("/call/app/fn", b"patient" * 1000))
        before = len(one.seen)
        await until(lambda: len(one.seen) >= before + 3, "tries of a busy replica")
        full = False
        assert (await browser.answer()).body == b"patient" * 1000

    play(scenario)


def test_an_unreachable_replica_is_passed_over(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        dead = await rig.replica(start=False)
        alive = await rig.replica()
        await rig.deploy(dead, alive, max_inputs=1)
        browser = await rig.browser()
        for _ in range(10):
            assert (await browser.call("/call/app/fn", b"x")).status == 200
        assert len(alive.seen) == 10
        # Alone, it is tried again until it is there.
        await rig.endpoints("fn", dead, max_inputs=1)
        await rig.seen()
        browser.send(request("/call/app/fn", b"later"))
        await held(rig, 1)
        await dead.start()
        assert (await browser.answer()).body == b"later"

    play(scenario)


def test_an_upload_whose_replica_cannot_be_reached_is_read_on(play: Play) -> None:
    """While a connection was tried, more of its body came than is kept; another replica has one open."""

    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        replica = await rig.replica(echo_after(gate))
        with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
            # Nobody accepts: what connects once its queue is full hears nothing until it is closed.
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for filling in (first, second):
                filling.setblocking(False)
                filling.connect_ex(listener.getsockname())
            await rig.deploy(replica, max_inputs=1)
            busy, browser = await rig.browser(), await rig.browser()
            busy.send(request("/call/app/fn", b"x"))
            await until(lambda: replica.seen, "one is busy")
            long = b"x" * REPLAY_MAX * 4
            silent = Endpoint("rp-silent", f"tcp:127.0.0.1:{listener.getsockname()[1]}", ())
            row = msgspec.structs.replace(pool_row("fn", replica, max_inputs=1), replicas=(replica.endpoint, silent))
            rig.control.publish(pools=(row,))
            await rig.seen()
            browser.send(request("/call/app/fn", long))
            await until(lambda: any(client.unread for client in rig.gateway.clients), "the client waits")
            gate.set()
            assert (await busy.answer()).body == b"x"
        assert (await browser.answer()).body == long

    play(scenario)


def test_a_single_use_replica_gets_one_request(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replicas = [await rig.replica() for _ in range(3)]
        await rig.deploy(*replicas[:2], max_inputs=1, single_use=True)
        browsers = [await rig.browser() for _ in range(3)]
        for browser in browsers:
            browser.send(request("/call/app/fn", b"x"))
        await held(rig, 1)
        await rig.endpoints("fn", *replicas, max_inputs=1, single_use=True)
        for browser in browsers:
            assert (await browser.answer()).status == 200
        assert [len(replica.seen) for replica in replicas] == [1, 1, 1]

    play(scenario)


def test_a_request_held_in_vain_is_told_why_starts_failed(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy()
        waiting = await rig.browser()
        waiting.send(request("/call/app/fn", swell_timeout="0.4"))
        await held(rig, 1)
        await rig.endpoints("fn", failing="its start failed once (startup_timeout).", retry_at=0.0)
        answer = await waiting.answer()
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "no_replica", "1")
        assert "startup_timeout" in answer.error["message"]

    play(scenario)


def test_a_closed_pool_refuses_at_once_and_says_why(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy()
        waiting = await rig.browser()
        waiting.send(request("/call/app/fn"))
        await held(rig, 1)
        failing = "its start failed 3 times in a row (import_error)."
        await rig.endpoints("fn", failing=failing, closed=True, retry_at=time.time() + 1000)
        await rig.seen()
        refused = await (await rig.browser()).call("/call/app/fn")
        for answer in (refused, await waiting.answer()):
            assert (answer.status, answer.error["code"]) == (503, "no_replica")
            assert 900 < int(answer.headers["retry-after"]) <= 1000
            assert "import_error" in answer.error["message"]

    play(scenario)


@pytest.mark.parametrize("ahead_s", [0.0, 3600.0, -3600.0])
def test_when_the_next_try_is_is_told_by_the_clock_of_control(play: Play, ahead_s: float) -> None:
    """Which does not say what the machine's does, once somebody has set that."""

    async def scenario(rig: Rig) -> None:
        await rig.deploy()
        at = time.time() + ahead_s
        closed = pool_row("fn", failing="its start failed 3 times in a row.", closed=True, retry_at=at + 1000)
        rig.control.publish(pools=(closed,), at=at)
        await rig.seen()
        refused = await (await rig.browser()).call("/call/app/fn")
        assert refused.status == 503
        assert 900 < int(refused.headers["retry-after"]) <= 1000

    play(scenario)


def test_a_closed_pool_holds_again_once_the_next_try_is_due(play: Play) -> None:
    """Without another word of control, which has none to say while nobody asks for the pool."""

    async def scenario(rig: Rig) -> None:
        await rig.deploy()
        retry_at = time.time() + 0.3
        await rig.endpoints("fn", failing="its start failed 3 times in a row.", closed=True, retry_at=retry_at)
        await rig.seen()
        await asyncio.sleep(retry_at - time.time() + 0.01)
        waiting = await rig.browser()
        waiting.send(request("/call/app/fn", b"at last"))
        await held(rig, 1)
        await rig.endpoints("fn", await rig.replica())
        assert (await waiting.answer()).body == b"at last"

    play(scenario)


def test_held_requests_follow_a_deploy_to_the_new_revision(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy()
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"moved"))
        await held(rig, 1)
        await rig.deploy(await rig.replica(), pool="default/app/fn@rv-000000000002")
        assert (await browser.answer()).body == b"moved"
        browser.send(request("/call/app/fn", b"orphan"))
        assert (await browser.answer()).status == 200
        await rig.endpoints("fn", pool="default/app/fn@rv-000000000002")
        await rig.seen()
        browser.send(request("/call/app/fn", b"orphan"))
        await until(lambda: rig.control.levels("default/app/fn@rv-000000000002")[-1:] == [(1, 0)])
        rig.control.publish(gone_routes=("default/app/fn",), gone_pools=("default/app/fn@rv-000000000002",))
        gone = await browser.answer()
        assert (gone.status, gone.error["code"]) == (404, "unknown_app")

    play(scenario)


@pytest.mark.parametrize("state", ["held", "running", "streaming", "sending"])
def test_a_caller_that_leaves_stops_the_work(play: Play, state: str) -> None:
    async def scenario(rig: Rig) -> None:
        stopped = asyncio.Event()
        begun = asyncio.Event()

        async def work(exchange: Exchange, reader: Reader) -> None:
            if state != "sending":
                await exchange.read_body(reader)
            if state == "streaming":
                exchange.send(h11.Response(status_code=200, headers=[]))
                exchange.send(h11.Data(data=b"first"))
            begun.set()
            try:
                while not isinstance(await reader.event(), h11.ConnectionClosed):
                    pass
            except h11.RemoteProtocolError:
                pass
            stopped.set()
            raise ConnectionError

        replica = await rig.replica(work)
        await rig.deploy(*([] if state == "held" else [replica]), max_inputs=1)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", content_length="10") + b"x" * (5 if state == "sending" else 10))
        if state == "held":
            await held(rig, 1)
        else:
            await begun.wait()
        browser.close()
        if state == "held":
            await held(rig, 0)
        else:
            await asyncio.wait_for(stopped.wait(), 5)
            await until(lambda: rig.control.levels(POOL)[-1:] == [(0, 0)])
        await until(rig.control.records, "the record")
        assert [(r.status, r.error) for r in rig.control.records()] == [(499, "client_left")]

    play(scenario)


def test_long_bodies_of_held_requests_wait_in_the_socket(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy()
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"z" * 20_000_000))
        await held(rig, 1)
        last = -1
        while last != (left := browser.writer.transport.get_write_buffer_size()):
            last = left
            await asyncio.sleep(0.2)
        shared = rig.shared
        assert 0 < shared.held_bytes < 1_000_000
        assert left > 10_000_000
        await rig.endpoints("fn", replica)
        assert (await browser.answer()).body == b"z" * 20_000_000
        assert shared.held_bytes == 0

    play(scenario)


def test_bytes_that_are_held_are_bounded(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy()
        first = await rig.browser()
        first.send(request("/call/app/fn", b"a" * 900))
        await held(rig, 1)
        refused = await (await rig.browser()).call("/call/app/fn", b"b" * 200)
        assert (refused.status, refused.error["code"]) == (429, "too_many_held")
        assert "hold_bytes_max" in refused.error["message"]
        small = await rig.browser()
        small.send(request("/call/app/fn", b"c" * 50))
        await held(rig, 2)

    play(scenario, hold_bytes_max=1000)
