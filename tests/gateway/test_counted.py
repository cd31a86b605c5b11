"""Do a key's limits count all that is asked for with it, once each, and before its body is kept?"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType

import msgspec
import pytest
from holders import CI, SLOW, bearer, call, give, key, said
from rig import Rig, echo_after, request, until

from swell.model.caching import Caching
from swell.model.key import ApiKey
from swell.model.limits import Limits
from swell.model.openai import Offer
from swell.model.workload import Method

AT_DOOR = (
    *(f"gateway/{name}.py" for name in ("front", "admission", "own", "door", "gate")),
    "decide/limit.py",
    "model/limits.py",
)
Play = Callable[..., None]
PATH = "/v1/chat/completions"
MODEL = (Method("fn", openai=Offer("chat.completions", "m")),)
CACHED = (Method("fn", cache=Caching(60.0)),)


def body(size: int = 0) -> bytes:
    return json.dumps({"messages": "x" * size, "model": "m"}).encode()


def limited(**limits: float) -> ApiKey:
    return msgspec.structs.replace(CI, limits=Limits(**limits))  # type: ignore[arg-type]


def code(answer_body: bytes) -> str:
    return str(json.loads(answer_body)["error"]["code"])


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/api/apps", "GET"),
        ("/call/app/nothing", "POST"),
        ("/v1/models", "GET"),
        ("/v1/models/none", "GET"),
        ("/v2", "GET"),
        ("/v2/models/none", "GET"),
        ("/nothing", "GET"),
        ("/metrics", "GET"),
    ],
)
def test_whatever_a_key_asks_for_counts(play: Play, path: str, method: str) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        all_apps = key("all22222", "call:*/*", limits=Limits(burst=3, **SLOW))
        await give(rig, all_apps)
        browser = await rig.browser()
        # There is nobody whose numbers would have to be waited for.
        hurried = {"x_prometheus_scrape_timeout_seconds": "0.1"}
        answers = [await call(browser, "all22222", path, method=method, **hurried) for _ in range(4)]
        assert 429 not in [answer.status for answer in answers[:3]]
        assert answers[3].status == 429, answers[3].body
        assert b"of all22222" in answers[3].body
        assert int(answers[3].headers["retry-after"]) > 900
        assert said(await call(browser, "all22222")) == (429, "rate_limited")
        # Of nobody else, and of none that tells nothing.
        assert (await browser.call("/call/app/fn")).status == 200
        assert (await call(browser, "all22222", "/healthz", method="GET")).status == 200

    play(scenario)


def test_what_was_answered_is_under_way_no_more(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        await give(rig, limited(concurrency=1))
        browser = await rig.browser()
        for path, method in (("/api/apps", "GET"), ("/nothing", "GET"), ("/v1/models", "GET"), (PATH, "POST")):
            for _ in range(2):
                assert (await call(browser, CI.id, path, method=method)).status != 429, path
        assert said(await call(browser, CI.id)) == (200, "")
        assert {gate.in_flight for gate in rig.front.door.gates.values()} == {0}

    play(scenario)


def test_a_request_of_the_openai_api_counts_once_from_its_head_to_its_end(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        replica = await rig.replica(echo_after(gate))
        await rig.deploy(replica, methods=MODEL)
        await give(rig, limited(concurrency=1, burst=3, **SLOW))
        first = await rig.browser()
        first.send(request(PATH, authorization=bearer(CI.id), content_length=str(len(body()))) + body()[:5])
        await until(lambda: rig.shared.held_bytes == 5, "the first piece")
        other = await rig.browser()
        for refused in (await call(other, CI.id, PATH, body=body()), await call(other, CI.id, "/call/app/fn")):
            assert (refused.status, code(refused.body)) == (429, "too_many_in_flight")
        first.send(body()[5:])
        await until(lambda: replica.running, "the call")
        assert (await call(other, CI.id, PATH, body=body())).status == 429
        gate.set()
        assert (await first.answer()).body == body()
        assert [(await call(other, CI.id, PATH, body=body())).status for _ in range(3)] == [200, 200, 429]
        (at_door,) = rig.front.door.gates.values()
        assert at_door.in_flight == 0

    play(scenario)


def test_who_leaves_while_a_body_is_gathered_makes_room(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), methods=MODEL)
        await give(rig, limited(concurrency=1))
        first = await rig.browser()
        first.send(request(PATH, authorization=bearer(CI.id), content_length="900") + b"x")
        await until(lambda: rig.shared.held_bytes == 1, "the first piece")
        first.close()
        await until(lambda: not rig.shared.held_bytes, "its end")
        assert (await call(await rig.browser(), CI.id, PATH, body=body())).status == 200

    play(scenario)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("of_key", [False, True])
def test_a_body_that_is_too_long_is_not_gathered(play: Play, of_key: bool, chunked: bool) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica, methods=MODEL)
        await give(rig, limited(body_max=1000) if of_key else CI)
        browser = await rig.browser()
        sent = body(3000)
        if chunked:
            head = request(PATH, authorization=bearer(CI.id), transfer_encoding="chunked")
            browser.send(head.replace(b"content-length: 0\r\n", b"") + b"%x\r\n%b\r\n" % (len(sent), sent))
        else:
            # Nothing of it comes: its length says enough.
            browser.send(request(PATH, authorization=bearer(CI.id), content_length=str(len(sent))))
        answer = await browser.answer()
        assert (answer.status, code(answer.body)) == (413, "body_too_large")
        assert (b"1000 bytes (body_max of the key" if of_key else b"2000 bytes (body_max)") in answer.body
        assert rig.shared.held_bytes == 0
        assert (await call(await rig.browser(), CI.id, PATH, body=body())).status == 200

    play(scenario, body_max=2000)


@pytest.mark.parametrize("of_key", [False, True])
@pytest.mark.parametrize("path", [PATH, "/call/app/fn"])
def test_a_body_that_goes_on_coming_but_does_not_come_to_an_end_is_given_up(
    play: Play, path: str, of_key: bool
) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), methods=MODEL if path == PATH else CACHED)
        await give(rig, limited(timeout_s=0.5) if of_key else CI)
        browser = await rig.browser()
        browser.send(request(path, authorization=bearer(CI.id), content_length="100000"))
        answering = asyncio.ensure_future(browser.answer())
        while not answering.done():
            browser.send(b" ")
            await asyncio.wait({answering}, timeout=0.05)
        answer = await answering
        expected = (504, "deadline") if of_key else (408, "slow_client")
        assert (answer.status, code(answer.body)) == expected
        assert (b"timeout of the key" if of_key else b"(hold_s)") in answer.body
        assert rig.shared.held_bytes == 0
        assert (await call(await rig.browser(), CI.id, path, body=body())).status == 200

    play(scenario, hold_s=600.0 if of_key else 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("path", [PATH, "/call/app/fn"])
def test_once_it_is_here_the_time_that_its_body_had_is_over(play: Play, path: str) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        await rig.deploy(await rig.replica(echo_after(gate)), methods=MODEL if path == PATH else CACHED)
        browser = await rig.browser()
        browser.send(request(path, content_length=str(len(body()))) + body()[:5])
        await until(lambda: rig.shared.held_bytes == 5, "the first piece")
        browser.send(body()[5:])
        answering = asyncio.ensure_future(browser.answer())
        await asyncio.wait({answering}, timeout=2.5)
        gate.set()
        assert (await answering).body == body()

    play(scenario, hold_s=2.0)


def test_keys_count_at_the_limits_of_those_they_come_from(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        await rig.deploy(await rig.replica(echo_after(gate)))
        top = key("top22222", "admin", limits=Limits(concurrency=2, body_max=500))
        middle = key("middle22", "admin", made_by="top22222")
        leaves = [key(f"leaf222{n}", "call:*/*", made_by="middle22") for n in "abc"]
        await give(rig, top, middle, *leaves)
        waiting = [await rig.browser() for _ in range(2)]
        for browser, leaf in zip(waiting, leaves, strict=False):
            browser.send(request("/call/app/fn", b"x", authorization=bearer(leaf.id)))
        (at_door,) = rig.front.door.gates.values()
        await until(lambda: at_door.in_flight == 2, "two calls")
        other = await rig.browser()
        for id in ("leaf222c", "middle22", "top22222"):
            refused = await call(other, id)
            assert said(refused) == (429, "too_many_in_flight")
            assert "the key of top22222" in refused.error["message"]
        gate.set()
        assert [(await browser.answer()).status for browser in waiting] == [200, 200]
        long = await call(other, "leaf222c", body=b"x" * 501)
        assert said(long) == (413, "body_too_large")

    play(scenario)


def test_a_key_and_limits_are_asked_in_a_few_calls(play: Play) -> None:
    """Each request pays for them: what of theirs does not change from one to the next is found once."""

    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), limits=Limits(1000.0, 1000, 1000))
        await give(rig, limited(rate_per_s=1000.0, burst=1000, concurrency=1000))
        browser = await rig.browser()
        for _ in range(2):
            assert said(await call(browser, CI.id)) == (200, "")
        at_door: Counter[str] = Counter()

        def count(frame: FrameType, event: str, _argument: object) -> None:
            if event == "call" and frame.f_code.co_filename.endswith(AT_DOOR):
                at_door[frame.f_code.co_qualname] += 1

        sys.setprofile(count)
        try:
            answer = await call(browser, CI.id)
        finally:
            sys.setprofile(None)
        assert said(answer) == (200, "")
        assert at_door["let_in"] == 1
        assert at_door.total() <= 12, at_door

    play(scenario)
