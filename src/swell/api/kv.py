"""What can be asked about dicts and queues over HTTP? What the SDK does with them, keys and values being bytes."""

from __future__ import annotations

from typing import Annotated

import msgspec

from swell.api.port import KvPort
from swell.api.routes import ApiRequest, Route
from swell.decide.access import Need
from swell.model.kv import Kind
from swell.model.names import check_names
from swell.model.workload import DEFAULT_NAMESPACE
from swell.wire.kv import (
    CollectionRow,
    Count,
    DictKey,
    Entries,
    Found,
    Items,
    NewCollection,
    NewEntries,
    NewItems,
    PartitionRow,
    Take,
)

ALL_OF = Need("deploy", "namespace", code=True)
"""They are for all apps of their namespace, whose code unpickles what is in them: that runs code, as deploying does."""


class CollectionsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which dicts or queues."""

    namespace: str = DEFAULT_NAMESPACE


class EntriesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which entries of a dict."""

    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    """As the page before told; 0: from the first on."""
    values: bool = True
    """False: keys alone."""


class ItemsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which items of a queue."""

    partition: str = ""
    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    """As the page before told; 0: from the first on."""


class ClearQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of a queue."""

    partition: str = ""
    all: bool = False
    """Every partition."""


class CollectionHandlers:
    """Answers about one kind as a whole, one method per route."""

    def __init__(self, keeper: KvPort, kind: Kind) -> None:
        self._keeper = keeper
        self._kind = kind

    def routes(self) -> list[Route]:
        all_of, row, what = f"/api/{self._kind}s", CollectionRow, self._kind
        one, rows, asked = f"{all_of}/{{namespace}}/{{name}}", list[CollectionRow], CollectionsQuery
        return [
            Route("GET", all_of, f"The {what}s there are.", self.rows, asked, gives=rows, needs=ALL_OF),
            Route("PUT", one, f"Make a {what}.", self.create, takes=NewCollection, gives=row, needs=ALL_OF),
            Route("GET", one, f"One {what}, by name or id.", self.row, gives=row, needs=ALL_OF),
            Route("DELETE", one, f"Delete a {what} and all that is in it.", self.delete, needs=ALL_OF),
        ]

    async def rows(self, request: ApiRequest) -> list[CollectionRow]:
        check_names(request.query.namespace, "")
        return await self._keeper.rows(self._kind, request.query.namespace)

    async def create(self, request: ApiRequest) -> CollectionRow:
        asked: NewCollection = request.body
        return await self._keeper.create(self._kind, *_at(request), asked.if_missing, asked.owner)

    async def row(self, request: ApiRequest) -> CollectionRow:
        return await self._keeper.row(self._kind, *_at(request))

    async def delete(self, request: ApiRequest) -> None:
        await self._keeper.delete(self._kind, *_at(request))


class DictHandlers:
    """Answers about what is in dicts, one method per route."""

    def __init__(self, keeper: KvPort) -> None:
        self._keeper = keeper

    def routes(self) -> list[Route]:
        one, query = "/api/dicts/{namespace}/{name}", EntriesQuery
        entries = f"{one}/entries"
        return [
            Route("POST", f"{one}/get", "A value by its key.", self.get, takes=DictKey, gives=Found, needs=ALL_OF),
            Route("POST", f"{one}/contains", "Is it there?", self.contains, takes=DictKey, gives=Found, needs=ALL_OF),
            Route("POST", f"{one}/pop", "Take an entry out.", self.pop, takes=DictKey, gives=Found, needs=ALL_OF),
            Route("POST", entries, "Put all or none.", self.put, takes=NewEntries, gives=Count, needs=ALL_OF),
            Route("GET", entries, "A page of entries.", self.entries, query, gives=Entries, needs=ALL_OF),
            Route("GET", f"{one}/count", "How many entries it has.", self.count, gives=Count, needs=ALL_OF),
            Route("DELETE", entries, "Take all entries out.", self.clear, needs=ALL_OF),
        ]

    async def get(self, request: ApiRequest) -> Found:
        return _found(await self._keeper.get(*_at(request), request.body.key))

    async def contains(self, request: ApiRequest) -> Found:
        return Found(await self._keeper.contains(*_at(request), request.body.key))

    async def pop(self, request: ApiRequest) -> Found:
        asked: DictKey = request.body
        return _found(await self._keeper.pop(*_at(request), asked.key, asked.request))

    async def put(self, request: ApiRequest) -> Count:
        asked: NewEntries = request.body
        return Count(await self._keeper.put(*_at(request), asked.entries, asked.missing, asked.request))

    async def entries(self, request: ApiRequest) -> Entries:
        page = await self._keeper.entries(*_at(request), request.query.after, request.query.values)
        return Entries(tuple((row.key, row.value) for row in page.rows), page.after)

    async def count(self, request: ApiRequest) -> Count:
        return Count(await self._keeper.count(*_at(request)))

    async def clear(self, request: ApiRequest) -> None:
        await self._keeper.clear(*_at(request))


class QueueHandlers:
    """Answers about what is in queues, one method per route."""

    def __init__(self, keeper: KvPort) -> None:
        self._keeper = keeper

    def routes(self) -> list[Route]:
        one = "/api/queues/{namespace}/{name}"
        items, rows, query = f"{one}/items", list[PartitionRow], ItemsQuery
        return [
            Route("POST", items, "Put all or none.", self.put, takes=NewItems, waits=True, needs=ALL_OF),
            Route(
                "POST",
                f"{one}/take",
                "Take items out.",
                self.take,
                takes=Take,
                gives=Items,
                waits=True,
                needs=ALL_OF,
            ),
            Route("GET", items, "A page of items, which stay.", self.items, query, gives=Items, needs=ALL_OF),
            Route("GET", f"{one}/partitions", "Those with items.", self.partitions, gives=rows, needs=ALL_OF),
            Route("DELETE", items, "Take all items out.", self.clear, ClearQuery, needs=ALL_OF),
        ]

    async def put(self, request: ApiRequest) -> None:
        await self._keeper.put_items(*_at(request), request.body)

    async def take(self, request: ApiRequest) -> Items:
        return Items(tuple(await self._keeper.take(*_at(request), request.body)))

    async def items(self, request: ApiRequest) -> Items:
        page = await self._keeper.items(*_at(request), request.query.partition, request.query.after)
        return Items(tuple(row.value for row in page.rows), page.after)

    async def partitions(self, request: ApiRequest) -> list[PartitionRow]:
        found = await self._keeper.partitions(*_at(request))
        return [PartitionRow(name, items) for name, items in found.items()]

    async def clear(self, request: ApiRequest) -> None:
        query: ClearQuery = request.query
        await self._keeper.clear_items(*_at(request), None if query.all else query.partition)


def kv_routes(keeper: KvPort) -> list[Route]:
    """Of dicts and of queues."""
    dicts = [*CollectionHandlers(keeper, "dict").routes(), *DictHandlers(keeper).routes()]
    return [*dicts, *CollectionHandlers(keeper, "queue").routes(), *QueueHandlers(keeper).routes()]


def _found(value: bytes | None) -> Found:
    return Found(False) if value is None else Found(True, value)


def _at(request: ApiRequest) -> tuple[str, str]:
    return request.path["namespace"], request.path["name"]
