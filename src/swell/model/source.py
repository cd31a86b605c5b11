"""Where do messages come from, and what is one?

A source is a stream of a broker, rows of a database, objects of a store or files in a folder; what comes of it is to
become calls. How one is reached is `source_ports.Source`. A password is no part of a source: everybody sees these who
sees the app.
"""

from __future__ import annotations

import math
import re
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from swell.model.errors import SwellError, brief

Since = Literal["all", "new"]
"""Of what is there already when a source is first reached: all of it, or nothing."""

ID_MAX = 200
"""Characters of a message's id: it is to be part of an idempotency key."""
SETTLE_MIN_S = 0.05
"""A file system counts time in ticks, of 10 ms at most: of files of one tick all are to be seen."""
LATE_MAX_S = 7 * 86_400.0
"""What comes of an object again is no second call as long as the first is kept: so long."""
WAITING_MAX = 10_000
"""Messages that wait at a source are counted up to so many, where counting them costs."""
UNACKNOWLEDGED_MAX = 1000
"""Messages of a source that may wait to be acknowledged, unless it is told otherwise."""


class Message(msgspec.Struct, frozen=True):
    """Something that came. At least once: with the same id again, until it was acknowledged."""

    id: str
    """Of all that ever comes of its source nothing else has it. At most `ID_MAX` characters."""
    body: bytes
    content_type: str
    at: float
    """When it came about, as its source says; in seconds since the epoch."""
    subject: str = ""
    """What it is about, in the source's own terms: a NATS subject, a stream, a path, a row's key."""
    watermark: str = ""
    """To go on behind it, give this to its source; empty for a source that remembers by itself how far it was read."""
    receipt: str = ""
    """What the source knows this hand-out by, where that is not its id."""


class SourceState(msgspec.Struct, frozen=True):
    """Is it reached?"""

    up: bool
    since: float
    """When it was reached, or lost; of one that never was, when that was first tried. In seconds since the epoch."""
    why: str = ""
    """What went wrong the last time; empty where nothing did so far, or it is up."""
    failures: int = 0
    """Attempts to reach it, one after the other, that failed."""


class Lag(msgspec.Struct, frozen=True):
    """What came and is not in the queue yet."""

    waiting: int | None = None
    """Messages that the source handed out to nobody, and those that are held here; None: it cannot tell, or is away."""
    oldest_at: float | None = None
    """When the oldest of those that are held here came about; None: none is."""


class Files(msgspec.Struct, frozen=True, tag="files"):
    """Files in a folder, each once it is whole, and again whenever it has changed. Its body says where it is."""

    folder: str
    patterns: tuple[str, ...] = ("**/*",)
    """Of paths in the folder: `*` and `?` as in a shell, `**` for any folders, hidden ones not."""
    settle_s: float = 1.0
    """A file is whole when its size and its time were the same for so long."""
    rescan_s: float = 60.0
    """The folder is looked through at least so often: a change may go unnoticed where the file system tells of none."""


class NatsStream(msgspec.Struct, frozen=True, tag="nats"):
    """Messages of a JetStream stream, by a durable consumer, which is made where it is not there."""

    url: str
    stream: str
    consumer: str
    """Its name. Who shares it shares the messages."""
    subject: str = ""
    """Only messages of that subject, which may have wildcards; empty for all of the stream."""
    since: Since = "all"
    ack_wait_s: float = 30.0
    """A message that nobody acknowledged or held for so long is handed out again."""
    content_type: str = "application/octet-stream"
    """Of messages that do not say what they are."""


class RedisStream(msgspec.Struct, frozen=True, tag="redis"):
    """Entries of a Redis stream (6.2 or newer), by a consumer group, which is made where it is not there."""

    url: str
    stream: str
    group: str
    consumer: str = "swell"
    """Of the group, this server alone has it."""
    field: str = ""
    """Of an entry that is the body; empty: the body is all its fields, as JSON."""
    since: Since = "all"
    claim_s: float = 60.0
    """What another consumer has had for so long without a word is taken over, and so is what was sent to a connection
    that had just broken."""
    content_type: str = "application/octet-stream"
    """Of the field that is the body."""


class Rows(msgspec.Struct, frozen=True, tag="rows"):
    """Rows of a query to SQLite or PostgreSQL, each once, as JSON. New rows have a watermark above those before."""

    url: str
    """sqlite:///path/of/file.db or postgresql://user@host/database"""
    query: str
    """A SELECT; what is asked for is wrapped around it."""
    watermark: str
    """The column that grows with each row: an id of a sequence, best, or the time of its change."""
    key: str = ""
    """The column that tells rows of one watermark apart; empty: no two have the same."""
    every_s: float = 5.0
    """How often it is asked."""
    channel: str = ""
    """Of PostgreSQL's NOTIFY: it is asked at once when anything comes there, and `every_s` may be long."""
    settle_s: float = 1.0
    """Rows are delivered only so long after they were first seen. Where the watermark is a time, one may become visible
    after another of a later time: by so much at most, and by as much as the column's times are rounded to at least.
    Whole seconds need the default. A sequence needs none."""


class Objects(msgspec.Struct, frozen=True, tag="objects"):
    """Objects of a store that speaks S3, each once, and again whenever it was written. Its body says where it is."""

    url: str
    """s3://bucket, or s3://bucket/ and what keys begin with."""
    suffix: str = ""
    """Only of keys that end so."""
    since: Since = "all"
    """New is what the store says was written since it was subscribed to."""
    every_s: float = 30.0
    """It is looked through so long after it was looked through."""
    late_s: float = 86_400.0
    """One may show up so long after its own time: that of an upload in parts is when it began."""
    endpoint_url: str = ""
    """http://host:port of the store; empty: AWS, or what the environment says."""
    region: str = ""
    """Empty: as the environment says."""
    access_key_id: str = ""
    """Of who asks. Empty: credentials are the environment's, or the machine's own."""


SourceConfig = Files | NatsStream | Objects | RedisStream | Rows

SCHEMES: dict[type, tuple[str, ...]] = {
    NatsStream: ("nats", "tls"),
    RedisStream: ("redis", "rediss", "unix"),
    Rows: ("sqlite", "postgresql", "postgres"),
}
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,62}")
_TOKEN = re.compile(r"[^\s.*>/\\]+")
"""What NATS takes for the name of a stream or consumer."""


def check(config: SourceConfig) -> None:
    """SwellError bad_option, in words, for what makes no sense."""
    for name, value in msgspec.structs.asdict(config).items():
        if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
            raise _refused(f"{name} is a number of seconds, not {value}.")
        if isinstance(value, str) and not value.isprintable() and name != "query":
            raise _refused(f"{name} has a character in it that cannot be shown: {brief(ascii(value))}.")
    match config:
        case Files():
            _check_files(config)
            return
        case Objects():
            _check_objects(config)
            return
        case NatsStream():
            _needs(config, "stream", "consumer")
            for name in ("stream", "consumer"):
                if not _TOKEN.fullmatch(getattr(config, name)):
                    words = "NATS allows no space, dot, star, slash or > in it."
                    raise _refused(f"{name} cannot be {getattr(config, name)!r}: {words}")
            _at_least(config, "ack_wait_s", 1.0)
        case RedisStream():
            _needs(config, "stream", "group", "consumer")
            _at_least(config, "claim_s", 1.0)
        case Rows():
            _needs(config, "query", "watermark")
            _at_least(config, "every_s", 0.05)
    _check_url(config)
    if isinstance(config, Rows) and config.channel and config.url.startswith("sqlite"):
        raise _refused("Only PostgreSQL has a channel to listen to; SQLite is asked every_s.")


def _check_files(config: Files) -> None:
    if not config.folder.startswith("/"):
        raise _refused(f"folder is an absolute path, as /data/inbox, not {config.folder!r}.")
    if not config.patterns or not all(config.patterns):
        raise _refused("patterns says which files of the folder are meant: one at least, as **/*.csv.")
    for pattern in config.patterns:
        if pattern.startswith("/") or ".." in pattern.split("/"):
            raise _refused(f"The pattern {pattern!r} leads out of the folder; patterns are of paths in it.")
    _at_least(config, "settle_s", SETTLE_MIN_S)
    _at_least(config, "rescan_s", SETTLE_MIN_S)


def _check_objects(config: Objects) -> None:
    if not config.url.startswith("s3://"):
        raise _refused(f"The url begins with s3://, not {brief(config.url)!r}.")
    bucket, _ = bucket_of(config.url)
    if "@" in bucket:
        # Not shown: it may have a password in it.
        raise _refused("The url names a bucket, as s3://bucket/in/. Give access_key_id and secret beside it.")
    if not _BUCKET.fullmatch(bucket):
        raise _refused(f"The url names no bucket, as s3://bucket/in/ does: {brief(config.url)!r}.")
    _at_least(config, "every_s", 0.05)
    _at_least(config, "late_s", 1.0)
    if config.late_s > LATE_MAX_S:
        raise _refused(f"late_s is {LATE_MAX_S:g} at most, a week, not {config.late_s:g}.")
    if config.endpoint_url:
        try:
            parts = urlsplit(config.endpoint_url)
            _ = parts.port
        except ValueError as error:
            raise _refused(f"The endpoint_url cannot be read: {error}.") from None
        if "@" in config.endpoint_url or parts.query:
            raise _refused("The endpoint_url is http://host:port alone. Give access_key_id and secret beside it.")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise _refused(f"The endpoint_url is http://host:port, or https://, not {brief(config.endpoint_url)!r}.")


def bucket_of(url: str) -> tuple[str, str]:
    """Of s3://bucket/prefix: the bucket, and what keys begin with."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return bucket, prefix


def _check_url(config: NatsStream | RedisStream | Rows) -> None:
    allowed = SCHEMES[type(config)]
    try:
        parts = urlsplit(config.url)
        password = parts.password
    except ValueError as error:
        raise _refused(f"The url cannot be read: {error}.") from None
    if password is not None or "password=" in parts.query:
        # Not shown: it has the password in it.
        raise _refused("The url has a password in it, which everybody who sees the app would see. Put it in a secret.")
    if parts.scheme not in allowed:
        raise _refused(
            f"The url begins with {' or '.join(f'{each}://' for each in allowed)}, not {brief(config.url)!r}."
        )
    if parts.scheme in ("sqlite", "unix"):
        if parts.netloc or not parts.path.strip("/"):
            raise _refused(f"The url is of a file, as {parts.scheme}:///path/of/it, not {brief(config.url)!r}.")
    elif not parts.netloc and "host=" not in parts.query:
        raise _refused(f"The url names no host: {brief(config.url)!r}.")


def _needs(config: SourceConfig, *names: str) -> None:
    for name in names:
        if not getattr(config, name).strip():
            raise _refused(f"{name} is missing.")


def _at_least(config: SourceConfig, name: str, least: float) -> None:
    if getattr(config, name) < least:
        raise _refused(f"{name} is at least {least:g}, not {getattr(config, name):g}.")


def _refused(words: str) -> SwellError:
    return SwellError("bad_option", words)


_FOLDERS = r"(?:(?!\.)[^/]+/)*"
"""Any that are not hidden."""


def path_pattern(pattern: str) -> re.Pattern[str]:
    """Of paths with slashes, as a shell understands it: a leading dot is matched by a dot alone."""
    *folders, last = pattern.split("/")
    made = "".join(_FOLDERS if part == "**" else f"{_name(part)}/" for part in folders)
    # The last part is a file's name: no slash follows it. `**` there is any file below.
    return re.compile(made + (rf"{_FOLDERS}(?!\.)[^/]+" if last == "**" else _name(last)))


def folder_pattern(pattern: str) -> re.Pattern[str]:
    """Of folders, with a slash behind each name, that what such a pattern matches may be in, or below."""
    *folders, last = pattern.split("/")
    made = _FOLDERS if last == "**" else ""
    for part in reversed(folders):
        made = _FOLDERS + made if part == "**" else f"(?:{_name(part)}/{made})?"
    return re.compile(made)


def _name(part: str) -> str:
    begin = r"(?!\.)" if part[:1] in ("*", "?") else ""
    return begin + "".join({"*": "[^/]*", "?": "[^/]"}.get(sign) or re.escape(sign) for sign in part)
