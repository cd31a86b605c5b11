"""The doors to the outside: what stores, engines and clocks must do.

Every adapter passes its port's conformance suite.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from swell.model import kv
from swell.model.call_ports import CallRecords, Calls
from swell.model.event_trigger import EventTriggerState
from swell.model.events import Event, NodeSeen, ReplicaSeen
from swell.model.key import ApiKey
from swell.model.metrics import Histogram
from swell.model.orders import BuildReport, Inventory, Order
from swell.model.request import KeyCount, PoolCount, RequestRecord, Usage
from swell.model.secret import SecretVersion
from swell.model.trigger import Delivery, Firing, TriggerState
from swell.model.volume import Tree, Volume
from swell.model.workload import App, Revision, Version

Fact = NodeSeen | ReplicaSeen | Inventory


class Clock(Protocol):
    """Time. `now` is seconds since the epoch and never goes back."""

    def now(self) -> float: ...


class Engine(Protocol):
    """A place that can run replicas. `apply` never waits and may be repeated at will.

    An order with an epoch below one seen before is refused (not obeyed, not acknowledged): its
    sender has been replaced.
    """

    @property
    def name(self) -> str:
        """As users know it: "local", …"""
        ...

    @property
    def capabilities(self) -> frozenset[str]:
        """Of the powers that not every engine has (`decide/powers`), those it has. A deploy that asks for another is
        refused."""
        ...

    def apply(self, order: Order, epoch: int) -> None: ...

    def inventory(self) -> Inventory | None:
        """The newest full inventory; None while the engine has not been heard."""
        ...

    def listen(self, heard: Callable[[Fact], None]) -> None:
        """Facts go to `heard`, in order, from the event loop's own thread."""
        ...

    async def build(self, revision: Revision, progress: Callable[[str], None]) -> BuildReport:
        """Make the revision's environment exist and import its module there once."""
        ...


class WorldLog(Protocol):
    """The events that made the world, in order."""

    def open_epoch(self) -> int:
        """A new, higher incarnation number; on disk before it returns."""
        ...

    def append(self, events: Sequence[Event], durable: bool = False) -> None:
        """Add events. `durable`: on disk before it returns; otherwise within a second."""
        ...

    def flush(self) -> None:
        """Returns when everything appended so far is on disk, or raises."""
        ...

    def apps(self) -> list[App]:
        """The apps deployed and not stopped: what a restart begins from."""
        ...

    def deployed_at(self) -> dict[str, float]:
        """When each of those was last deployed, by "namespace/name"."""
        ...

    def versions(self, app: str = "") -> list[Version]:
        """The versions kept of an app ("namespace/name"), or of all, oldest first. An app that is stopped has none."""
        ...

    def newest_versions(self) -> dict[str, int]:
        """The number of each app's newest version, by "namespace/name"."""
        ...

    def events(self, since: int = 0) -> Iterable[tuple[int, Event]]:
        """(sequence number, event) from `since` on."""
        ...


class UsageLog(Protocol):
    """Metered use and the request records that are kept."""

    def add_usage(self, rows: Sequence[Usage]) -> None: ...

    def add_counts(self, rows: Sequence[PoolCount]) -> None: ...

    def add_key_counts(self, rows: Sequence[KeyCount]) -> None: ...

    def add_requests(self, rows: Sequence[RequestRecord]) -> None:
        """Keep records: errors, cold and slow ones, and the last `N` per pool."""
        ...

    def request(self, id: str) -> RequestRecord | None: ...

    def requests(self, prefix: str, most: int) -> list[RequestRecord]:
        """The newest records kept of pools whose name begins so ("namespace/app/", say), newest first."""
        ...

    def usage(self, since: float, until: float, pool: str = "") -> list[Usage]:
        """One row per (pool, role), of one pool or of all: sums over the whole minutes that [since, until) touches,
        and whole hours of times before the last day."""
        ...

    def counts(self, since: float, until: float, pool: str = "") -> list[PoolCount]:
        """One row per pool, likewise."""
        ...

    def key_counts(self, since: float, until: float) -> list[KeyCount]:
        """One row per (key, pool), likewise."""
        ...


class Keys(Protocol):
    """The API keys that were ever made. Of their secrets it has digests alone."""

    def put(self, key: ApiKey) -> None:
        """Add it, or replace the one of its id. On disk before it returns."""
        ...

    def all(self) -> list[ApiKey]:
        """Oldest first."""
        ...


class Secrets(Protocol):
    """Versions of secrets, sealed."""

    def put(self, version: SecretVersion, kept: int) -> None:
        """Add a version, or replace the one of its number; on disk before it returns. The newest `kept` stay."""
        ...

    def versions(self) -> list[SecretVersion]:
        """All of them, by namespace and name, each secret's oldest first."""
        ...

    def remove(self, namespace: str, name: str, number: int = 0) -> None:
        """Forget a version, or (0) all of a secret; on disk before it returns."""
        ...


class Volumes(Protocol):
    """Volumes by name, each with its newest version; not what is in them."""

    def put(self, volume: Volume) -> None:
        """Add it, or replace the one of its id; on disk before it returns."""
        ...

    def all(self) -> list[Volume]:
        """By namespace and name."""
        ...

    def remove(self, id: str) -> None:
        """Forget it; on disk before it returns."""
        ...


class VolumeFiles(Protocol):
    """What is in volumes: contents by their digests, each namespace's apart, and trees by volume and version."""

    def contents(self, namespace: str) -> Blobs: ...

    def read(self, volume: Volume) -> Tree:
        """The tree of its newest version."""
        ...

    def write(self, volume: Volume, tree: Tree) -> None:
        """Keep the tree of what is about to be its newest version; on disk before it returns."""
        ...

    def sweep(self, volumes: Collection[Volume], before: float) -> int:
        """Remove trees that are no volume's newest version, and then contents that no tree names, all of them only if
        nobody needed them since `before`; returns how many contents."""
        ...


class Triggers(Protocol):
    """How far triggers have come. What a method has changed is on disk when it returns, or the `transaction` ends."""

    def put(self, states: Sequence[TriggerState | EventTriggerState]) -> None:
        """Add triggers, or replace those of their keys. What was dealt with stays so: `fired_to` goes back for nobody,
        a watermark is kept while `began_at` is the same, and when it last fired is known here."""
        ...

    def remove(self, keys: Sequence[str]) -> None:
        """Forget triggers and their firings."""
        ...

    def all(self) -> list[TriggerState]:
        """Those that have schedules, by key. One that cannot be read is among them, without its schedule."""
        ...

    def for_events(self) -> list[EventTriggerState]:
        """The others, by key; likewise without its subscription."""
        ...

    def deliver(self, deliveries: Iterable[Delivery]) -> None:
        """Record firings, in the transaction that adds their calls. Of one id the first is kept; where the trigger is
        gone, none. They are looked at when they are written: what is added in the transaction has its ids then."""
        ...

    def history(self, key: str, most: int) -> list[Firing]:
        """The newest firings of a trigger, newest first: of those that are kept (`FIRINGS_KEPT`, `FIRINGS_KEPT_S`)."""
        ...


class Kv(Protocol):
    """Dicts and queues by name. A change is on disk before it returns, and is no part of a `transaction`; so it is in
    `Dicts` and `Queues`."""

    def add(self, collection: kv.Collection) -> None: ...

    def all(self) -> list[kv.Collection]:
        """By kind, namespace and name."""
        ...

    def remove(self, id: str) -> None:
        """Forget it and all that is in it."""
        ...

    def sizes(self) -> dict[str, int]:
        """Entries or items of each, by its id. What has expired a short time ago may be among them."""
        ...

    def trim(self, now: float) -> None:
        """Forget what has expired; nobody sees it before that either."""
        ...


class Dicts(Protocol):
    """What is in dicts, each named by its id. SwellError unknown_dict for one that is not there.

    `now`, in seconds since the epoch, says what has expired. A change with a `request` was made by the first one of
    that id; each further one within `ANSWER_KEPT_S` changes nothing and is told the same.
    """

    def get(self, id: str, key: bytes, now: float) -> bytes | None:
        """The value, which is kept for a while longer."""
        ...

    def contains(self, id: str, key: bytes, now: float) -> bool: ...

    def put(
        self, id: str, entries: Sequence[tuple[bytes, bytes]], now: float, *, missing: bool = False, request: str = ""
    ) -> int:
        """Put all or none of them; with `missing` those alone whose keys are not there. Returns how many were put.
        SwellError dict_full, value_too_large."""
        ...

    def pop(self, id: str, key: bytes, now: float, *, request: str = "") -> bytes | None:
        """Take an entry out; None where there is none."""
        ...

    def page(self, id: str, after: int, now: float, *, values: bool = True) -> kv.Page:
        """The next entries, oldest first."""
        ...

    def count(self, id: str, now: float) -> int: ...

    def clear(self, id: str) -> None: ...


class Queues(Protocol):
    """What is in queues; likewise."""

    def put(
        self, id: str, partition: str, values: Sequence[bytes], ttl_s: float, now: float, *, request: str = ""
    ) -> None:
        """Put all or none of them at the end of a partition, which expires `ttl_s` later if nothing follows. SwellError
        queue_full, too_many_partitions, value_too_large."""
        ...

    def take(self, id: str, partition: str, most: int, now: float, *, request: str = "") -> list[bytes]:
        """Take the first items out, for good; of large ones, fewer than `most`."""
        ...

    def page(self, id: str, partition: str, after: int, now: float) -> kv.Page:
        """The next items, which stay."""
        ...

    def partitions(self, id: str, now: float) -> dict[str, int]:
        """Those that hold anything, by name, and how many items each does."""
        ...

    def clear(self, id: str, partition: str | None) -> None:
        """Take all out of a partition, or (None) of the queue."""
        ...


class Sealer(Protocol):
    """What only this server can open."""

    def seal(self, plain: bytes, about: bytes) -> bytes:
        """Opens again only as what it is `about`."""
        ...

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """SwellError secret_sealed where that cannot be."""
        ...

    def digest(self, content: bytes) -> str:
        """Equal for equal content; who has not the key learns nothing else of it."""
        ...


class Store(Protocol):
    """One database behind several ports, with transactions that may span them."""

    @property
    def world(self) -> WorldLog: ...

    @property
    def usage(self) -> UsageLog: ...

    @property
    def keys(self) -> Keys: ...

    @property
    def secrets(self) -> Secrets: ...

    @property
    def volumes(self) -> Volumes: ...

    @property
    def calls(self) -> Calls: ...

    @property
    def call_records(self) -> CallRecords: ...

    @property
    def triggers(self) -> Triggers: ...

    @property
    def kv(self) -> Kv: ...

    @property
    def dicts(self) -> Dicts: ...

    @property
    def queues(self) -> Queues: ...

    @property
    def trouble(self) -> str:
        """What keeps writes from the disk now, or has cost some; empty when all is well."""
        ...

    @property
    def write_seconds(self) -> Histogram:
        """How long each commit took, synced to disk."""
        ...

    @property
    def rows_dropped(self) -> int:
        """Rows lost so far because they could not be written."""
        ...

    def transaction(self) -> AbstractContextManager[None]:
        """What is written inside is on disk together or not at all."""
        ...

    def close(self) -> None: ...


class Blobs(Protocol):
    """Bytes by the digest of their content ("sha256-…" hex)."""

    def has(self, digest: str) -> bool:
        """Is it there, whole? Who asks is about to need it: to `sweep` it is as good as put just now."""
        ...

    async def put(self, digest: str, chunks: AsyncIterator[bytes]) -> None:
        """Store a stream; refuses it if the content does not have that digest."""
        ...

    def path(self, digest: str) -> str: ...

    @property
    def full(self) -> bool:
        """All together take what they may."""
        ...

    def take(self, digest: str, path: str) -> None:
        """Store what is in a file, which stays, also where they are `full`; refuses it if that does not have that
        digest."""
        ...

    def sweep(self, needed: Collection[str], before: float) -> int:
        """Remove those that are not `needed` and were neither put nor asked for since `before` (seconds since the
        epoch); returns how many."""
        ...
