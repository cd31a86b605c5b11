"""Is an event read as it was written, in either mode, and is each thing that can be wrong with one named?"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.model.errors import SwellError
from swell.wire.cloudevents import BATCH, BATCH_MAX, STRUCTURED, as_input, count, is_batch, read, read_batch, written
from swell.wire.event import Event

names = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
whole = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.paid"}
events = st.builds(
    Event,
    id=names,
    source=names,
    type=names,
    subject=st.just("") | names,
    time=st.none() | st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),
    extensions=st.dictionaries(st.sampled_from(["traceparent", "n1", "dataschema"]), names, max_size=2),
)


def attributes(event: Event) -> dict[str, Any]:
    told = {"specversion": "1.0", "id": event.id, "source": event.source, "type": event.type, **event.extensions}
    told |= {"subject": event.subject} if event.subject else {}
    return told | ({"time": event.time.isoformat()} if event.time is not None else {})


def wrong(content_type: str, body: bytes, **headers: str) -> str:
    with pytest.raises(SwellError) as raised:
        read({"content-type": content_type, **headers}, body)
    assert (raised.value.code, raised.value.status) == ("bad_event", 400)
    return raised.value.message


@given(events, json_values.filter(lambda value: value is not None), st.sampled_from(["application/json", "a/b+json"]))
def test_an_event_with_json_is_read_in_either_mode(event: Event, data: Any, kind: str) -> None:
    expected = msgspec.structs.replace(event, data=data, content_type=kind)
    headers = {f"ce-{name}": quote(value) for name, value in attributes(event).items()}
    assert read({**headers, "content-type": kind}, json.dumps(data).encode()) == expected
    body = {**attributes(event), "datacontenttype": kind, "data": data}
    assert read({"content-type": f"{STRUCTURED}; charset=utf-8"}, json.dumps(body).encode()) == expected


@given(st.lists(events, max_size=4), json_values.filter(lambda value: value is not None))
def test_a_batch_is_its_events(several: list[Event], data: Any) -> None:
    told = [attributes(each) | {"data": data} for each in several]
    body = json.dumps(told).encode()
    assert is_batch(f"{BATCH}; charset=utf-8")
    assert count(body) == len(several)
    assert read_batch(body) == [read({"content-type": STRUCTURED}, json.dumps(each).encode()) for each in told]


@given(events, json_values.filter(lambda value: value is not None) | st.binary(max_size=9))
def test_what_is_written_is_read_as_it_was(event: Event, data: Any) -> None:
    kind = "image/png" if isinstance(data, bytes) else "application/json"
    event = msgspec.structs.replace(event, data=data, content_type=kind)
    assert read({"content-type": STRUCTURED}, written(event)) == event
    unsaid = msgspec.structs.replace(event, content_type="")
    assert read({"content-type": STRUCTURED}, written(unsaid)).data == data


def test_what_cannot_be_written_is_told() -> None:
    with pytest.raises(SwellError, match="The event '7' cannot be written as JSON"):
        written(Event("7", "/shop", "t", data=object()))
    # Of the local zone, where none is said.
    naive = datetime(2027, 1, 31, 9)
    assert read({"content-type": STRUCTURED}, written(Event("7", "/shop", "t", time=naive))).time == naive.astimezone()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{}", "is no JSON array"),
        (b"[", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[[]]", "the event number 0 (from 0 on): An event is a JSON object"),
        (json.dumps([whole, {**whole, "type": 1}]).encode(), "the event number 1 (from 0 on): type is a text"),
        (b"[" + b"{}," * BATCH_MAX + b"{}]", f"A batch has {BATCH_MAX} events at most, not {BATCH_MAX + 1}"),
    ],
)
def test_a_batch_that_is_none_is_told_why(body: bytes, words: str) -> None:
    with pytest.raises(SwellError) as raised:
        read_batch(body)
    assert (raised.value.code, raised.value.status) == ("bad_event", 400)
    assert words in raised.value.message
    assert count(body) >= 1


@given(events, st.binary(max_size=50))
def test_an_event_with_bytes_is_read_in_either_mode(event: Event, data: bytes) -> None:
    kind = "image/png"
    expected = msgspec.structs.replace(event, data=data or None, content_type=kind)
    headers = {f"ce-{name}": quote(value) for name, value in attributes(event).items()}
    assert read({**headers, "content-type": kind}, data) == expected
    body = attributes(event) | {"datacontenttype": kind, "data_base64": base64.b64encode(data).decode()}
    assert read({"content-type": STRUCTURED}, json.dumps(body).encode()).data == data


@given(events, json_values | st.binary(max_size=9))
def test_the_argument_of_its_call_is_the_event(event: Event, data: Any) -> None:
    event = msgspec.structs.replace(event, data=data)
    made = as_input(event)
    (given,) = msgspec.msgpack.decode(made.data)
    assert msgspec.convert(given, Event) == event


def is_one_or_named(headers: dict[str, str], body: bytes) -> bool:
    try:
        as_input(read(headers, body))
    except SwellError as error:
        return error.code == "bad_event"
    return True


@given(st.dictionaries(names.map(str.lower), st.text(max_size=20)), st.binary(max_size=60))
def test_whatever_is_sent_it_is_an_event_or_named(headers: dict[str, str], body: bytes) -> None:
    for kind in ("", STRUCTURED, "application/json"):
        assert is_one_or_named({**headers, "content-type": kind}, body)


def structured(**changes: Any) -> bytes:
    return json.dumps({name: value for name, value in {**whole, **changes}.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": ...}, "id is missing"),
        ({"id": None}, "id is missing"),
        ({"source": ""}, "source is a text of 1 to 1000"),
        ({"type": 7}, "type is a text of 1 to 1000 characters that can be shown, not 7"),
        ({"type": "x" * 1001}, "type is a text of 1 to 1000"),
        ({"id": "a\nb"}, "id is a text"),
        ({"specversion": ...}, "specversion is missing"),
        ({"specversion": "0.3"}, "specversion is 1.0, not '0.3'"),
        ({"subject": ""}, "subject is a text that is not empty"),
        ({"time": "yesterday"}, "time is written as"),
        ({"time": "2027-02-30T09:00:00Z"}, "time is written as"),
        ({"time": 7}, "time is written as"),
        ({"datacontenttype": 7}, "datacontenttype is a media type"),
        ({"data_base64": "?"}, "data_base64 is not base64"),
        ({"data_base64": 7}, "data_base64 is a text"),
        ({"data": 1, "data_base64": "QQ=="}, "data and data_base64 are both there"),
        ({"Upper": "x"}, "'Upper' is no attribute's name"),
        ({"extra": [1]}, "extra is a text, a whole number or a boolean"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], words: str) -> None:
    assert wrong(STRUCTURED, structured(**changes)).startswith(words)


def test_what_is_no_event_is_told() -> None:
    assert wrong(STRUCTURED, b"[]").startswith("An event is a JSON object")
    for body in (b"", b"\xff", b"{"):
        assert wrong(STRUCTURED, body).startswith("The body says that it is application/cloudevents+json")
    assert wrong("application/cloudevents-batch+avro", b"[]").startswith("Events come as")
    assert wrong("application/cloudevents+avro", b"").startswith("Events come as")
    assert wrong("application/json", b"{}").startswith("This is no CloudEvent: it has no ce-id header")
    headers = {f"ce-{name}": value for name, value in whole.items()}
    assert wrong("application/json", b"{", **headers).startswith("The data says that it is application/json")
    for data in (b"9" * 30, b"[" * 5000 + b"]" * 5000):
        with pytest.raises(SwellError, match="data"):
            as_input(read({**headers, "content-type": "application/json"}, data))


def test_a_text_is_one_and_what_has_no_data_has_none() -> None:
    headers = {f"ce-{name}": value for name, value in whole.items()}
    assert read({**headers, "content-type": "text/plain"}, "ä".encode()).data == "ä"
    assert read({**headers, "content-type": "text/plain"}, b"\xff").data == b"\xff"
    assert read(headers, b"").data is None
    assert read({"content-type": STRUCTURED}, structured()).content_type == ""
    assert read({"content-type": STRUCTURED}, structured(data={"a": 1})).content_type == "application/json"


@given(names)
def test_a_header_may_stand_in_quotes(name: str) -> None:
    headers = {f"ce-{each}": value for each, value in whole.items()}
    for told in (quote(name), f'"{quote(name)}"', '"' + "".join(f"\\{sign}" for sign in quote(name)) + '"'):
        assert read({**headers, "ce-subject": told}, b"").subject == name
    assert read({**headers, "ce-subject": '"a" and "b"'}, b"").subject == '"a" and "b"'


@given(json_values)
def test_json_that_comes_as_base64_is_json(data: Any) -> None:
    encoded = base64.b64encode(json.dumps(data).encode()).decode()
    body = structured(data_base64=encoded, datacontenttype="application/json")
    assert read({"content-type": STRUCTURED}, body).data == data
