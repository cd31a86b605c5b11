"""Is what was answered given again to whoever asks the same, to nobody else, and never for longer than it may be?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from holders import CI, call, give, key, said
from keeping import PATH, cached, failing, numbered
from rig import CALL_KEY, KEY, Exchange, Reader, Rig, until

from swell.gateway import cache as caching
from swell.gateway.cache import kept_of
from swell.model.limits import Limits
from swell.model.openai import Offer

Play = Callable[..., None]


def test_an_equal_call_is_answered_with_what_is_kept(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica(numbered)
        await rig.deploy(replica, methods=cached())
        browser = await rig.browser()
        first = await browser.call(PATH, b'{"x": 1}')
        again = await browser.call(PATH, b'{"x": 1}')
        other = await browser.call(PATH, b'{"x": 2}')
        assert [first.body, again.body, other.body] == [b"1", b"1", b"2"]
        assert "swell-cache" not in first.headers
        assert (again.headers["swell-cache"], again.headers["age"], again.headers["x-own"]) == ("hit", "0", "kept")
        assert again.headers["content-type"] == "application/json"
        assert float(again.headers["swell-cost-usd"]) == 0
        assert again.headers["server-timing"].startswith("cache;dur=")
        assert again.headers["swell-request-id"] != first.headers["swell-request-id"]
        assert len(again.names) == len(set(again.names))
        # To control it is a request that was asked of nobody.
        await until(lambda: len(rig.control.records()) == 3, "the records")
        record = next(r for r in rig.control.records() if r.id == again.headers["swell-request-id"])
        assert (record.reused.request, record.replica, record.cpu_us) == (first.headers["swell-request-id"], "", 0)
        assert [name for name, _ in record.phases_ms] == ["cache"]
        told = (await browser.call("/metrics", method="GET")).body.decode()
        assert 'swell_cache_hits_total{namespace="default",app="app",function="fn",gateway="0"} 1' in told
        assert rig.front.cache.store.bytes > 0

    play(scenario)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"accept": "application/json"}, {"accept": "application/msgpack"}),
        ({"content_type": "application/json"}, {"content_type": "application/octet-stream"}),
        ({"accept_language": "de"}, {"accept_language": "fr"}),
        (
            {"authorization": f"Bearer {KEY}", "accept": "application/x-swell-pickle"},
            {"accept": "application/x-swell-pickle"},
        ),
        (
            {"authorization": f"Bearer {KEY}", "accept": "Application/X-Swell-Pickle"},
            {"accept": "Application/X-Swell-Pickle"},
        ),
        (
            {"accept": "application/json, application/msgpack"},
            {"accept": "application/json\r\naccept: application/msgpack"},
        ),
    ],
)
def test_what_else_an_answer_depends_on_keeps_it_apart(play: Play, one: dict[str, str], other: dict[str, str]) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica(numbered)
        await rig.deploy(replica, methods=cached(60.0, "accept-language"))
        browser = await rig.browser()
        for headers in (one, other, one, other):
            await browser.call(PATH, b"{}", **headers)
        assert len(replica.seen) == 2

    play(scenario)


def test_keys_share_what_is_kept_unless_they_are_named(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica(numbered)
        await rig.deploy(replica, methods=cached(), name="fn")
        browser = await rig.browser()
        keys = ({}, {"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {CALL_KEY}"}, {"x_other": "1"})
        assert {(await browser.call(PATH, b"{}", **key)).body for key in keys} == {b"1"}

    play(scenario)


def test_keys_that_are_named_have_answers_of_their_own(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(numbered), methods=cached(60.0, "authorization"))
        await give(rig, CI, key("other222", "call:default/app"), key("none2222", "call:default/elsewhere"))
        browser = await rig.browser()
        asked = ("ci222222", "other222", "ci222222", "other222")
        assert [(await call(browser, id, PATH)).body for id in asked] == [b"1", b"2", b"1", b"2"]
        assert said(await call(browser, "none2222", PATH)) == (403, "no_scope")

    play(scenario)


def test_a_limit_is_met_by_hits_as_well(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(numbered), methods=cached(), limits=Limits(rate_per_s=0.001, burst=2))
        browser = await rig.browser()
        told = [await browser.call(PATH, b"{}") for _ in range(3)]
        assert [each.status for each in told] == [200, 200, 429]
        assert rig.front.deployed.gates["default/app/fn"].in_flight == 0

    play(scenario)


def test_a_key_is_asked_for_before_anything_is_given(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        rig.front.door.locked = True
        await rig.deploy(await rig.replica(numbered), methods=cached())
        browser = await rig.browser()
        assert (await browser.call(PATH, b"{}", authorization=f"Bearer {KEY}")).body == b"1"
        assert (await browser.call(PATH, b"{}")).status == 401

    play(scenario)


def test_it_is_given_for_its_time_and_not_longer(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(numbered), methods=cached(60.0))
        browser = await rig.browser()
        assert (await browser.call(PATH, b"{}")).body == b"1"
        rig.shared.now = lambda: time.monotonic() + 59.0
        later = await browser.call(PATH, b"{}")
        assert (later.body, later.headers["age"]) == (b"1", "59")
        assert (await browser.call(PATH, b"{}", cache_control="max-age=30")).body == b"2"
        rig.shared.now = lambda: time.monotonic() + 120.0
        assert (await browser.call(PATH, b"{}")).body == b"3"

    play(scenario)


def test_a_caller_may_want_a_new_one(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(numbered), methods=cached())
        browser = await rig.browser()
        wishes = ("", "no-cache", "", "no-store", "")
        told = [(await browser.call(PATH, b"{}", cache_control=wish)).body for wish in wishes]
        assert told == [b"1", b"2", b"2", b"3", b"2"]

    play(scenario)


def test_a_new_revision_has_nothing_of_the_old_one(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(numbered), methods=cached())
        browser = await rig.browser()
        await browser.call(PATH, b"{}")
        pool = "default/app/fn@rv-000000000002"
        new = await rig.replica(numbered)
        await rig.deploy(new, methods=cached(), pool=pool)
        answer = await browser.call(PATH, b"{}")
        assert (answer.body, len(new.seen), "swell-cache" in answer.headers) == (b"1", 1, False)

    play(scenario)


async def cookie(exchange: Exchange, reader: Reader) -> None:
    await exchange.read_body(reader)
    await exchange.answer(body=b"%d" % len(exchange.replica.seen), set_cookie="a=b")


async def private(exchange: Exchange, reader: Reader) -> None:
    await exchange.read_body(reader)
    await exchange.answer(body=b"%d" % len(exchange.replica.seen), cache_control="private")


async def large(exchange: Exchange, reader: Reader) -> None:
    await exchange.read_body(reader)
    await exchange.answer(body=b"x" * (caching.ANSWER_MAX + 1))


async def in_chunks(exchange: Exchange, reader: Reader) -> None:
    import h11

    await exchange.read_body(reader)
    exchange.send(h11.Response(status_code=200, headers=[("content-type", "text/event-stream")]))
    exchange.send(h11.Data(data=b"data: 1\n\n"))
    exchange.send(h11.EndOfMessage())


@pytest.mark.parametrize("behaviour", [failing, cookie, private, large, in_chunks])
def test_what_is_no_whole_answer_for_all_is_not_kept(play: Play, behaviour: Any) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica(behaviour)
        await rig.deploy(replica, methods=cached())
        browser = await rig.browser()
        for _ in range(2):
            await browser.call(PATH, b"{}")
        assert len(replica.seen) == 2
        assert (rig.front.cache.store.bytes, rig.front.cache.flights) == (0, {})

    play(scenario)


def test_a_hit_wakes_nothing(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica(numbered)
        pool = await rig.deploy(replica, methods=cached())
        browser = await rig.browser()
        await browser.call(PATH, b"{}")
        await rig.endpoints("fn")
        await rig.seen()
        assert (await browser.call(PATH, b"{}")).headers["swell-cache"] == "hit"
        assert rig.front.deployed.pools[pool].held_count == 0
        assert all(held == 0 for held, _ in rig.control.levels(pool))

    play(scenario)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_in_pieces_is_waited_for_within_bounds(
    play: Play, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    monkeypatch.setattr(caching, "BODY_MAX", 1000)

    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica, methods=cached())
        for size, calls in ((600, 1), (600, 1), (3000, 2), (3000, 3)):
            browser = await rig.browser()
            whole = b"x" * size
            length = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % size
            browser.send(b"POST %b HTTP/1.1\r\nhost: x\r\n%b\r\n\r\n" % (PATH.encode(), length))
            for at in range(0, size, 300):
                piece = whole[at : at + 300]
                browser.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await asyncio.sleep(0.01)
            if chunked:
                browser.send(b"0\r\n\r\n")
            assert (await browser.answer()).body == whole
            assert len(replica.seen) == calls
        assert rig.shared.held_bytes == 0

    play(scenario)


def test_models_of_the_openai_api_are_kept_too(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica(numbered)
        await rig.deploy(replica, methods=cached(openai=Offer("embeddings", "m")))
        browser = await rig.browser()
        body = b'{"model": "m", "input": "x"}'
        told = [(await browser.call("/v1/embeddings", body)).body for _ in range(2)]
        assert told == [b"1", b"1"]
        # Another protocol is another answer.
        assert (await browser.call(PATH, body)).body == b"2"

    play(scenario)


def test_a_setting_bounds_what_is_kept_or_keeps_nothing(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica(numbered)
        await rig.deploy(replica, methods=cached())
        browser = await rig.browser()
        for _ in range(2):
            assert "swell-cache" not in (await browser.call(PATH, b"{}")).headers
        assert len(replica.seen) == 2

    play(scenario, response_cache_bytes_max=0)


def test_only_what_came_whole_is_kept() -> None:
    head = b"HTTP/1.1 200 OK\r\nSwell-Request-Id: a\r\nContent-Type: text/x\r\nX-A: 1\r\nContent-Length: 3\r\n\r\n"
    whole = kept_of(head + b"abc", "a", 1.0, 2.0)
    assert whole is not None
    assert (whole.content_type, whole.lines, whole.body) == (b"text/x", b"X-A: 1\r\n", b"abc")
    assert kept_of(head + b"ab", "a", 1.0, 2.0) is None
    assert kept_of(b"", "a", 1.0, 2.0) is None
