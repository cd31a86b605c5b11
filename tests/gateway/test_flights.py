"""Does who asks the same while a call runs get its answer, or an own one, and never wait for nothing?"""

from __future__ import annotations

import asyncio
import sys
import tracemalloc
from collections.abc import Callable

import pytest
from keeping import PATH, cached, failing, numbered
from rig import Exchange, Reader, Rig, echo_after, request, until

from swell.gateway import cache as caching
from swell.model.limits import Limits

Play = Callable[..., None]


def test_who_asks_the_same_meanwhile_waits_for_that_answer(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        replica = await rig.replica(echo_after(gate))
        await rig.deploy(replica, methods=cached())
        browsers = [await rig.browser() for _ in range(5)]
        for browser in browsers:
            browser.send(request(PATH, b"{}"))
        await until(lambda: sum(len(f.waiting) for f in rig.front.cache.flights.values()) == 4, "four wait")
        gate.set()
        told = [await browser.answer() for browser in browsers]
        assert [each.body for each in told] == [b"{}"] * 5
        assert sum(each.headers.get("swell-cache") == "hit" for each in told) == 4
        assert len(replica.seen) == 1
        assert (rig.shared.held_bytes, rig.front.cache.flights) == (0, {})

    play(scenario)


def test_when_the_first_leaves_the_others_go_on_by_themselves(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        replica = await rig.replica(echo_after(gate))
        await rig.deploy(replica, methods=cached())
        first, second, third = [await rig.browser() for _ in range(3)]
        first.send(request(PATH, b"{}"))
        await until(lambda: replica.seen, "the first")
        second.send(request(PATH, b"{}"))
        third.send(request(PATH, b"{}"))
        flights = rig.front.cache.flights
        await until(lambda: flights and len(next(iter(flights.values())).waiting) == 2, "two wait")
        first.close()
        await until(lambda: len(replica.seen) == 3, "the others' own calls")
        gate.set()
        assert [(await each.answer()).body for each in (second, third)] == [b"{}", b"{}"]
        assert (await second.call(PATH, b"{}")).headers["swell-cache"] == "hit"
        assert rig.shared.held_bytes == 0

    play(scenario)


def test_one_who_waits_has_a_deadline_of_its_own_and_may_leave(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        replica = await rig.replica(echo_after(gate))
        await rig.deploy(replica, methods=cached(), limits=Limits(concurrency=10))
        first, hasty, leaves = [await rig.browser() for _ in range(3)]
        first.send(request(PATH, b"{}"))
        await until(lambda: replica.seen, "the first")
        leaves.send(request(PATH, b"{}"))
        flights = rig.front.cache.flights
        await until(lambda: len(next(iter(flights.values())).waiting) == 1, "one waits")
        leaves.close()
        await until(lambda: not next(iter(flights.values())).waiting, "it left")
        late = await hasty.call(PATH, b"{}", swell_timeout="0.2")
        assert (late.status, late.error["code"]) == (504, "deadline")
        gate.set()
        assert (await first.answer()).status == 200
        assert rig.front.deployed.gates["default/app/fn"].in_flight == 0
        assert len(replica.seen) == 1
        assert rig.shared.held_bytes == 0

    play(scenario)


def test_those_who_wait_while_it_is_deployed_anew_follow(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(methods=cached())
        browsers = [await rig.browser() for _ in range(3)]
        for browser in browsers:
            browser.send(request(PATH, b"{}"))
        await until(lambda: sum(len(f.waiting) for f in rig.front.cache.flights.values()) == 2, "two wait")
        new = await rig.replica(numbered)
        await rig.deploy(new, methods=cached(), pool="default/app/fn@rv-000000000002")
        assert {(await browser.answer()).body for browser in browsers} == {b"1"}
        assert len(new.seen) == 1
        assert rig.shared.held_bytes == 0

    play(scenario)


def test_who_waits_for_a_stream_goes_on_as_soon_as_it_is_seen_to_be_one(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        head, end = asyncio.Event(), asyncio.Event()

        async def streaming(exchange: Exchange, reader: Reader) -> None:
            import h11

            await exchange.read_body(reader)
            await head.wait()
            exchange.send(h11.Response(status_code=200, headers=[("content-type", "text/event-stream")]))
            exchange.send(h11.Data(data=b"data: 1\n\n"))
            await exchange.writer.drain()
            await end.wait()
            exchange.send(h11.EndOfMessage())

        replica = await rig.replica(streaming)
        await rig.deploy(replica, methods=cached())
        first, second = [await rig.browser() for _ in range(2)]
        first.send(request(PATH, b"{}"))
        await until(lambda: replica.seen, "the first")
        second.send(request(PATH, b"{}"))
        await until(lambda: [f for f in rig.front.cache.flights.values() if f.waiting], "one waits")
        head.set()
        await until(lambda: len(replica.seen) == 2, "the second's own call")
        end.set()
        assert [(await each.answer()).body for each in (first, second)] == [b"data: 1\n\n"] * 2
        assert (rig.front.cache.flights, rig.front.cache.gathered_bytes, rig.shared.held_bytes) == ({}, 0, 0)

    play(scenario)


LONG = 12 * 1024 * 1024
"""More than sockets take for somebody who does not read."""


async def long(exchange: Exchange, reader: Reader) -> None:
    await exchange.read_body(reader)
    await exchange.answer(body=b"x" * LONG)


def test_others_do_not_wait_for_how_slowly_the_first_reads(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "ANSWER_MAX", 2 * LONG)

    async def scenario(rig: Rig) -> None:
        replica = await rig.replica(long)
        await rig.deploy(replica, methods=cached())
        slow, other = [await rig.browser() for _ in range(2)]
        slow.send(request(PATH, b"{}"))
        flights = rig.front.cache.flights
        await until(lambda: [f for f in flights.values() if f.client.write_paused], "it does not read")
        answer = await other.call(PATH, b"{}")
        assert (len(answer.body), answer.headers["swell-cache"], len(replica.seen)) == (LONG, "hit", 1)
        assert len((await slow.answer()).body) == LONG

    play(scenario)


def test_answers_on_their_way_take_no_more_than_those_that_are_kept(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "ANSWER_MAX", 2 * LONG)

    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(long), methods=cached())
        browsers = [await rig.browser() for _ in range(3)]
        for nth, browser in enumerate(browsers):
            browser.send(request(PATH, b"%d" % nth))
        clients = rig.gateway.clients
        await until(lambda: len(clients) == 3 and all(each.write_paused for each in clients), "none reads")
        cache = rig.front.cache
        assert cache.gathered_bytes <= cache.store.bytes_max
        assert cache.gathered_bytes == sum(flight.size for flight in cache.flights.values())
        assert [len((await browser.answer()).body) for browser in browsers] == [LONG] * 3
        assert (cache.gathered_bytes, cache.flights) == (0, {})

    play(scenario, response_cache_bytes_max=LONG // 8)


def test_what_is_given_to_many_who_do_not_read_is_there_once(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "ANSWER_MAX", 2 * LONG)

    async def scenario(rig: Rig) -> None:
        # Before 3.12 asyncio's own loop copies what is not sent at once.
        copies = isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop) and sys.version_info < (3, 12)
        await rig.deploy(await rig.replica(long), methods=cached())
        assert len((await (await rig.browser()).call(PATH, b"{}")).body) == LONG
        many = [await rig.browser() for _ in range(8)]
        tracemalloc.start()
        for browser in many:
            browser.send(request(PATH, b"{}"))
        hits = rig.shared.ledger.counts.of("default/app/fn")
        await until(lambda: hits.hits == 8, "all are given it")
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert used < ((len(many) if copies else 0) + 3) * LONG

    play(scenario)


def test_who_waited_for_as_long_as_may_be_goes_on_by_itself(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        replica = await rig.replica(echo_after(gate))
        await rig.deploy(replica, methods=cached())
        first, second = [await rig.browser() for _ in range(2)]
        first.send(request(PATH, b"{}"))
        await until(lambda: replica.seen, "the first")
        second.send(request(PATH, b"{}"))
        await until(lambda: len(replica.seen) == 2, "the second's own call")
        gate.set()
        assert [(await each.answer()).body for each in (first, second)] == [b"{}", b"{}"]
        assert (rig.front.cache.flights, rig.shared.held_bytes) == ({}, 0)

    play(scenario, hold_s=0.3)


def test_a_body_that_comes_while_it_is_deployed_anew_goes_to_what_is_deployed_then(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        old, new = await rig.replica(numbered), await rig.replica(numbered)
        await rig.deploy(old, methods=cached())
        browser = await rig.browser()
        whole = request(PATH, b'{"x": 1}')
        browser.send(whole[:-3])
        await until(lambda: rig.shared.held_bytes, "some of it")
        await rig.deploy(new, methods=cached(), pool="default/app/fn@rv-000000000002")
        browser.send(whole[-3:])
        assert (await browser.answer()).status == 200
        assert (len(old.seen), len(new.seen), rig.shared.held_bytes) == (0, 1, 0)

    play(scenario)


def test_those_whose_first_fails_after_a_deploy_go_to_what_is_deployed_then(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()

        async def fails(exchange: Exchange, reader: Reader) -> None:
            await gate.wait()
            await failing(exchange, reader)

        old, new = await rig.replica(fails), await rig.replica(numbered)
        await rig.deploy(old, methods=cached())
        first, *others = [await rig.browser() for _ in range(3)]
        first.send(request(PATH, b"{}"))
        await until(lambda: old.seen, "the first")
        for browser in others:
            browser.send(request(PATH, b"{}"))
        (flight,) = rig.front.cache.flights.values()
        await until(lambda: len(flight.waiting) == 2, "two wait")
        await rig.deploy(new, methods=cached(), pool="default/app/fn@rv-000000000002")
        gate.set()
        assert (await first.answer()).status == 500
        assert [(await each.answer()).body for each in others] == [b"1", b"1"]
        assert (len(old.seen), len(new.seen), rig.shared.held_bytes) == (1, 1, 0)

    play(scenario)
