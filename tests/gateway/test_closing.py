"""What does a gateway that ends wait for, what does it say meanwhile, and what are those told whom it cuts?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from rig import PATIENCE_S, Exchange, Reader, Replica, Rig, echo_after, request, until

from swell.gateway import deaths
from swell.wire.calls import Submit

Play = Callable[..., None]
LONG_S = 1000.0


def test_requests_are_waited_for_held_ones_included(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        pool = await rig.deploy(await rig.replica(echo_after(gate)), max_inputs=1)
        runs, waits, idle = await rig.browser(), await rig.browser(), await rig.browser()
        for browser, body in ((runs, b"runs"), (waits, b"waits")):
            browser.send(request("/call/app/fn", body))
        await until(lambda: rig.control.levels(pool)[-1:] == [(1, 1)], "both")
        said: list[str] = []
        closing = asyncio.create_task(rig.gateway.close(LONG_S, said.append))
        assert await idle.rest() == b""
        await until(lambda: said, "what is waited for")
        assert said[0].startswith("2 requests run, at most ")
        gate.set()
        assert [(await browser.answer()).body for browser in (runs, waits)] == [b"runs", b"waits"]
        async with asyncio.timeout(PATIENCE_S):
            await closing

    play(scenario)


def test_what_runs_is_finished_and_connections_at_rest_are_closed(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        replica = await rig.replica(echo_after(gate))
        await rig.deploy(replica, max_inputs=1)
        idle, running, waiting = [await rig.browser() for _ in range(3)]
        assert (await idle.call("/healthz", method="GET")).status == 200
        running.send(request("/call/app/fn", b"run"))
        await until(lambda: replica.seen)
        closing = asyncio.ensure_future(rig.gateway.close(0.5))
        assert await idle.rest() == b""
        gate.set()
        answer = await running.answer()
        assert (answer.body, answer.headers["connection"]) == (b"run", "close")
        await closing
        await asyncio.wait_for(asyncio.shield(rig.serving), 5)  # type: ignore[arg-type]
        assert waiting.reader.at_eof() or await waiting.rest() == b""

    play(scenario)


def test_what_still_waits_at_the_end_is_refused(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        pool = await rig.deploy()
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"run"))
        await until(lambda: rig.control.levels(pool)[-1:] == [(1, 0)], "it is held")
        await rig.gateway.close(0.1)
        answer = await browser.answer()
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "stopping", "1")

    play(scenario)


def test_what_is_cut_is_told_whether_it_ran(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def never(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            await asyncio.Event().wait()

        pool = await rig.deploy(await rig.replica(never), max_inputs=1)
        runs, waits = await rig.browser(), await rig.browser()
        for browser in (runs, waits):
            browser.send(request("/call/app/fn", b"x"))
            await until(lambda: rig.control.levels(pool)[-1:] != [], "it is there")
        await until(lambda: rig.control.levels(pool)[-1:] == [(1, 1)], "both")
        closing = asyncio.create_task(rig.gateway.close(LONG_S))
        await asyncio.sleep(0.1)
        assert not closing.done()
        rig.gateway.cut()
        ran, waited = await runs.answer(), await waits.answer()
        assert [(one.status, one.error["code"]) for one in (ran, waited)] == [(503, "stopping")] * 2
        assert "was cut off" in ran.error["message"]
        assert "retry-after" not in ran.headers
        assert "was not begun" in waited.error["message"]
        assert waited.headers["retry-after"] == "1"
        async with asyncio.timeout(PATIENCE_S):
            await closing

    play(scenario)


def test_what_is_cut_while_control_accepts_it_is_told_that_this_is_not_known(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy()
        asks, sends = await rig.browser(), await rig.browser()
        asks.send(request("/call/app/fn", b"[1]", swell_async="true"))
        await until(lambda: rig.control.of(Submit), "control is asked")
        sends.send(request("/call/app/fn", b"", swell_async="true", content_length="10"))
        await until(lambda: len(rig.front.queueing._news) == 1, "the other's body is waited for")
        await rig.gateway.close(0.0)
        asked, sent = await asks.answer(), await sends.answer()
        assert (asked.status, asked.error["code"]) == (502, "control_down")
        assert "is not known" in asked.error["message"]
        assert (sent.status, sent.error["code"]) == (503, "stopping")
        assert "was not begun" in sent.error["message"]

    play(scenario)


def test_what_is_cut_after_its_replica_died_is_told_that_it_ran(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(exchange: Exchange, reader: Reader) -> None:
        await exchange.read_body(reader)
        exchange.writer.transport.abort()
        raise ConnectionError

    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(die))
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"x"))
        await until(lambda: rig.shared.deaths._waiting, "what ended it is waited for")
        await rig.gateway.close(0.0)
        died = await browser.answer()
        assert (died.status, died.error["code"]) == (502, "replica_died")
        assert "retry-after" not in died.headers

    # Longer than anybody waits here.
    monkeypatch.setattr(deaths, "WAIT_S", LONG_S)
    play(scenario)


def test_calls_of_the_api_are_not_waited_for_long(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def follow(exchange: Exchange, reader: Reader) -> None:
            await asyncio.Event().wait()

        api = await Replica("control", str(rig.settings.paths.api_socket), follow, native=False).start()
        follower = await rig.browser()
        follower.send(request("/api/logs", method="GET"))
        await until(lambda: api.seen, "it follows")
        async with asyncio.timeout(PATIENCE_S):
            await rig.gateway.close(LONG_S)
        assert (await follower.answer("GET")).status == 503
        await api.stop()

    play(scenario)
