"""What is said of dicts and queues on the control API? Keys and values as bytes, in JSON as base64."""

from __future__ import annotations

from typing import Annotated

import msgspec

from swell.model.kv import PARTITION_TTL_S, REQUEST_MAX, Kind
from swell.model.owner import Owner

WAIT_MAX_S = 60.0
"""How long one request may wait for an item, or for room."""
TTL_MAX_S = 366 * 86_400.0

RequestId = Annotated[str, msgspec.Meta(max_length=REQUEST_MAX, pattern="^[^\\x00]*$")]
"""Who lost the answer to a change and asks again with the same id gets the same answer. Empty: none is kept."""
Wait = Annotated[float, msgspec.Meta(ge=0, le=WAIT_MAX_S)]


class NewCollection(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """PUT /api/dicts/{namespace}/{name}, PUT /api/queues/{namespace}/{name}. Answered by a `CollectionRow`."""

    if_missing: bool = False
    """One that is there already is as good."""
    owner: Owner | None = None
    """A program: with its end it is deleted."""


class CollectionRow(msgspec.Struct, frozen=True):
    """GET /api/dicts, GET /api/queues → list of these."""

    kind: Kind
    namespace: str
    name: str
    id: str
    """Of this one alone. It can be used in place of the name."""
    made_at: float
    """In seconds since the epoch."""
    size: int
    """Entries or items; what has expired a short time ago may be among them."""
    ephemeral: bool
    """It ends with a program."""


class DictKey(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """POST /api/dicts/{namespace}/{name}/get, …/contains and …/pop. Answered by a `Found`."""

    key: bytes
    request: RequestId = ""


class Found(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether a key is there, and its value."""

    found: bool
    value: bytes = b""


class NewEntries(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """POST /api/dicts/{namespace}/{name}/entries: all of them or none. Answered by a `Count` of those that were put."""

    entries: tuple[tuple[bytes, bytes], ...]
    missing: bool = False
    """Those alone whose keys are not there."""
    request: RequestId = ""


class Count(msgspec.Struct, frozen=True):
    """How many."""

    count: int


class Entries(msgspec.Struct, frozen=True):
    """GET /api/dicts/{namespace}/{name}/entries: a page, in the order in which they were put first."""

    entries: tuple[tuple[bytes, bytes], ...]
    """Without the values where only keys were asked for."""
    after: int
    """Ask for what follows after this; 0: nothing does."""


class NewItems(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """POST /api/queues/{namespace}/{name}/items: all of them or none, at the end of a partition."""

    items: tuple[bytes, ...]
    partition: str = ""
    """Empty: the default one."""
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=TTL_MAX_S)] = PARTITION_TTL_S
    """The partition expires if nothing is put into it for so long."""
    wait_s: Wait = 0.0
    """For room, where there is none."""
    request: RequestId = ""


class Take(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """POST /api/queues/{namespace}/{name}/take: take items out, for good. Answered by `Items`, which may be none."""

    most: Annotated[int, msgspec.Meta(ge=1)] = 1
    partition: str = ""
    wait_s: Wait = 0.0
    """For the first item, where there is none."""
    request: RequestId = ""


class Items(msgspec.Struct, frozen=True):
    """Items of a queue, the first one first."""

    items: tuple[bytes, ...]
    after: int = 0
    """Of a page: ask for what follows after this; 0: nothing does yet."""


class PartitionRow(msgspec.Struct, frozen=True):
    """GET /api/queues/{namespace}/{name}/partitions → list of these: those that hold anything."""

    name: str
    items: int
