"""Does control hear the levels and the finished requests, and does traffic go on without it?"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest
from rig import BEAT_S, PATIENCE_S, Exchange, Reader, Rig, pool_row, request, route, until

from swell.gateway import count, link
from swell.model.request import PoolCount
from swell.wire.link import DemandReport, KeepAlive, Requests, TellAll

Play = Callable[..., None]
POOL = "default/app/fn@rv-000000000001"


def test_the_first_held_request_is_told_at_once(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy()
        browser = await rig.browser()
        browser.send(request("/call/app/fn"))
        await until(lambda: rig.control.of(DemandReport), "the report")
        report = rig.control.of(DemandReport)[0]
        assert [(x.pool, x.held, x.in_flight) for x in report.levels] == [(POOL, 1, 0)]
        assert report.ttl_s == 5.0

    play(scenario)


def test_reports_are_few_and_end_at_zero(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica)
        browser = await rig.browser()
        for _ in range(300):
            await browser.call("/call/app/fn", b"x")
        await until(lambda: rig.control.levels(POOL)[-1:] == [(0, 0)], "the last level")
        reports = rig.control.of(DemandReport)
        # Each request was far shorter than the time between reports, and still it was seen.
        assert (0, 1) in rig.control.levels(POOL)
        spent_s = rig.control.arrived[-1] - rig.control.arrived[0]
        assert len(reports) <= spent_s / 0.1 + 2

    play(scenario)


def test_a_burst_is_told_whole_without_waiting_for_the_next_report(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "REPORT_S", 3600.0)

    async def scenario(rig: Rig) -> None:
        await rig.deploy()
        for _ in range(20):
            (await rig.browser()).send(request("/call/app/fn", swell_timeout="5"))
        await until(lambda: (20, 0) in rig.control.levels(POOL), "all that wait")
        assert rig.control.levels(POOL)[0] == (1, 0)

    play(scenario)


def test_the_one_that_waits_for_a_single_use_replica_is_told_at_once_each_time(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One caller after the other: what was told of the one before is of a request that had its replica."""
    monkeypatch.setattr(link, "REPORT_S", 3600.0)
    monkeypatch.setattr(link, "WAITING_S", 3600.0)

    async def scenario(rig: Rig) -> None:
        await rig.deploy(max_inputs=1, single_use=True)
        browser = await rig.browser()
        used = []
        for number in range(1, 4):
            browser.send(request("/call/app/fn"))
            await until(lambda n=number: rig.control.levels(POOL).count((1, 0)) == n, "it is told")
            used.append(await rig.replica())
            await rig.endpoints("fn", *used, max_inputs=1, single_use=True)
            assert (await browser.answer()).status == 200

    play(scenario)


def test_work_that_a_replica_lost_is_not_demand_any_more(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "REPORT_S", 3600.0)

    async def scenario(rig: Rig) -> None:
        dies, ends = asyncio.Event(), asyncio.Event()

        async def work(exchange: Exchange, reader: Reader) -> None:
            if await exchange.read_body(reader) == b"dies":
                await dies.wait()
                raise ConnectionError
            await ends.wait()
            await exchange.answer()

        replica = await rig.replica(work)
        await rig.deploy(replica)
        browsers = [await rig.browser() for _ in range(4)]
        for browser, body in zip(browsers, (b"ends", b"dies", b"dies", b"dies"), strict=True):
            browser.send(request("/call/app/fn", body))
        await until(lambda: replica.running == 4, "all in flight")
        dies.set()
        assert [(await browser.answer()).status for browser in browsers[1:]] == [502, 502, 502]
        rig.control.heard.clear()
        rig.control.say(TellAll())
        await until(lambda: rig.control.levels(POOL), "the level")
        assert rig.control.levels(POOL) == [(0, 1)]
        ends.set()
        assert (await browsers[0].answer()).status == 200

    play(scenario)


def test_a_request_that_waits_again_is_told_once(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        full = True

        async def refusing(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            if full:
                await exchange.answer(503, b"", swell_busy="1")
            else:
                await exchange.answer()

        replica = await rig.replica(refusing)
        await rig.deploy(replica)
        browsers = [await rig.browser() for _ in range(3)]
        for browser in browsers:
            browser.send(request("/call/app/fn", b"x"))
        await until(lambda: len(replica.seen) >= 12, "tries of a busy replica")
        told = rig.control.levels(POOL)
        full = False
        assert [(await browser.answer()).status for browser in browsers] == [200, 200, 200]
        assert max(held + in_flight for held, in_flight in told) <= 3

    play(scenario)


def test_control_goes_and_comes_back(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()

        async def slow(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            if exchange.body == b"wait":
                await gate.wait()
            await exchange.answer(body=exchange.body)

        await rig.deploy(await rig.replica(slow))
        browser, other = await rig.browser(), await rig.browser()
        await rig.control.stop()
        for n in range(5):
            assert (await browser.call("/call/app/fn", b"%d" % n)).body == b"%d" % n
        other.send(request("/call/app/fn", b"wait"))
        await asyncio.sleep(0.15)
        rig.control.heard.clear()
        await rig.control.start()
        await until(lambda: rig.control.levels(POOL) == [(0, 1)], "every level")
        gate.set()
        assert (await other.answer()).body == b"wait"
        await until(lambda: sum(c.requests for m in rig.control.of(Requests) for c in m.counts) == 6, "all counts")

    play(scenario)


def test_clients_wait_for_the_first_table(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"x"))
        rig.control.publish(routes=(route("fn"),), pools=(pool_row("fn", await rig.replica()),))
        await rig.control.start()
        assert (await browser.answer()).body == b"x"

    play(scenario, control=False, wait_s=PATIENCE_S)


def test_without_a_table_nothing_is_said_to_be_unknown(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await (await rig.browser()).call("/call/app/fn", b"x")
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "control_down", "1")

    play(scenario, control=False)


def test_a_missed_change_is_made_good_with_a_whole_table(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        rig.control.publish(base=99)
        await until(lambda: rig.control.hellos == 2, "another hello")
        await rig.seen()
        assert (await (await rig.browser()).call("/call/app/fn", b"x")).body == b"x"

    play(scenario)


def test_the_gateway_says_that_it_is_there(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await until(lambda: len(rig.control.of(KeepAlive)) >= 2)
        assert rig.control.hellos == 1

    play(scenario)


def test_records_and_counts(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def work(exchange: Exchange, reader: Reader) -> None:
            body = await exchange.read_body(reader)
            if body == b"slow":
                await asyncio.sleep(0.2)
            bad = body == b"bad"
            await exchange.answer(500 if bad else 200, b"{}", **({"swell_error": "500 exception"} if bad else {}))

        replica = await rig.replica(work)
        await rig.deploy()
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"cold"))
        await until(lambda: rig.control.levels(POOL))
        await rig.endpoints("fn", replica)
        ids = [(await browser.answer()).headers["swell-request-id"]]
        for n in range(100):
            body = {40: b"bad", 80: b"slow"}.get(n, b"fine")
            ids.append((await browser.call("/call/app/fn", body)).headers["swell-request-id"])

        def counts() -> list[PoolCount]:
            return [c for m in rig.control.of(Requests) for c in m.counts if c.pool == POOL]

        await until(lambda: sum(c.requests for c in counts()) == 101, "all counted")
        assert sum(c.errors for c in counts()) == 1
        assert sum(c.cold for c in counts()) == 1
        assert sum(c.busy_s for c in counts()) > 0.15
        records = {record.id: record for record in rig.control.records()}
        assert {ids[0], ids[41], ids[81]} <= set(records)
        assert records[ids[0]].cold
        assert (records[ids[41]].status, records[ids[41]].error) == (500, "exception")
        slow = records[ids[81]]
        assert slow.total_ms >= 150
        assert [name for name, _ in slow.phases_ms] == ["held", "connect", "run", "send"]
        assert slow.replica == replica.name
        assert (slow.cpu_us, slow.method, slow.attempts) == (120, "fn", 1)
        assert slow.cost_usd > 0
        # A sample of the ordinary ones, not all of them, in each second.
        assert 10 <= len(records) <= 3 + 10 * len(counts())

    play(scenario, slow_ms=150.0, records_per_pool=10)


def test_every_level_is_told_again_when_control_forgot_them(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy()
        await rig.deploy(name="other")
        for path in ("/call/app/fn", "/call/app/fn", "/call/app/other"):
            (await rig.browser()).send(request(path))
        await until(lambda: rig.control.levels(POOL)[-1:] == [(2, 0)], "two wait")
        await until(lambda: [m.levels for m in rig.control.of(KeepAlive)][-1:] == [2], "as many levels as pools")
        rig.control.heard.clear()
        rig.control.say(TellAll())
        await until(lambda: rig.control.of(DemandReport), "what is held, though it did not change")
        (report,) = rig.control.of(DemandReport)
        assert sorted((x.pool, x.held) for x in report.levels) == [(POOL, 2), (POOL.replace("fn", "other"), 1)]

    play(scenario)


def test_what_control_does_not_read_waits_within_bounds(
    play: Play, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(count, "WAITING_MAX", 50)

    async def scenario(rig: Rig) -> None:
        await rig.deploy()
        other = await rig.deploy(name="other")
        (await rig.browser()).send(request("/call/app/fn"))
        await until(lambda: rig.control.levels(POOL), "one is held, which is all that may be")
        assert rig.gateway._link is not None
        wire = rig.gateway._link.wire
        assert wire is not None
        assert wire.transport is not None
        browser = await rig.browser()
        refused = 0

        async def refuse(times: int) -> None:
            nonlocal refused
            for _ in range(times):
                assert (await browser.call("/call/app/fn")).status == 429
            refused += times

        rig.control.deaf(True)
        for _ in range(200):
            await refuse(50)
            rig.gateway._link.flush()
            if wire.write_paused:
                break
        assert wire.write_paused
        unsent = wire.transport.get_write_buffer_size()
        await refuse(200)
        (await rig.browser()).send(request("/call/app/other"))
        await asyncio.sleep(3 * BEAT_S)
        assert wire.transport.get_write_buffer_size() == unsent
        rig.control.deaf(False)
        await until(lambda: rig.control.levels(other)[-1:] == [(1, 0)], "what came to be held meanwhile")
        await until(
            lambda: sum(c.requests for m in rig.control.of(Requests) for c in m.counts) == refused, "all counts"
        )
        assert rig.control.hellos == 1
        lost = sum(int(count) for count in re.findall(r"(\d+) were lost", caplog.text))
        assert lost >= 150
        assert lost + sum(len(m.records) for m in rig.control.of(Requests)) == refused

    play(scenario, hold_max=1)
