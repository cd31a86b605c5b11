"""Is every request counted once, under few names, and are the numbers told with control or without it?"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import h11
import pytest
from rig import CALL_KEY, KEY, Answer, Browser, Exchange, Reader, Rig, echo_after, pool_row, request, route, until

from series import read
from swell.gateway import metrics
from swell.gateway.metrics import wait_s
from swell.model.metrics import BY_NAME, OTHER, Sample
from swell.wire.exposition import Report, parts
from swell.wire.link import AskMetrics, Metrics, MetricsTold, TellMetrics

Play = Callable[..., None]
Told = dict[tuple[Any, ...], float]


async def scrape(browser: Browser, **headers: str) -> Answer:
    """Of a gateway whose control does not answer: it is not waited for long."""
    answer = await browser.call("/metrics", method="GET", x_prometheus_scrape_timeout_seconds="0.05", **headers)
    assert answer.status == 200, answer.body
    return answer


async def told(rig: Rig, name: str, *labels: str) -> Told:
    """The values of one metric, by these labels' values."""
    series = read((await scrape(await rig.browser())).body.decode())
    return {tuple(dict(found).get(label, "") for label in labels): v for (n, found), v in series.items() if n == name}


def test_requests_are_counted_by_how_they_ended(play: Play) -> None:
    async def odd(exchange: Exchange, reader: Reader) -> None:
        """Answers with the status and the error that the body asks for."""
        status, _, error = (await exchange.read_body(reader)).decode().partition(" ")
        await exchange.answer(int(status), **({"Swell_Error": f"{status} {error}"} if error else {}))

    async def scenario(rig: Rig) -> None:
        replica = await rig.replica(odd)
        await rig.deploy(replica)
        browser = await rig.browser()
        asked = ("200", "200", "404", "500 exception", "503 made-up", "299", "298")
        for body in asked:
            await browser.call("/call/app/fn", body.encode())
        assert (await browser.call("/call/app/none")).status == 404
        assert (await browser.call("/call/app/fn", authorization="Bearer theirs")).status == 401
        requests = await told(rig, "swell_requests_total", "app", "function", "code", "error", "gateway")
        assert requests == {
            ("app", "fn", "200", "", "0"): 2,
            ("app", "fn", "404", "", "0"): 1,
            ("app", "fn", "500", "exception", "0"): 1,
            ("app", "fn", "503", "other", "0"): 1,
            ("app", "fn", "2xx", "", "0"): 2,
        }
        assert await told(rig, "swell_request_duration_seconds_count", "function") == {("fn",): len(asked)}
        assert await told(rig, "swell_requests_refused_total", "code", "error") == {
            ("404", "unknown_function"): 1,
            ("401", "bad_key"): 1,
        }

    play(scenario)


def test_what_is_made_up_adds_no_series(play: Play) -> None:
    async def made_up(exchange: Exchange, reader: Reader) -> None:
        number = int(await exchange.read_body(reader))
        await exchange.answer(200 + number % 400, Swell_Error=f"{400 + number % 200} made-up-{number}")

    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(made_up))
        browser = await rig.browser()
        for number in range(300):
            await browser.call("/call/app/fn", b"%d" % number)
        series = await told(rig, "swell_requests_total", "code", "error")
        assert sum(series.values()) == 300
        assert {error for _, error in series} == {"other"}
        assert len(series) < 60

    play(scenario)


def test_what_waits_is_told_while_it_does_and_for_how_long_it_did(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        replica = await rig.replica(echo_after(gate))
        await rig.deploy(max_inputs=1)
        waiting = [await rig.browser() for _ in range(3)]
        for browser in waiting:
            browser.send(request("/call/app/fn", b"x"))
        await until(lambda: (3, 0) in rig.control.levels(pool_row("fn").pool), "all wait")
        assert await told(rig, "swell_requests_held", "function") == {("fn",): 3}
        assert (await told(rig, "swell_held_bytes"))[()] == 3
        await rig.endpoints("fn", replica, max_inputs=1)
        await until(lambda: replica.running, "one runs")
        assert await told(rig, "swell_requests_held", "function") == {("fn",): 2}
        assert await told(rig, "swell_requests_in_flight", "function") == {("fn",): 1}
        gate.set()
        for browser in waiting:
            assert (await browser.answer()).status == 200
        assert (await waiting[0].call("/call/app/fn", b"x")).status == 200
        assert await told(rig, "swell_held_seconds_count", "function") == {("fn",): 3}
        assert await told(rig, "swell_cold_requests_total", "function") == {("fn",): 3}
        assert await told(rig, "swell_request_duration_seconds_count", "function") == {("fn",): 4}

    play(scenario)


def test_counters_go_on_when_a_pool_goes_and_comes_and_changes_its_revision(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica)
        browser = await rig.browser()

        async def counted(so_far: int) -> None:
            await browser.call("/call/app/fn", b"x")
            assert await told(rig, "swell_requests_total", "function") == {("fn",): so_far}

        await counted(1)
        await rig.endpoints("fn")
        await rig.seen()
        await rig.endpoints("fn", replica)
        await rig.seen()
        await counted(2)
        another = "default/app/fn@rv-000000000002"
        rig.control.publish(
            routes=(route("fn", pool=another),),
            pools=(pool_row("fn", replica, pool=another),),
            gone_pools=(pool_row("fn").pool,),
        )
        await rig.seen()
        await counted(3)
        rig.control.publish(gone_routes=("default/app/fn",), gone_pools=(another,))
        await rig.seen()
        assert await told(rig, "swell_requests_total", "function") == {("fn",): 3}
        await rig.deploy(replica)
        await counted(4)

    play(scenario)


def test_the_number_of_series_is_bounded_whatever_is_deployed(play: Play) -> None:
    most, deployed = 5, 12

    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        browser = await rig.browser()
        names = [f"fn{number}" for number in range(deployed)]
        for name in names:
            await rig.deploy(replica, name=name)
            await browser.call(f"/call/app/{name}", b"x")
        series = read((await scrape(browser)).body.decode())
        functions = {
            (labels.get("app"), labels.get("function")) for _, found in series if "app" in (labels := dict(found))
        }
        assert functions == {*(("app", name) for name in names[:most]), (OTHER, None)}
        assert await told(rig, "swell_requests_total", "app", "function") == {
            **{("app", name): 1 for name in names[:most]},
            (OTHER, ""): deployed - most,
        }
        per_metric = Counter(name for name, _ in series)
        for name, number in per_metric.items():
            buckets = len(BY_NAME[name.removesuffix("_bucket")].bounds) + 1 if name.endswith("_bucket") else 1
            assert number <= (most + 1) * buckets, name
        # Who is gone makes room for the next: be it by its route, or one that had none and is gone at last.
        rig.control.publish(gone_routes=("default/app/fn0",), gone_pools=(pool_row("fn0").pool,))
        await rig.deploy(replica, name="late")
        await browser.call("/call/app/late", b"x")
        now = await told(rig, "swell_requests_total", "app", "function")
        assert ("app", "late") in now
        assert ("app", "fn0") not in now
        assert len(now) == most + 1
        rig.control.publish(gone_routes=("default/app/late",), gone_pools=(pool_row("late").pool,))
        await rig.seen()
        leaving = rig.front.deployed.leaving
        await until(lambda: not any(pool.dirty for pool in leaving.values()), "its last level is told")
        rig.control.publish(pools=(pool_row("late"),))
        rig.control.publish(gone_pools=(pool_row("late").pool,))
        await rig.deploy(replica, name="last")
        await browser.call("/call/app/last", b"x")
        now = await told(rig, "swell_requests_total", "app", "function")
        assert ("app", "last") in now
        assert ("app", "late") not in now

    play(scenario, metrics_pools_max=most)


def test_without_control_the_gateway_tells_its_own(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        series = read((await scrape(await rig.browser())).body.decode())
        up = {dict(labels)["process"]: value for (name, labels), value in series.items() if name == "swell_up"}
        assert up == {"gateway": 1, "control": 0}
        assert {v for (name, _), v in series.items() if name == "swell_link_connected"} == {0}
        assert {name for name, _ in series} >= {"process_open_fds", "swell_build_info", "swell_client_connections"}

    play(scenario, control=False)


def test_what_control_gathered_is_told_with_it(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()
        browser.send(request("/metrics", method="GET"))
        await until(lambda: rig.control.of(AskMetrics), "the question")
        ask: AskMetrics = rig.control.of(AskMetrics)[0]
        assert ask.within_s == metrics.WAIT_S
        reports = (
            Report("control", "", tuple(parts((Sample("swell_pools_waiting", (), 7),)))),
            Report("runner", "local", answered=False),
            Report("gateway", "1", tuple(parts((Sample("swell_held_bytes", ("1",), 5),)))),
        )
        # What was asked by another is nobody's here.
        rig.control.say(Metrics(ask.ask + 1, Report("gateway", "2"), last=True))
        for number, report in enumerate(reports, 1):
            rig.control.say(Metrics(ask.ask, report, last=number == len(reports)))
        answer = await browser.answer("GET")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        series = read(answer.body.decode())
        up = {(dict(x)["process"], dict(x).get("gateway")): v for (n, x), v in series.items() if n == "swell_up"}
        assert up == {("gateway", "0"): 1, ("control", None): 1, ("runner", None): 0, ("gateway", "1"): 1}
        assert series["swell_pools_waiting", frozenset()] == 7
        assert {dict(x)["gateway"]: v for (n, x), v in series.items() if n == "swell_held_bytes"} == {"0": 0, "1": 5}

    play(scenario)


def test_a_control_that_goes_away_or_hangs_keeps_no_scraper_waiting(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()
        # It hears the question and says nothing.
        assert b'swell_up{process="control"} 0' in (await scrape(browser)).body
        browser.send(request("/metrics", method="GET", x_prometheus_scrape_timeout_seconds="3600"))
        await until(lambda: len(rig.control.of(AskMetrics)) == 2, "the question")
        assert rig.control.of(AskMetrics)[1].within_s == metrics.WAIT_MAX_S
        await rig.control.stop()
        assert b'swell_up{process="control"} 0' in (await browser.answer("GET")).body

    play(scenario)


def test_a_scraper_that_leaves_is_forgotten(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()
        browser.send(request("/metrics", method="GET"))
        await until(lambda: rig.control.of(AskMetrics), "the question")
        browser.close()
        await until(lambda: not rig.gateway.clients, "it left")
        rig.control.say(Metrics(rig.control.of(AskMetrics)[0].ask, Report("control", ""), last=True))
        await until(lambda: not rig.shared.tasks, "the answer is nobody's")
        assert b"swell_up" in (await scrape(await rig.browser())).body

    play(scenario)


def test_another_gateways_scraper_gets_this_ones_numbers(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        await (await rig.browser()).call("/call/app/fn", b"x")
        rig.control.say(TellMetrics(9))
        await until(lambda: rig.control.of(MetricsTold), "the answer")
        answer: MetricsTold = rig.control.of(MetricsTold)[0]
        assert (answer.ask, answer.report.process) == (9, "gateway")
        line = b'swell_requests_total{namespace="default",app="app",function="fn",code="200",gateway="0"} 1\n'
        assert ("swell_requests_total", line) in answer.report.parts

    play(scenario)


def test_ways_to_ask(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()
        head = await browser.call("/metrics", method="HEAD", x_prometheus_scrape_timeout_seconds="0.05")
        assert (head.status, head.body) == (200, b"")
        assert int(head.headers["content-length"]) > 100
        refused = await browser.call("/metrics")
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
        foreign = await browser.call("/metrics", method="GET", host="evil.example")
        assert (foreign.status, foreign.error["code"]) == (403, "bad_host")
        assert (await scrape(browser, host="evil.example", authorization=f"Bearer {KEY}")).status == 200
        for body in ({"content_length": "5"}, {"transfer_encoding": "chunked"}):
            sends = await rig.browser()
            answer = await sends.call("/metrics", method="GET", **body)
            assert (answer.status, answer.error["code"]) == (400, "bad_request")
        assert (await scrape(await rig.browser(), content_length="0")).status == 200
        other = await browser.call("/metrics", method="GET", authorization="Bearer theirs")
        assert (other.status, other.error["code"]) == (401, "bad_key")

    play(scenario, control=False)


def test_elsewhere_the_key_is_needed(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()
        refused = await browser.call("/metrics", method="GET")
        assert (refused.status, refused.error["code"]) == (401, "no_key")
        for key in (KEY, CALL_KEY):
            assert (await scrape(browser, authorization=f"Bearer {key}")).status == 200

    play(scenario, host="0.0.0.0", control=False)


def test_connections_and_files_are_counted_as_they_are(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browsers = [await rig.browser() for _ in range(4)]
        await until(lambda: len(rig.gateway.clients) == 4, "all are there")
        series = read((await scrape(browsers[0])).body.decode())
        assert series["swell_client_connections", frozenset({("gateway", "0")})] == 4
        files = len(os.listdir("/proc/self/fd")) - 1
        assert series["process_open_fds", frozenset({("process", "gateway"), ("gateway", "0")})] == files

    play(scenario, control=False)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"", metrics.WAIT_S),
        (b"accept: */*\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\nx: y\r\n", 10 * metrics.SHARE),
        (b"x-prometheus-scrape-timeout-seconds: 0.5\r\n", 0.5 * metrics.SHARE),
        (b"x-prometheus-scrape-timeout-seconds: 0\r\n", metrics.WAIT_S),
        (b"x-prometheus-scrape-timeout-seconds: 9999\r\n", metrics.WAIT_MAX_S),
        (b"x-prometheus-scrape-timeout-seconds: soon\r\n", metrics.WAIT_S),
        (b"x-prometheus-scrape-timeout-seconds: 1e9\r\n", metrics.WAIT_S),
        (b"y: x-prometheus-scrape-timeout-seconds: 3\r\n", metrics.WAIT_S),
    ],
)
def test_how_long_others_are_waited_for(head: bytes, expected: float) -> None:
    assert wait_s(head) == expected


def test_h11_takes_it(play: Play) -> None:
    """The rig reads answers with h11; a pipelined request behind a scrape gets its own answer."""

    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()
        browser.send(
            request("/metrics", method="GET", x_prometheus_scrape_timeout_seconds="0.05")
            + request("/healthz", method="GET")
        )
        assert b"swell_up" in (await browser.answer("GET")).body
        assert (await browser.answer("GET")).body == b"ok\n"
        assert browser.conn.our_state is h11.DONE

    play(scenario)
