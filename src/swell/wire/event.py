"""What is an event, as a function that has a trigger is given it? One of CloudEvents 1.0."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import msgspec


class Event(msgspec.Struct, frozen=True):
    """Something that happened elsewhere: the argument of a function that is called for it."""

    id: str
    """Of all events of its source, this one's alone."""
    source: str
    """Where it came about: a URI, or a path."""
    type: str
    """What kind of thing happened: "com.example.order.paid"."""
    subject: str = ""
    """What of the source it is about; empty where that was not said."""
    time: datetime | None = None
    """When it came about."""
    data: Any = None
    """What was JSON, as Python has it; a text; or else bytes."""
    content_type: str = ""
    """Of the data, as it was sent."""
    extensions: dict[str, Any] = {}
    """Further attributes, by their names."""


def digest(event: Event) -> str:
    """Of what tells an event from all others: its source and its id."""
    return hashlib.sha256(f"{event.source}\0{event.id}".encode("utf-8", "surrogatepass")).hexdigest()
