"""Is an event that is posted given to control whole, and by whom may it be sent?"""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest
from holders import CI, bearer, give
from rig import KEY, Browser, Rig, request, route, until

from swell.model.limits import Limits
from swell.model.subscription import Events
from swell.wire.calls import INPUT_MAX, NewEvent, SubmitEvent, Submitted

Play = Callable[..., None]
ID = "fc-01JD8S6YH0000000000000000A"
PATH = "/trigger/app/fn"


async def deployed(rig: Rig, events: Events, limits: Limits | None = None) -> None:
    await rig.deploy(await rig.replica())
    row = msgspec.structs.replace(route("fn"), events=events, limits=limits or Limits())
    rig.control.publish(routes=(row,))
    await rig.seen()


async def asked(rig: Rig, count: int = 1) -> list[SubmitEvent]:
    await until(lambda: len(rig.control.of(SubmitEvent)) >= count, "control is asked")
    found: list[SubmitEvent] = rig.control.of(SubmitEvent)
    return found


def send(browser: Browser, path: str = PATH, body: bytes = b'{"n": 1}', **headers: str) -> None:
    browser.send(request(path, body, **headers))


async def accepted(rig: Rig, browser: Browser, **headers: str) -> NewEvent:
    """Send one, have control accept it, and return what that was told."""
    before = len(rig.control.of(SubmitEvent))
    send(browser, **headers)
    told = (await asked(rig, before + 1))[-1]
    rig.control.say(Submitted(told.ask, ID))
    answer = await browser.answer()
    assert (answer.status, json.loads(answer.body)) == (202, {"id": ID})
    assert answer.headers["location"] == f"/calls/{ID}"
    return told.event


async def refused(browser: Browser, path: str = PATH, body: bytes = b"{}", **headers: str) -> tuple[int, str]:
    send(browser, path, body, **headers)
    answer = await browser.answer()
    return answer.status, answer.error["code"]


def test_an_event_is_told_as_it_came(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await deployed(rig, "open")
        browser = await rig.browser()
        told = await accepted(rig, browser, **{"Ce-Id": "7", "X-Sign": "abc", "Content-Type": "application/json"})
        assert (told.workload, told.body, told.key) == ("default/app/fn", b'{"n": 1}', "")
        headers = dict(told.headers)
        assert (headers["ce-id"], headers["x-sign"], headers["content-type"]) == ("7", "abc", "application/json")
        assert not told.signed
        assert "authorization" not in headers
        assert (await accepted(rig, browser, **{"Ce-Id": "8"})).headers != told.headers
        assert (await browser.call("/call/app/fn", b"plain")).body == b"plain"
        assert rig.shared.held_bytes == 0

    play(scenario)


def test_what_control_says_is_passed_on(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await deployed(rig, "open")
        browser = await rig.browser()
        send(browser)
        (told,) = await asked(rig)
        rig.control.say(Submitted(told.ask, "", 400, "bad_event", "id is missing."))
        answer = await browser.answer()
        assert (answer.status, answer.error["code"], answer.error["message"]) == (400, "bad_event", "id is missing.")

    play(scenario)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/trigger/app/other", "unknown_function"),
        ("/trigger/none/fn", "unknown_app"),
        ("/trigger/app", "unknown_path"),
        ("/trigger/app@v1/fn", "unknown_path"),
        ("/trigger/", "unknown_path"),
    ],
)
def test_what_is_not_there_is_told(play: Play, path: str, code: str) -> None:
    async def scenario(rig: Rig) -> None:
        await deployed(rig, "open")
        assert await refused(await rig.browser(), path) == (404, code)
        assert not rig.control.of(SubmitEvent)

    play(scenario)


def test_a_function_without_a_trigger_takes_none(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await deployed(rig, "")
        browser = await rig.browser()
        assert await refused(browser) == (404, "unknown_trigger")
        await deployed(rig, "open")
        assert await refused(browser, **{"Swell-Async": "true"}) == (400, "bad_request")
        assert await refused(browser, **{"Content-Encoding": "gzip"}) == (415, "bad_body")
        browser.send(b"GET /trigger/app/fn HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await browser.answer()).status == 405
        assert not rig.control.of(SubmitEvent)

    play(scenario)


def test_where_a_key_is_needed_a_signature_is_one(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await deployed(rig, "open")
        await give(rig, CI)
        rig.front.door.locked = True
        browser = await rig.browser()
        assert await refused(browser) == (401, "no_key")
        told = await accepted(rig, browser, Authorization=bearer(CI.id))
        assert told.key == CI.id
        await accepted(rig, browser, Authorization=f"Bearer {KEY}")
        await deployed(rig, "signed")
        # Whether it is the right one, control sees.
        told = await accepted(rig, browser)
        assert (told.key, told.signed) == ("", True)

    play(scenario)


def test_one_that_is_too_large_or_comes_too_often_is_refused(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await deployed(rig, "open", Limits(rate_per_s=0.001, burst=2))
        browser = await rig.browser()
        head = b"POST /trigger/app/fn HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (INPUT_MAX + 1)
        browser.send(head)
        assert (await browser.answer()).error["code"] == "body_too_large"
        other = await rig.browser()
        await accepted(rig, other)
        assert await refused(other) == (429, "rate_limited")

    play(scenario)


BATCH = {"Content-Type": "application/cloudevents-batch+json"}


def test_of_a_batch_each_event_counts_and_all_of_them_or_none_come(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await deployed(rig, "open", Limits(rate_per_s=0.001, burst=7))
        # Those that are counted: 3, 1, 1, 1 and 1.
        browser = await rig.browser()
        send(browser, body=b"[{}, {}, {}]", **BATCH)
        (told,) = await asked(rig)
        assert told.event.body == b"[{}, {}, {}]"
        rig.control.say(Submitted(told.ask, ids=(ID, ID, "")))
        answer = await browser.answer()
        assert (answer.status, json.loads(answer.body)) == (202, {"ids": [ID, ID, ""]})
        # One is let in, and there is no room for four more.
        send(browser, body=b"[{}, {}, {}, {}, {}]", **BATCH)
        answer = await browser.answer()
        assert (answer.status, answer.error["code"]) == (429, "rate_limited")
        assert "5 are too many just now" in answer.error["message"]
        # More than ever may: sent again it would be no better.
        send(browser, body=b"[%b]" % b",".join([b"{}"] * 8), **BATCH)
        answer = await browser.answer()
        assert (answer.status, answer.error["code"]) == (413, "body_too_large")
        assert "7 may come at once" in answer.error["message"]
        # That was one, and of an empty one there is none; what is no batch control says.
        send(browser, body=b"[]", **BATCH)
        rig.control.say(Submitted((await asked(rig, 2))[-1].ask, ids=()))
        answer = await browser.answer()
        assert (answer.status, json.loads(answer.body)) == (202, {"ids": []})
        send(browser, body=b"[{}, ", **BATCH)
        rig.control.say(Submitted((await asked(rig, 3))[-1].ask, "", 400, "bad_event", "It is not JSON."))
        assert (await browser.answer()).status == 400
        assert await refused(browser, body=b"[{}]", **BATCH) == (429, "rate_limited")
        assert rig.shared.held_bytes == 0

    play(scenario)


def test_with_control_away_it_is_refused(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await deployed(rig, "open")
        browser = await rig.browser()
        send(browser)
        await asked(rig)
        await rig.control.stop()
        answer = await browser.answer()
        assert (answer.status, answer.error["code"]) == (502, "control_down")

    play(scenario)
