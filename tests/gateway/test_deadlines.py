"""How long does a request wait, how long is it worked on, and what is said when either is over?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import h11
import pytest
from rig import Exchange, Reader, Rig, request, until

from swell.gateway import request as gateway_request

pytestmark = pytest.mark.slow

Play = Callable[..., None]
POOL = "default/app/fn@rv-000000000001"


@pytest.mark.slow
def test_deadlines_end_what_is_held_and_what_runs(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        cancelled = asyncio.Event()

        async def stuck(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            assert int(exchange.headers["swell-remaining-ms"]) <= 200
            await reader.event()
            cancelled.set()

        replica = await rig.replica(stuck)
        await rig.deploy(timeout_s=5.0)
        browser = await rig.browser()
        first = late = await browser.call("/call/app/fn", swell_timeout="0.1")
        assert (late.status, late.error["code"]) == (504, "deadline")
        assert late.error["request"] == late.headers["swell-request-id"]
        assert late.error["message"] == (
            "The deadline of 0.1 s (the caller's Swell-Timeout) passed while it waited for a free replica."
        )
        await rig.endpoints("fn", replica, timeout_s=5.0)
        await rig.seen()
        late = await browser.call("/call/app/fn", swell_timeout="0.2")
        assert (late.status, late.error["code"]) == (504, "deadline")
        assert late.error["message"] == "The deadline of 0.2 s (the caller's Swell-Timeout) passed while it ran."
        await asyncio.wait_for(cancelled.wait(), 5)
        await until(lambda: [r.error for r in rig.control.records()] == ["deadline", "deadline"])
        for header, free in ((first.headers, True), (late.headers, False)):
            assert "total;dur=" in header["server-timing"]
            assert (header.get("swell-cost-usd") == "0.000000000000") == free, "only a replica can tell what it used"
        held, ran = rig.control.records()
        assert (held.cpu_us, held.cost_usd) == (0, 0.0), "no replica worked on it"
        assert ran.cpu_us == -1, "its replica could not tell"
        assert ran.cost_usd > 0, "but it held memory for as long as it ran"
        await rig.endpoints("fn", replica, timeout_s=0.2)
        await rig.seen()
        late = await browser.call("/call/app/fn")
        assert late.error["message"] == "The deadline of 0.2 s (timeout= of the function) passed while it ran."
        assert replica.seen[-1].headers["swell-limit"] == "0.2 s (timeout= of the function)"

    play(scenario)


def test_waiting_takes_nothing_of_a_timeout(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(timeout_s=0.3)
        wanted = {b"plain": {}, b"patient": {"swell_timeout": "1000"}, b"hasty": {"swell_timeout": "100.2"}}
        browsers = {body: await rig.browser() for body in wanted}
        for body, headers in wanted.items():
            browsers[body].send(request("/call/app/fn", body, **headers))
        await until(lambda: rig.control.levels(POOL)[-1:] == [(3, 0)], "all are held")
        await asyncio.sleep(0.5)
        await rig.endpoints("fn", replica, timeout_s=100.0)
        assert [(await browser.answer()).status for browser in browsers.values()] == [200, 200, 200]
        seen = {exchange.body: exchange.headers for exchange in replica.seen}
        for body in (b"plain", b"patient"):
            assert seen[body]["swell-limit"] == "100 s (timeout= of the function)"
            assert 99_000 < int(seen[body]["swell-remaining-ms"]) <= 100_001
        # Its own deadline counts from when it came: by now it is the sooner one.
        assert seen[b"hasty"]["swell-limit"] == "100.2 s (the caller's Swell-Timeout)"
        assert int(seen[b"hasty"]["swell-remaining-ms"]) < 100_000

    play(scenario)


def test_who_waits_for_too_long_is_told_that_nothing_was_begun(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(timeout_s=0.01)
        answer = await (await rig.browser()).call("/call/app/fn", swell_timeout="1000")
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "held_too_long", "1")
        for words in ("0.2 s", "not begun", "max_containers", "hold_s"):
            assert words in answer.error["message"]
        assert answer.headers["swell-cost-usd"] == "0.000000000000"
        assert answer.headers["swell-cold"] == "1"
        assert answer.headers["server-timing"].startswith("held;dur=")
        await until(lambda: rig.control.levels(POOL)[-1:] == [(0, 0)], "nobody waits")

    play(scenario, hold_s=0.2)


def test_what_is_given_back_for_ever_is_held_for_so_long_only(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def refusing(exchange: Exchange, _reader: Reader) -> None:
            await exchange.answer(503, b"", swell_busy="1")

        await rig.deploy(await rig.replica(refusing))
        answer = await (await rig.browser()).call("/call/app/fn")
        assert (answer.status, answer.error["code"]) == (503, "held_too_long")

    play(scenario, hold_s=0.3)


def test_a_replica_may_tell_what_it_used_just_after_the_deadline(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_request, "LAST_WORDS_S", 60.0)

    async def scenario(rig: Rig) -> None:
        async def late(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            await asyncio.sleep(0.4)
            await exchange.answer(504, b"its words", swell_error="504 deadline")

        await rig.deploy(await rig.replica(late))
        answer = await (await rig.browser()).call("/call/app/fn", swell_timeout="0.2")
        assert (answer.status, answer.body) == (504, b"its words")
        assert float(answer.headers["swell-cost-usd"]) > 0
        await until(lambda: [(r.status, r.error, r.cpu_us) for r in rig.control.records()] == [(504, "deadline", 120)])

    play(scenario)


@pytest.mark.parametrize("speaks", [True, False])
def test_a_stream_may_end_in_words_just_after_its_deadline_or_is_cut(
    play: Play, monkeypatch: pytest.MonkeyPatch, speaks: bool
) -> None:
    if speaks:
        monkeypatch.setattr(gateway_request, "LAST_WORDS_S", 60.0)

    async def scenario(rig: Rig) -> None:
        async def streams(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            exchange.send(h11.Response(status_code=200, headers=[]))
            exchange.send(h11.Data(data=b"some"))
            if not speaks:
                await reader.event()
                return
            await asyncio.sleep(0.4)
            exchange.send(h11.Data(data=b"event: error"))
            exchange.send(h11.EndOfMessage(headers=[("Swell-Error", "504 deadline")]))

        await rig.deploy(await rig.replica(streams))
        browser = await rig.browser()
        browser.send(request("/call/app/fn", swell_timeout="0.2"))
        if speaks:
            assert (await browser.answer()).body == b"someevent: error"
        else:
            whole = await browser.rest()
            assert b"some" in whole
            assert not whole.endswith(b"0\r\n\r\n")
        await until(lambda: [(r.status, r.error) for r in rig.control.records()] == [(504, "deadline")])

    play(scenario)
