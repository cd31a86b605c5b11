"""What is a function called for, beside when its time comes? Events that are posted, or what comes of a source."""

from __future__ import annotations

import math
import re
from typing import Literal

import msgspec

from swell.model import source
from swell.model.errors import SwellError, brief
from swell.model.secret import SecretUse
from swell.model.source import Files, NatsStream, Objects, RedisStream, Rows, SourceConfig

HEADER = "x-hub-signature-256"
"""Where a signature is looked for: many senders of webhooks put it there."""
_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")
_NOT_PASSED_ON = frozenset(
    [
        "authorization",
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "origin",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)
"""Headers that the gateway reads itself; so it does those that begin with swell-."""


Events = Literal["", "open", "signed"]
"""What events a function takes over HTTP: none, those of whoever may call it, or those that are signed."""


class HttpEvents(msgspec.Struct, frozen=True, tag="http"):
    """CloudEvents that somebody posts to /trigger."""

    header: str = HEADER
    """In small letters. It has the signature of the body, where there is a secret."""
    id_header: str = ""
    """In small letters, of webhooks that are no CloudEvents: what tells one from all others. Empty: none are taken."""
    type_header: str = ""
    """And what kind of thing happened; empty: that is not said."""
    replay_s: float = 0.0
    """Signatures say when they were made, and hold for so long before and after; 0: they say nothing of time."""


class OwnSource(msgspec.Struct, frozen=True, tag="class"):
    """Events that a class of the same app finds, and posts to /trigger."""

    name: str
    """Of the class."""


DELIVER = "deliver"
"""The method of such a class that is called, with the function's name, and goes on as long as it may."""


class Subscription(msgspec.Struct, frozen=True):
    """What calls a function, with an event each time."""

    source: HttpEvents | OwnSource | Files | NatsStream | Objects | RedisStream | Rows
    secret: SecretUse | None = None
    """What a source's password is, or what events are signed with: the variable of it that is required, or its only
    one."""

    @property
    def events(self) -> Events:
        if self.read is not None:
            return ""
        return "signed" if self.secret is not None else "open"

    @property
    def read(self) -> SourceConfig | None:
        """What control reads; None of what is posted to it."""
        return None if isinstance(self.source, HttpEvents | OwnSource) else self.source

    @property
    def kind(self) -> str:
        """ "http", "class", "files", "nats", "objects", "redis", "rows"."""
        return str(self.source.__struct_config__.tag)


def check(subscription: Subscription) -> None:
    """SwellError bad_option, in words, for what makes no sense."""
    secret = subscription.secret
    if secret is not None and len(secret.required) > 1:
        words = f"Of the secret {secret.name} one variable is used: required_keys names {len(secret.required)}."
        raise SwellError("bad_option", words)
    match subscription.source:
        case HttpEvents() as posted:
            _check_headers(posted)
            if not 0 <= posted.replay_s < math.inf:
                raise SwellError("bad_option", f"replay_s is a number of seconds, not {posted.replay_s}.")
            if posted.replay_s and secret is None:
                raise SwellError("bad_option", "replay_s is of events that are signed: give a secret as well.")
        case OwnSource():
            if secret is not None:
                raise SwellError("bad_option", "A class that finds events has secrets of its own: give it secrets=.")
        case Files() | Rows() if secret is not None and _is_here(subscription.source):
            raise SwellError("bad_option", "What is read from this machine's own files needs no password.")
        case Objects(access_key_id=id) if bool(id) != (secret is not None):
            words = "access_key_id and secret, which has its secret access key, are given together, or neither."
            raise SwellError("bad_option", words)
        case read:
            source.check(read)


def _check_headers(posted: HttpEvents) -> None:
    for name in ("header", "id_header", "type_header"):
        value = getattr(posted, name)
        if (value or name == "header") and not _HEADER.fullmatch(value):
            raise SwellError("bad_option", f"{name} cannot be {brief(ascii(value))}: it is the name of a header.")
        if value in _NOT_PASSED_ON or value.startswith("swell-"):
            words = f"{name} cannot be {value}, which the gateway reads itself, and passes on to nobody."
            raise SwellError("bad_option", words)
    if posted.type_header and not posted.id_header:
        raise SwellError("bad_option", "type_header is of webhooks that are no CloudEvents: give id_header as well.")


def _is_here(read: Files | Rows) -> bool:
    return isinstance(read, Files) or read.url.startswith("sqlite")


def same(one: Subscription, other: Subscription) -> bool:
    """Is the same read, however? Then who subscribes to the second goes on where the first was."""
    return _read(one) == _read(other)


def _read(subscription: Subscription) -> tuple[object, ...]:
    match subscription.source:
        case HttpEvents():
            return ("http",)
        case OwnSource(name=name):
            return ("class", name)
        case Files(folder=folder, patterns=patterns):
            return ("files", folder, patterns)
        case NatsStream(url=url, stream=stream, consumer=consumer, subject=subject):
            return ("nats", url, stream, consumer, subject)
        case Objects(url=url, suffix=suffix, endpoint_url=endpoint_url):
            return ("objects", url, suffix, endpoint_url)
        case RedisStream(url=url, stream=stream, group=group):
            return ("redis", url, stream, group)
        case Rows(url=url, query=query, watermark=watermark, key=key):
            return ("rows", url, query, watermark, key)


def written(subscription: Subscription) -> str:
    """As people read it: "files /data/inbox **/*.csv", "nats nats://broker:4222 ORDERS"."""
    match subscription.source:
        case HttpEvents():
            signed = ", signed" if subscription.secret is not None else ""
            return f"events over HTTP{signed}"
        case OwnSource(name=name):
            return f"class {name}"
        case Files(folder=folder, patterns=patterns):
            return f"files {folder} {' '.join(patterns)}"
        case NatsStream(url=url, stream=stream, subject=subject):
            return f"nats {url} {stream} {subject}".rstrip()
        case Objects(url=url, suffix=suffix, endpoint_url=endpoint_url):
            return " ".join(["objects", url, *([f"*{suffix}"] if suffix else []), endpoint_url]).rstrip()
        case RedisStream(url=url, stream=stream):
            return f"redis {url} {stream}"
        case Rows(url=url, query=query):
            return f"rows {url} {brief(' '.join(query.split()))[:60]}"
