"""What are a dict and a queue? Named collections of values that programs share; here nobody knows what is in a value.

A dict has entries by key, a queue has items in partitions, each partition in the order in which they were put. Keys and
values are bytes: two keys are the same where their bytes are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec

from swell.model.errors import SwellError
from swell.model.owner import Owner

Kind = Literal["dict", "queue"]

PREFIXES: dict[Kind, str] = {"dict": "di-", "queue": "qu-"}
"""What the id of each kind begins with."""
_ID = re.compile(r"(di|qu)-[0-9a-f]{16}\Z")
REQUEST_MAX = 64
"""Characters of a request's id."""
PAGE_MAX = 1000
"""Entries or items of one page."""
DICT_KEPT_S = 7 * 86_400.0
"""An entry of a dict that is neither put nor got for so long expires."""
DICT_TOUCH_S = 3600.0
"""Not each reading of an entry is written down: it may be kept this much longer."""
PARTITION_TTL_S = 86_400.0
"""A partition of a queue into which nothing is put for so long expires, where no put says otherwise."""
ANSWER_KEPT_S = 600.0
"""Who asks for a change again within this time, by the same request's id, gets the answer that was made the first
time."""


class Bounds(msgspec.Struct, frozen=True):
    """How much a dict or queue may hold."""

    key_bytes_max: int = 64 * 1024
    value_bytes_max: int = 10 * 1024 * 1024
    """Of an entry of a dict."""
    item_bytes_max: int = 1024 * 1024
    """Of an item of a queue."""
    request_bytes_max: int = 16 * 1024 * 1024
    """Of all keys and values that one request brings, or that one answer has beyond the first."""
    entries_max: int = 1_000_000
    """Of a dict."""
    items_max: int = 5000
    """Of one partition of a queue."""
    partitions_max: int = 100_000
    """Of a queue."""
    partition_name_bytes_max: int = 64
    collections_max: int = 10_000
    """Dicts and queues of a server together."""


BOUNDS = Bounds()


class Collection(msgspec.Struct, frozen=True):
    """A dict or a queue, without what is in it."""

    kind: Kind
    namespace: str
    name: str
    id: str
    """Of this one alone: one that is made in its place has another."""
    made_at: float
    owner: Owner | None = None
    """It ends with this program; None: with nobody."""

    @property
    def key(self) -> tuple[Kind, str, str]:
        return self.kind, self.namespace, self.name


class Row(NamedTuple):
    """One entry of a dict, or one item of a queue."""

    number: int
    """Its place in the order; an entry that is put again keeps its own."""
    key: bytes
    """Empty of an item, which has none."""
    value: bytes
    """Empty where only keys were asked for."""


class Page(NamedTuple):
    """Rows in their order."""

    rows: tuple[Row, ...]
    after: int
    """Go on after this number; 0: there are no more."""


def is_id(text: str) -> bool:
    """Is it written like an id? No name is."""
    return _ID.match(text) is not None


def fitting(sizes: Iterable[int], bytes_max: int) -> int:
    """How many of these, from the first on, stay within so many bytes; one always does."""
    total = count = 0
    for size in sizes:
        total += size
        if count and total > bytes_max:
            break
        count += 1
    return count


# -- refusals --------------------------------------------------------------------------------------


def check_entries(entries: Sequence[tuple[bytes, bytes]], bounds: Bounds) -> None:
    """Refuse what is too large for a dict."""
    for key, value in entries:
        if len(key) > bounds.key_bytes_max:
            raise _too_large("A key of a dict", len(key), bounds.key_bytes_max)
        if len(value) > bounds.value_bytes_max:
            raise _too_large("A value of a dict", len(value), bounds.value_bytes_max)
    _check_together(sum(len(key) + len(value) for key, value in entries), bounds)


def check_items(values: Sequence[bytes], partition: str, bounds: Bounds) -> None:
    """Refuse what is too large for a queue, and what no partition could ever hold."""
    check_partition(partition, bounds)
    for value in values:
        if len(value) > bounds.item_bytes_max:
            raise _too_large("An item of a queue", len(value), bounds.item_bytes_max)
    if len(values) > bounds.items_max:
        words = (
            f"A partition of a queue holds {bounds.items_max} items at most, and these are {len(values)}: put fewer."
        )
        raise SwellError("value_too_large", words, status=413)
    _check_together(sum(map(len, values)), bounds)


def check_partition(partition: str, bounds: Bounds) -> None:
    """Refuse what can be no name of a partition. The one without a name is the default."""
    size = len(partition.encode())
    if size > bounds.partition_name_bytes_max:
        words = f"A partition's name has {bounds.partition_name_bytes_max} bytes at most; this one has {size}."
        raise SwellError("bad_name", words, status=422)
    if "\0" in partition:
        raise SwellError("bad_name", "A partition's name has no NUL character; this one has.", status=422)


def _check_together(size: int, bounds: Bounds) -> None:
    if size > bounds.request_bytes_max:
        words = (
            f"One request brings {bounds.request_bytes_max} bytes of keys and values at most, and these are {size}: "
            "put fewer at a time."
        )
        raise SwellError("value_too_large", words, status=413)


def _too_large(what: str, size: int, most: int) -> SwellError:
    words = f"{what} has {most} bytes at most; this one has {size}. Keep large data in a volume, and its path here."
    return SwellError("value_too_large", words, status=413)


def dict_full(bounds: Bounds) -> SwellError:
    """Of a put with which there would be too many entries."""
    words = f"A dict holds {bounds.entries_max} entries at most: take some out, or use another one."
    return SwellError("dict_full", words, status=409)


def queue_full(bounds: Bounds) -> SwellError:
    """Of a put with which there would be too many items in its partition."""
    words = f"A partition of a queue holds {bounds.items_max} items at most: get some first, or use another partition."
    return SwellError("queue_full", words, status=409)


def too_many_partitions(bounds: Bounds) -> SwellError:
    """Of a put into one more."""
    words = f"A queue has {bounds.partitions_max} partitions at most: clear some, or use another queue."
    return SwellError("too_many_partitions", words, status=409)


def unknown(kind: Kind, name: str, where: str = "", more: str = "") -> SwellError:
    """Of one that is not there, or not any more."""
    words = f"There is no {kind} {name!r}{where}.{more}"
    if kind == "dict":
        return SwellError("unknown_dict", words, status=404)
    return SwellError("unknown_queue", words, status=404)


def taken(kind: Kind, name: str) -> SwellError:
    """Of one more with that name."""
    words = f"There is a {kind} {name!r} already: use it, or delete it."
    if kind == "dict":
        return SwellError("dict_exists", words, status=409)
    return SwellError("queue_exists", words, status=409)
