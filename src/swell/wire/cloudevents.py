"""How is an event written, as CloudEvents 1.0 have it over HTTP, and as the input of a call?

In binary mode its attributes are headers (`ce-id: …`) and the body is its data; in structured mode
(application/cloudevents+json) all of it is one JSON object, and a batch is a JSON array of those.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import msgspec

from swell.model.call import Body
from swell.model.errors import SwellError, brief
from swell.wire.event import Event
from swell.wire.http import MSGPACK

PREFIX = "ce-"
"""Of the headers that are attributes."""
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
BATCH_MAX = 1000
"""Events of one batch."""
NAME_MAX = 1000
"""Characters of an id, a source and a type."""

_ATTRIBUTE = re.compile(r"[a-z0-9]{1,64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_OWN = frozenset({"specversion", "id", "source", "type", "subject", "time", "datacontenttype"})
"""Attributes that an `Event` has fields for, or needs none."""


def read(headers: Mapping[str, str], body: bytes) -> Event:
    """The event of a request; `headers` by their names in small letters. SwellError bad_event names what is wrong."""
    kind = headers.get("content-type", "").strip()
    media = media_type(kind)
    if media == STRUCTURED:
        return _structured(_json(body, STRUCTURED))
    if media.startswith("application/cloudevents"):
        raise _bad(f"Events come as {STRUCTURED}, {BATCH} or with ce- headers, not as {brief(ascii(media))}.")
    attributes = {name.removeprefix(PREFIX): _text(value) for name, value in headers.items() if name.startswith(PREFIX)}
    if not attributes:
        raise _bad(f"This is no CloudEvent: it has no ce-id header, and its Content-Type is not {STRUCTURED}.")
    return _event(attributes, kind, data_of(kind, body) if body else None)


def is_batch(content_type: str) -> bool:
    """Does a request of that type bring several events?"""
    return media_type(content_type) == BATCH


def count(body: bytes) -> int:
    """How many there are in the body of a batch; 1 of what is none."""
    try:
        return len(msgspec.json.decode(body, type=list[msgspec.Raw]))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 1


def read_batch(body: bytes) -> list[Event]:
    """The events of a batch, in its order. SwellError bad_event names what is wrong with the first that is none."""
    given = _json(body, BATCH)
    if not isinstance(given, list):
        raise _bad(f"The body says that it is {BATCH}, and is no JSON array.")
    if len(given) > BATCH_MAX:
        raise _bad(f"A batch has {BATCH_MAX} events at most, not {len(given)}.")
    events = []
    for number, each in enumerate(given):
        try:
            events.append(_structured(each))
        except SwellError as error:
            raise _bad(f"In the batch, the event number {number} (from 0 on): {error.message}") from None
    return events


def is_event(headers: Mapping[str, str]) -> bool:
    """Does a request say that it is an event?"""
    media = media_type(headers.get("content-type", ""))
    return media.startswith("application/cloudevents") or any(name.startswith(PREFIX) for name in headers)


def webhook(headers: Mapping[str, str], body: bytes, id_header: str, type_header: str, source: str) -> Event:
    """The event that a request is that is none: its id and type are those headers'. SwellError bad_event."""
    kind = headers.get("content-type", "").strip()
    told = {"id": headers.get(id_header), "type": headers.get(type_header) or "webhook"}
    if not told["id"]:
        raise _bad(
            f"This is no CloudEvent, and the header {id_header}, which tells one webhook from another, is missing."
        )
    id, type = (_needed(told, name) for name in ("id", "type"))
    return Event(id=id, source=source, type=type, data=data_of(kind, body) if body else None, content_type=kind)


def data_of(content_type: str, body: bytes) -> Any:
    """The data of an event: what is JSON as Python has it, a text as such, else the bytes. SwellError bad_event."""
    media = media_type(content_type)
    if is_json(media):
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _bad(f"The data says that it is {media}, and is not: {brief(str(error))}.") from None
    if media.startswith("text/"):
        try:
            return body.decode()
        except UnicodeDecodeError:
            return body
    return body


def media_type(content_type: str) -> str:
    """Without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def is_json(media: str) -> bool:
    """Is data of that type JSON?"""
    return media in ("application/json", "text/json") or media.endswith("+json")


def written(event: Event) -> bytes:
    """The event in structured mode. SwellError bad_event where its data cannot be written as JSON."""
    told: dict[str, Any] = {**event.extensions, "specversion": "1.0"}
    told |= {"id": event.id, "source": event.source, "type": event.type}
    if event.subject:
        told["subject"] = event.subject
    if event.time is not None:
        # One without a zone is of the local one.
        told["time"] = event.time.astimezone(UTC)
    if event.content_type:
        told["datacontenttype"] = event.content_type
    if isinstance(event.data, bytes | bytearray | memoryview):
        told["data_base64"] = event.data
    elif event.data is not None:
        told["data"] = event.data
    try:
        return msgspec.json.encode(told)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        words = f"The event {_shown(event.id)} cannot be written as JSON: {brief(str(error))}."
        raise _bad(f"{words} Its data is what JSON has, or bytes.") from None


def as_input(event: Event) -> Body:
    """The one argument of a call. SwellError bad_event where its data cannot be passed on."""
    try:
        return Body(MSGPACK, msgspec.msgpack.encode([event]))
    except (OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise _bad(f"The data has a number too large, is too deep, or no text: {brief(str(error))}.") from None


def _json(body: bytes, media: str) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(f"The body says that it is {media}, and is not JSON: {brief(str(error))}.") from None


def _structured(given: object) -> Event:
    if not isinstance(given, dict):
        raise _bad("An event is a JSON object, and this is none.")
    there = {name: value for name, value in given.items() if value is not None or name == "data"}
    data, encoded = there.pop("data", None), there.pop("data_base64", None)
    if encoded is not None:
        if data is not None:
            raise _bad("data and data_base64 are both there: an event has one of them.")
        data = _from_base64(encoded)
    kind = there.get("datacontenttype", "")
    if not isinstance(kind, str):
        raise _bad(f"datacontenttype is a media type, not {_shown(kind)}.")
    if encoded is not None:
        data = data_of(kind, data)
    # What is not said is JSON: the event itself is.
    return _event(there, kind or ("application/json" if data is not None and encoded is None else ""), data)


def _from_base64(encoded: object) -> bytes:
    if not isinstance(encoded, str):
        raise _bad(f"data_base64 is a text, not {_shown(encoded)}.")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise _bad("data_base64 is not base64.") from None


def _event(attributes: Mapping[str, Any], content_type: str, data: Any) -> Event:
    version = attributes.get("specversion")
    if version != "1.0":
        raise _bad(f"specversion is 1.0, not {_shown(version)}." if version is not None else "specversion is missing.")
    id, source, type = (_needed(attributes, name) for name in ("id", "source", "type"))
    subject = attributes.get("subject", "")
    if not isinstance(subject, str) or ("subject" in attributes and not subject):
        raise _bad(f"subject is a text that is not empty, not {_shown(subject)}.")
    return Event(
        id=id,
        source=source,
        type=type,
        subject=subject,
        time=_time(attributes["time"]) if "time" in attributes else None,
        data=data,
        content_type=content_type,
        extensions=dict(_extensions(attributes)),
    )


def _needed(attributes: Mapping[str, Any], name: str) -> str:
    value = attributes.get(name)
    if value is None:
        raise _bad(f"{name} is missing.")
    if not isinstance(value, str) or not 0 < len(value) <= NAME_MAX or not value.isprintable():
        raise _bad(f"{name} is a text of 1 to {NAME_MAX} characters that can be shown, not {_shown(value)}.")
    return value


def _time(value: object) -> datetime:
    if isinstance(value, str) and _TIME.fullmatch(value):
        try:
            return msgspec.convert(value.upper(), datetime)
        except msgspec.ValidationError:
            pass
    raise _bad(f"time is written as 2027-01-31T09:00:00Z, not {_shown(value)}.")


def _extensions(attributes: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in attributes.items():
        if name in _OWN:
            continue
        if not _ATTRIBUTE.fullmatch(name):
            raise _bad(f"{_shown(name)} is no attribute's name: that has small letters and digits, 64 at most.")
        if not isinstance(value, str | bool | int):
            raise _bad(f"{name} is a text, a whole number or a boolean, not {_shown(value)}.")
        yield name, value


def _text(value: str) -> str:
    """A header's value: it may stand in quotes, and characters that are none of ASCII's are percent-encoded."""
    quoted = _QUOTED.fullmatch(value.strip())
    return unquote(re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else value, errors="replace")


def _shown(value: object) -> str:
    return brief(ascii(value))[:80]


def _bad(words: str) -> SwellError:
    return SwellError("bad_event", words)
