"""Is an event that is posted accepted once, by those who may send it alone?"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from control.event_place import BROKER, EventPlace
from control.test_calls_machine import hasten
from swell.model.errors import SwellError
from swell.model.secret import SecretUse
from swell.model.subscription import HttpEvents, Subscription
from swell.model.trigger import shown_event
from swell.store.memory import MemoryStore
from swell.wire.calls import NewEvent
from swell.wire.event import Event
from swell.wire.http import JSON_OR_PICKLE

OPEN = Subscription(HttpEvents())
SIGNED = Subscription(HttpEvents("x-sign"), SecretUse("default", "hook"))
HEADERS = {
    "ce-specversion": "1.0",
    "ce-id": "7",
    "ce-source": "/shop",
    "ce-type": "t",
    "content-type": "application/json",
}
BODY = b'{"n": 1}'


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


def run(subscription: Subscription, test: Callable[[EventPlace], Awaitable[None]]) -> None:
    async def running() -> None:
        place = EventPlace(MemoryStore(now=lambda: 0.0))
        await place.open()
        try:
            place.subscribe("a", subscription)
            await test(place)
        finally:
            await place.close()

    asyncio.run(running())


def event(body: bytes = BODY, key: str = "", **headers: str) -> NewEvent:
    told = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return NewEvent("default/a/f", tuple(told.items()), body, key)


async def refused(place: EventPlace, new: NewEvent) -> tuple[int, str, str]:
    with pytest.raises(SwellError) as raised:
        await place.desk.take(new)
    return raised.value.status, raised.value.code, raised.value.message


def test_an_event_is_one_call_however_often_it_is_sent() -> None:
    async def test(place: EventPlace) -> None:
        first = await place.desk.take(event())
        assert [await place.desk.take(event()) for _ in range(2)] == [first, first]
        others = [event(ce_id="8"), event(ce_source="/other"), event(key="k-1")]
        # What people know them by is the same.
        others += [event(ce_source="/a b", ce_id="c"), event(ce_source="/a", ce_id="b c")]
        ids = {first, *[await place.desk.take(each) for each in others]}
        assert len(ids) == 6
        assert {each.id for each in place.store.call_records.newest("default/a/", None, 99)} == ids
        history = place.store.triggers.history("default/a/f:http", 99)
        assert {each.call for each in history} == ids, "each has its row"
        assert [(shown_event(each.id), each.how) for each in history][-1] == ("/shop 7", "event")
        live = place.events.of("default/a/f")
        assert live is not None
        assert live.state.fired_at == place.clock.at
        place.start("a")
        await place.settle()
        (given, *_) = [each for _, each in place.runner.held.values()]
        (told,) = msgspec.msgpack.decode(given.input.data, type=list[Event])
        assert given.accept == JSON_OR_PICKLE
        assert (told.type, told.data, told.content_type) == ("t", {"n": 1}, "application/json")

    run(OPEN, test)


def test_one_that_cannot_be_kept_is_tried_again_by_who_sent_it() -> None:
    async def test(place: EventPlace) -> None:
        await place.events.settled("default/a")
        place.store.how = "before"
        assert (await refused(place, event()))[:2] == (507, "state_full")
        place.store.how = ""
        assert not place.store.triggers.history("default/a/f:http", 9)
        assert await place.desk.take(event()) == await place.desk.take(event())

    run(OPEN, test)


def signature(body: bytes = BODY, secret: str = "k3y") -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def test_a_signature_is_that_of_the_body() -> None:
    async def test(place: EventPlace) -> None:
        for good in (signature(), f"sha256={signature()}", signature().upper()):
            await place.desk.take(event(x_sign=good))
        status, code, words = await refused(place, event())
        assert (status, code) == (401, "bad_signature")
        assert "the header x-sign with the signature is missing" in words
        wrong = [signature(b"other"), signature(secret="other"), "", "é", f"sha1={signature()}", signature()[:-1]]
        for each in wrong:
            assert (await refused(place, event(x_sign=each)))[:2] == (401, "bad_signature")
        # Nothing else is said to who has none.
        assert (await refused(place, event(b"{", ce_id="")))[:2] == (401, "bad_signature")
        place.secrets["hook"] = "other"
        await place.desk.take(event(x_sign=signature(secret="other")))
        await place.desk.take(event(x_sign=signature(secret="other")))
        place.secrets.clear()
        live = place.events.of("default/a/f")
        assert live is not None
        for sign in (signature(), "anything"):
            status, code, words = await refused(place, event(x_sign=sign))
            assert (status, code) == (503, "trigger_broken")
            assert "hook" not in words, "which secrets there are is nothing to strangers"
            assert "hook" in live.held_back
        place.secrets["hook"] = "k3y"
        await place.desk.take(event(x_sign=signature()))
        assert not live.held_back

    run(SIGNED, test)


def timed(at: float, body: bytes = BODY, secret: str = "k3y") -> str:
    """A signature that says when it was made."""
    return f"t={at:.0f},v1={signature(f'{at:.0f}.'.encode() + body, secret)}"


def test_a_signature_with_a_time_holds_for_a_while() -> None:
    async def test(place: EventPlace) -> None:
        now = place.clock.at
        other = timed(now, secret="other")
        for good in (timed(now), timed(now - 60), timed(now + 60), f"{other},{timed(now).partition(',')[2]}"):
            await place.desk.take(event(x_sign=good))
        for away_s, how in ((-61, "61 s ago"), (61, "61 s from now")):
            status, code, words = await refused(place, event(x_sign=timed(now + away_s)))
            assert (status, code) == (401, "bad_signature")
            assert f"was made {how}; it holds for 60 s" in words
        later = timed(now).replace(f"t={now:.0f}", f"t={now + 1:.0f}")
        none = f"v1={signature()}"
        wrong = [later, other, timed(now, b"other"), none, f"t=,{none}", f"t=²,{none}", f"t={now:.0f}", signature()]
        for each in wrong:
            assert (await refused(place, event(x_sign=each)))[:2] == (401, "bad_signature")
        twice = f"t={now - 99:.0f},{timed(now)}"
        assert "is written t=" in (await refused(place, event(x_sign=twice)))[2], "which of them holds?"
        place.clock.at += 61
        assert (await refused(place, event(x_sign=timed(now))))[:2] == (401, "bad_signature")

    run(Subscription(HttpEvents("x-sign", replay_s=60), SecretUse("default", "hook")), test)


def batch(*ids: str, key: str = "") -> NewEvent:
    told = [{"specversion": "1.0", "id": id, "source": "/shop", "type": "t", "data": {"n": 1}} for id in ids]
    body = json.dumps(told).encode()
    return NewEvent("default/a/f", (("content-type", "application/cloudevents-batch+json"),), body, key)


def test_of_a_batch_each_event_is_one_call() -> None:
    async def test(place: EventPlace) -> None:
        alone = await place.desk.take(event())
        ids = await place.desk.take(batch("1", "7", "2", "1"))
        assert (len({*ids}), ids[1], ids[0]) == (3, alone, ids[3])
        assert await place.desk.take(batch("2", "1")) == (ids[2], ids[0])
        assert await place.desk.take(batch()) == ()
        calls = {each.id for each in place.store.call_records.newest("default/a/", None, 99)}
        history = place.store.triggers.history("default/a/f:http", 99)
        assert {each.call for each in history} == calls == {*ids}
        status, code, words = await refused(place, batch("3", "", "4"))
        assert (status, code) == (400, "bad_event")
        assert words.startswith("In the batch, the event number 1 (from 0 on): id is a text")
        assert len(place.store.call_records.newest("default/a/", None, 99)) == 3, "none of them is taken"
        place.store.how = "before"
        assert (await refused(place, batch("5", "6")))[:2] == (507, "state_full")
        place.store.how = ""
        assert len({*await place.desk.take(batch("5", "6"))}) == 2

    run(OPEN, test)


def test_one_that_is_paused_takes_none_and_nor_does_what_has_no_trigger() -> None:
    async def test(place: EventPlace) -> None:
        await place.events.settled("default/a")
        await place.events.pause("default/a/f:http", True)
        status, code, words = await refused(place, event())
        assert (status, code) == (503, "trigger_paused")
        assert "`swell trigger resume a/f`" in words
        await place.close()
        # Whatever control has not read of its store yet.
        await place.open()
        assert (await refused(place, event()))[1] == "trigger_paused"
        await place.events.pause("default/a/f:http", False)
        await place.desk.take(event())
        # The kind that it has is another: then it takes none of these.
        place.subscribe("a", BROKER)
        assert (await refused(place, event()))[:2] == (404, "unknown_trigger")
        place.stop("a")
        assert (await refused(place, event()))[:2] == (404, "unknown_trigger")

    run(OPEN, test)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ce-id": None}, "id is missing"),
        ({"ce-specversion": "2"}, "specversion is 1.0"),
        ({"ce-time": "now"}, "time is written as"),
        ({name: None for name in HEADERS if name.startswith("ce-")}, "This is no CloudEvent"),
    ],
)
def test_one_that_is_none_is_told_why(changes: dict[str, Any], words: str) -> None:
    async def test(place: EventPlace) -> None:
        headers = {name: value for name, value in {**HEADERS, **changes}.items() if value is not None}
        status, code, said = await refused(place, NewEvent("default/a/f", tuple(headers.items()), BODY))
        assert (status, code) == (400, "bad_event")
        assert said.startswith(words)

    run(OPEN, test)


def test_a_webhook_that_is_no_event_is_one_by_its_headers() -> None:
    async def test(place: EventPlace) -> None:
        def hook(**headers: str) -> NewEvent:
            told = {"content-type": "application/json", **{n.replace("_", "-"): v for n, v in headers.items()}}
            return NewEvent("default/a/f", tuple(told.items()), BODY)

        first = await place.desk.take(hook(x_id="7", x_type="push"))
        assert await place.desk.take(hook(x_id="7", x_type="push")) == first
        assert await place.desk.take(event()) != first
        status, code, said = await refused(place, hook(x_type="push"))
        assert (status, code) == (400, "bad_event")
        assert "the header x-id, which tells one webhook from another, is missing" in said
        # What says that it is an event is to be one.
        assert (await refused(place, hook(x_id="8", ce_id="8")))[2].startswith("specversion is missing")
        place.start("a")
        await place.settle()
        given = [msgspec.msgpack.decode(each.input.data, type=list[Event])[0] for _, each in place.runner.held.values()]
        told = next(each for each in given if each.type == "push")
        assert (told.id, told.source, told.data) == ("7", "/trigger/default/a/f", {"n": 1})

    run(Subscription(HttpEvents(id_header="x-id", type_header="x-type")), test)


def test_one_that_is_too_large_for_the_queue_is_told_so() -> None:
    async def test(place: EventPlace) -> None:
        body = json.dumps("x" * (4 * 1024 * 1024 - 10)).encode()
        assert (await refused(place, event(body)))[:2] == (413, "body_too_large")

    run(OPEN, test)


def test_a_header_that_is_there_twice_is_refused_where_it_counts() -> None:
    async def test(place: EventPlace) -> None:
        def twice(name: str) -> NewEvent:
            headers = {**HEADERS, "x-sign": signature(), "via": "1.1 a"}
            return NewEvent("default/a/f", (*headers.items(), (name, headers[name])), BODY)

        for name in ("ce-id", "x-sign", "content-type"):
            status, code, words = await refused(place, twice(name))
            assert (status, code) == (400, "bad_event")
            assert f"The header {name} is there more than once" in words
        await place.desk.take(twice("via"))

    run(SIGNED, test)


def test_one_that_was_let_in_as_signed_is_not_taken_where_nothing_is_checked_any_more() -> None:
    async def test(place: EventPlace) -> None:
        new = msgspec.structs.replace(event(), signed=True)
        assert (await refused(place, new))[:2] == (503, "busy")
        await place.desk.take(event())
        place.subscribe("a", SIGNED)
        assert (await refused(place, new))[:2] == (401, "bad_signature")

    run(OPEN, test)
