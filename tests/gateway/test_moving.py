"""What becomes of requests, and of the levels told, when their pool closes, moves, or comes back while they run?"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from rig import KEY, Exchange, Reader, Rig, echo_after, pool_row, request, route, until, web

from swell.model.workload import Method

Play = Callable[..., None]
POOL = "default/app/fn@rv-000000000001"
NEXT = "default/app/fn@rv-000000000002"


@asynccontextmanager
async def given_to_a_deaf_replica(rig: Rig, **row: int) -> AsyncIterator[None]:
    """A request that a replica has and never read; at the end the replica dies, so that it is placed anew."""
    deaf = await rig.replica(start=False)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(deaf.path)
        listener.listen()
        listener.setblocking(False)
        await rig.deploy(deaf, **row)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"once"))
        connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        await until(lambda: rig.control.levels(POOL)[-1:] == [(0, 1)], "it has a slot")
        yield
        connection.close()


def test_what_is_placed_anew_is_refused_at_once_where_none_can_be_had(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async with given_to_a_deaf_replica(rig):
            await rig.endpoints("fn", failing="import_error", closed=True, retry_at=time.time() + 1000)
            await rig.seen()
        answer = await rig.browsers[0].answer()
        assert (answer.status, answer.error["code"]) == (503, "no_replica")
        assert "import_error" in answer.error["message"]

    play(scenario)


def test_what_is_placed_anew_is_held_within_the_limit(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async with given_to_a_deaf_replica(rig, max_inputs=1):
            waiting = await rig.browser()
            waiting.send(request("/call/app/fn", b"second"))
            await until(lambda: rig.control.levels(POOL)[-1:] == [(1, 1)], "the other is held")
        refused = await rig.browsers[0].answer()
        assert (refused.status, refused.error["code"]) == (429, "too_many_held")
        await rig.endpoints("fn", await rig.replica(), max_inputs=1)
        assert (await waiting.answer()).body == b"second"

    play(scenario, hold_max=1)


def test_what_is_placed_anew_goes_to_the_pool_that_has_the_traffic_now(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async with given_to_a_deaf_replica(rig):
            await rig.deploy(await rig.replica(), pool=NEXT)
            await rig.endpoints("fn")
            await rig.seen()
        assert (await rig.browsers[0].answer()).body == b"once"

    play(scenario)


def test_what_is_placed_anew_after_its_app_was_stopped_is_told_so(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async with given_to_a_deaf_replica(rig):
            rig.control.publish(gone_routes=("default/app/fn",), gone_pools=(POOL,))
            await rig.seen()
        answer = await rig.browsers[0].answer()
        assert (answer.status, answer.error["code"]) == (404, "unknown_app")

    play(scenario)


def test_a_pool_that_was_taken_away_and_came_back_has_one_level(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        replica, other = await rig.replica(echo_after(gate)), await rig.replica(echo_after(gate))
        await rig.deploy(replica, max_inputs=1)
        old, new = await rig.browser(), await rig.browser()
        old.send(request("/call/app/fn", b"old"))
        await until(lambda: rig.control.levels(POOL)[-1:] == [(0, 1)], "the old one runs")
        rig.control.publish(gone_routes=("default/app/fn",), gone_pools=(POOL,))
        await rig.seen()
        # A control that comes anew is told of what still runs there, too.
        await rig.control.stop()
        rig.control.heard.clear()
        await rig.control.start()
        await until(lambda: rig.control.levels(POOL) == [(0, 1)], "what still runs")
        rig.control.publish(routes=(route("fn"),), pools=(pool_row("fn", other, max_inputs=1),))
        await rig.seen()
        new.send(request("/call/app/fn", b"new"))
        await until(lambda: rig.control.levels(POOL)[-1:] == [(0, 2)], "both")
        gate.set()
        assert [(await one.answer()).body for one in (old, new)] == [b"old", b"new"]
        await until(lambda: rig.control.levels(POOL)[-1:] == [(0, 0)], "none")

    play(scenario)


def test_loads_are_told_by_replica(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gates = {b"one": asyncio.Event(), b"two": asyncio.Event()}

        async def gated(exchange: Exchange, reader: Reader) -> None:
            body = await exchange.read_body(reader)
            await gates[body].wait()
            await exchange.answer(body=body)

        first, second = await rig.replica(gated), await rig.replica(gated)
        await rig.deploy(first, max_inputs=2)
        one, two = await rig.browser(), await rig.browser()
        one.send(request("/call/app/fn", b"one"))
        await until(lambda: rig.control.loads(POOL) == {first.name: 1}, "one in the first")
        # It is taken off the table, and still at work.
        await rig.endpoints("fn", second, max_inputs=2)
        await rig.seen()
        two.send(request("/call/app/fn", b"two"))
        await until(lambda: rig.control.loads(POOL) == {first.name: 1, second.name: 1}, "one in each")
        gates[b"one"].set()
        assert (await one.answer()).body == b"one"
        await until(lambda: rig.control.loads(POOL) == {second.name: 1}, "one in the second")
        gates[b"two"].set()
        assert (await two.answer()).body == b"two"
        await until(lambda: rig.control.levels(POOL)[-1:] == [(0, 0)], "none")
        assert rig.control.loads(POOL) == {}

    play(scenario)


def test_loads_of_very_many_replicas_are_not_told(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        replicas = [await rig.replica(echo_after(gate)) for _ in range(65)]
        await rig.deploy(*replicas)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"x"))
        await until(lambda: rig.control.levels(POOL)[-1:] == [(0, 1)], "one runs")
        assert rig.control.loads(POOL) == {}
        gate.set()
        assert (await browser.answer()).status == 200

    play(scenario)


def test_what_waits_over_a_deploy_comes_in_anew(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        old = (Method("get"), Method("gone"), web("open", "page"), web("shut", "vault"))
        await rig.deploy(methods=old, timeout_s=30.0)
        sent = {
            "stays": ("/call/app/fn.get", {"authorization": f"Bearer {KEY}"}),
            "removed": ("/call/app/fn.gone", {}),
            "web": ("/web/open/a?b=1", {"authorization": "Bearer theirs"}),
            "needs the key now": ("/web/shut/", {}),
        }
        browsers = {name: await rig.browser() for name in sent}
        for name, (path, headers) in sent.items():
            browsers[name].send(request(path, b"", **headers))
        await until(lambda: rig.control.levels(POOL)[-1:] == [(4, 0)], "all wait")
        replica = await rig.replica()
        new = (Method("get"), web("open", "site"), web("shut", "vault", needs_key=True))
        await rig.deploy(replica, methods=new, timeout_s=500.0, pool=NEXT)
        answers = {name: await browser.answer() for name, browser in browsers.items()}
        assert {name: answer.status for name, answer in answers.items()} == {
            "stays": 200,
            "removed": 404,
            "web": 200,
            "needs the key now": 401,
        }
        assert answers["removed"].error["code"] == "unknown_function"
        seen = {exchange.target: exchange.headers for exchange in replica.seen}
        assert set(seen) == {"/call/get", "/a?b=1"}
        call, page = seen["/call/get"], seen["/a?b=1"]
        assert call["swell-limit"].startswith("500 s")
        assert int(call["swell-remaining-ms"]) > 400_000
        assert call["swell-trusted"] == "1"
        assert page["swell-web"] == "site"
        # Once, although it came in twice.
        assert page["authorization"] == "Bearer theirs"

    play(scenario)


def test_a_timeout_that_a_deploy_shortens_is_the_new_one(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(timeout_s=1000.0)
        browser = await rig.browser()
        browser.send(request("/call/app/fn"))
        await until(lambda: rig.control.levels(POOL)[-1:] == [(1, 0)], "it waits")
        replica = await rig.replica()
        await rig.deploy(replica, timeout_s=500.0, pool=NEXT)
        assert (await browser.answer()).status == 200
        (seen,) = replica.seen
        assert seen.headers["swell-limit"] == "500 s (timeout= of the function)"

    play(scenario)


def test_who_waits_over_a_deploy_waits_no_longer_for_it(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy()
        browser = await rig.browser()
        browser.send(request("/call/app/fn"))
        await until(lambda: rig.control.levels(POOL)[-1:] == [(1, 0)], "it waits")
        (waiting,) = rig.front.deployed.pools[POOL].held
        waiting.at -= 1000.0
        await rig.deploy(pool=NEXT)
        answer = await browser.answer()
        assert (answer.status, answer.error["code"]) == (503, "held_too_long")

    play(scenario, hold_s=900.0)


@pytest.mark.parametrize("native", [True, False], ids=["ours", "foreign"])
def test_a_replica_that_is_listed_again_still_has_what_it_works_on(play: Play, native: bool) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        replica = await rig.replica(echo_after(gate), native=native)
        await rig.deploy(replica, max_inputs=2, native=native)
        browsers = [await rig.browser() for _ in range(3)]
        browsers[0].send(request("/call/app/fn", b"0"))
        await until(lambda: replica.running == 1, "it runs")
        # Its runner is away for a while.
        for _ in range(2):
            await rig.endpoints("fn", max_inputs=2, native=native)
            await rig.endpoints("fn", replica, max_inputs=2, native=native)
        await rig.seen()
        for n in (1, 2):
            browsers[n].send(request("/call/app/fn", b"%d" % n))
        await until(lambda: rig.control.levels(POOL)[-1:] == [(1, 2)], "one is held")
        assert rig.control.loads(POOL) == {replica.name: 2}
        gate.set()
        assert [(await browser.answer()).body for browser in browsers] == [b"0", b"1", b"2"]
        assert replica.most_running == 2
        await until(lambda: rig.control.levels(POOL)[-1:] == [(0, 0)], "all is over")

    play(scenario)
