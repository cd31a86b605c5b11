"""How does a program reach a dict or a queue? By its name (or id) on the server, each change once however often it is
sent.

Keys and values are pickled, as arguments are. A request whose answer was lost, with control say, is sent again; of a
change the server knows it by its id then, and tells what it told before.
"""

from __future__ import annotations

import builtins
import math
import pickle
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, ClassVar, Generic, Self, TypeVar
from urllib.parse import quote, urlencode
from uuid import uuid4

import msgspec

from swell.model.errors import SwellError
from swell.model.kv import Kind, is_id
from swell.model.names import name_problem
from swell.model.workload import DEFAULT_NAMESPACE
from swell.sdk import binding, frames, protocol
from swell.sdk.bridge import adopt, drive, operation
from swell.sdk.client import Client
from swell.sdk.marks import Given
from swell.sdk.presence import me
from swell.sdk.protocol import Request
from swell.sdk.refusal import refuse
from swell.wire import context, http
from swell.wire.kv import CollectionRow, NewCollection

T = TypeVar("T")
S = TypeVar("S", bound="Shared")

FRESH_S = 1.0
"""Settings are read from files: not for every operation."""
AGAIN_S = (0.05, 0.2, 0.5, 1.0)
"""Pauses before a request is sent again; the last one counts on."""
RETRY_S = 60.0
"""For so long after its answer was lost first."""
LOST = ("connection_lost", "control_down", "server_failed", "stopping", "stream_cut")
"""Errors after which it is not known what became of a request, or known that it was not begun."""


_JSON = {"content-type": http.JSON}
_EMPTY = NewCollection()


class Shared:
    """A dict or queue by its name."""

    kind: ClassVar[Kind]

    def __init__(self, name: str, namespace: str | None, create: bool = False) -> None:
        """Made by its static methods."""
        self._name = name
        self._namespace = namespace
        self._create = create
        """It is made where it is not there."""
        self._row: CollectionRow | None = None
        self._client: Client | None = None
        self._fresh_until = -math.inf
        """Then settings are read again (on the monotonic clock)."""

    def __repr__(self) -> str:
        how = "from_id" if is_id(self._name) else "from_name"
        return f"swell.{type(self).__name__}.{how}({self._name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Sent to a function of another namespace it is still the same.
        return type(self), (self._name, self._space(), self._create)

    @property
    def name(self) -> str | None:
        """As it was given; None of one that was found by its id, before it was asked for."""
        return self._row.name if self._row is not None else None if is_id(self._name) else self._name

    @property
    def object_id(self) -> str:
        """Its id, once it was asked for (`hydrate`)."""
        if self._row is None and not is_id(self._name):
            words = f"{self!r} has not been looked up yet: call .hydrate() first."
            raise SwellError("not_running", words)
        return self._name if self._row is None else self._row.id

    @operation
    async def hydrate(self, client: None = None) -> Self:
        """Look it up (and make it, where that was asked for): an error where it is not there."""
        refuse(Given(f"{type(self).__name__}.hydrate", {"client": client}))
        self._row = await self._ask("GET", "", CollectionRow)
        return self

    async def _ask(self, method: str, path: str, kind: type[T], body: msgspec.Struct | None = None) -> T:
        """One request about it; the path is what stands behind its own."""
        client = self._reached()
        if self._create:
            new = _encoded(NewCollection(if_missing=True))
            await ask(client, Request("PUT", self._at(), _JSON, new), CollectionRow)
            self._create = False
        headers, content = ({}, b"") if body is None else (_JSON, _encoded(body))
        return await ask(client, Request(method, self._at() + path, headers, content), kind)

    def _on(self, client: Client) -> Self:
        """The same on this server."""
        self._client, self._fresh_until = client, math.inf
        return self

    @operation
    async def _make(self, new: NewCollection = _EMPTY) -> CollectionRow:
        self._row = await self._ask("PUT", "", CollectionRow, new)
        return self._row

    @operation
    async def _rows(self) -> builtins.list[CollectionRow]:
        """All of its kind and namespace."""
        query = urlencode({"namespace": self._space()})
        return await ask(self._reached(), Request("GET", f"/api/{self.kind}s?{query}"), builtins.list[CollectionRow])

    @operation
    async def _remove(self) -> None:
        await self._ask("DELETE", "", type(None))

    def _reached(self) -> Client:
        if context.inside:
            return binding.platform(context.inside[0])
        if self._client is None or time.monotonic() > self._fresh_until:
            self._client, self._fresh_until = binding.current(), time.monotonic() + FRESH_S
        return self._client

    def _space(self) -> str:
        return self._namespace or here()

    def _at(self) -> str:
        return f"/api/{self.kind}s/{quote(self._space(), safe='')}/{quote(self._name, safe='')}"

    def _pickled(self, what: str, value: Any) -> bytes:
        """SwellError cannot_pickle names what cannot be."""
        try:
            return pickle.dumps(value, protocol=5)
        except Exception as error:
            error.__traceback__ = frames.users(error.__traceback__)
            words = f"{what} of {self!r} ({type(value).__name__}) cannot be kept: {error}. Keep plain data, or objects "
            words += "of classes that whoever reads them can import."
            raise SwellError("cannot_pickle", words) from error

    def _unpickled(self, what: str, data: bytes) -> Any:
        try:
            return pickle.loads(data)
        except Exception as error:
            words = f"{what} of {self!r} cannot be made here ({type(error).__name__}: {error}): its class has to be "
            words += "importable here, too."
            raise SwellError("cannot_unpickle", words) from error


class Objects(Generic[S]):
    """Makes, lists and deletes those of one kind."""

    of: ClassVar[type[Shared]]

    @operation
    async def create(
        self, name: str, *, allow_existing: bool = False, environment_name: str | None = None, client: None = None
    ) -> None:
        """Make one, with nothing in it; with `allow_existing` one that is there is as good."""
        refuse(Given(f"{type(self).__name__}.create", {"client": client}))
        check(self.of, name, environment_name)
        await self.of(name, environment_name)._make.start(NewCollection(if_missing=allow_existing))

    @operation
    async def list(
        self,
        *,
        max_objects: int | None = None,
        created_before: float | None = None,
        environment_name: str | None = None,
        client: None = None,
    ) -> builtins.list[S]:
        """Those of a namespace, the newest first; those made before a time (seconds since the epoch, or a datetime),
        or only so many."""
        refuse(Given(f"{type(self).__name__}.list", {"client": client}))
        rows = await self.of("any", environment_name)._rows.start()
        stamp: Callable[[], float] | None = getattr(created_before, "timestamp", None)
        before = math.inf if created_before is None else created_before if stamp is None else stamp()
        found = sorted((row for row in rows if row.made_at < before), key=lambda row: row.made_at, reverse=True)
        return [self._of_row(row) for row in found[:max_objects]]

    @operation
    async def delete(
        self, name: str, *, allow_missing: bool = False, environment_name: str | None = None, client: None = None
    ) -> None:
        """Delete one and all that is in it."""
        refuse(Given(f"{type(self).__name__}.delete", {"client": client}))
        check(self.of, name, environment_name)
        try:
            await self.of(name, environment_name)._remove.start()
        except SwellError as error:
            if error.code != f"unknown_{self.of.kind}" or not allow_missing:
                raise

    def _of_row(self, row: CollectionRow) -> S:
        made: Any = self.of(row.name, row.namespace)
        made._row = row
        found: S = made
        return found


class Ephemeral(Generic[S]):
    """One between entering and leaving, for `with` and `async with`."""

    def __init__(self, kind: type[S], namespace: str | None) -> None:
        self._present: Future[None] | None = None
        self._made = kind(f"ephemeral-{uuid4().hex[:12]}", namespace)

    def __enter__(self) -> S:
        with frames.hidden:
            return drive(self._make())

    def __exit__(self, *_: object) -> None:
        with frames.hidden:
            drive(self._end())

    async def __aenter__(self) -> S:
        with frames.hidden:
            return await adopt(self._make())

    async def __aexit__(self, *_: object) -> None:
        with frames.hidden:
            await adopt(self._end())

    async def _make(self) -> S:
        mine = me()
        await self._made._make.start(NewCollection(if_missing=True, owner=mine))
        self._present = self._made._reached().present(mine)
        return self._made

    async def _end(self) -> None:
        if self._present is not None:
            self._present.cancel()
        await self._made._remove.start()


async def ask(client: Client, request: Request, kind: type[T]) -> T:
    """What the server answers. Where an answer is lost, the request is sent again for a while."""
    answer = await sent(client, request)
    if not answer.ok:
        raise protocol.failure(answer)
    return msgspec.json.decode(answer.body or b"null", type=kind)


async def sent(client: Client, request: Request) -> protocol.Answer:
    """The same, whatever it is."""
    return await asked(client, lambda: (request, None))


async def asked(
    client: Client, made: Callable[[], tuple[Request, float | None]], until: float = math.inf, known: bool = False
) -> protocol.Answer:
    """The same of requests that are `made` anew for each try, with how many seconds an answer may take. None is begun
    after `until` (monotonic), but for the first one. `known`: the server was there a moment ago. What is told of a call
    in the queue is an answer, too, when that has failed."""
    failed = 0
    while True:
        request, within_s = made()
        try:
            answer = await client.transport.send(request, within_s=within_s)
            told = answer.ok or http.CALL_STATE.lower() in answer.headers
            if told or protocol.error_of(answer).code not in LOST:
                return answer
            raise protocol.failure(answer)
        except SwellError as error:
            # Once it was there, it may be that all of it is being started anew.
            if error.code not in (*LOST, "no_answer") and not ((failed or known) and error.code == "no_server"):
                raise
            until = min(until, time.monotonic() + RETRY_S)
            if time.monotonic() >= until:
                raise
        await client.transport.pause(min(AGAIN_S[min(failed, len(AGAIN_S) - 1)], max(until - time.monotonic(), 0.0)))
        failed += 1


def here() -> str:
    """The namespace that is meant where none is named."""
    return (context.inside[0].app.rpartition("/")[0] if context.inside else "") or DEFAULT_NAMESPACE


def request_id() -> str:
    """Of one change, however often it is sent."""
    return uuid4().hex


def check(kind: type[Shared], name: object, namespace: str | None) -> None:
    """Refuse what can be no name."""
    for what, text in ((kind.kind, name), ("namespace", namespace or DEFAULT_NAMESPACE)):
        problem = name_problem(what, text) if isinstance(text, str) else f"{what} {text!r} is no text"
        if problem is not None:
            raise SwellError("bad_argument", f"{kind.__name__}: {problem}.")


def check_id(kind: type[Shared], text: object) -> None:
    """Refuse what can be no id."""
    if not isinstance(text, str) or not is_id(text):
        raise SwellError("bad_argument", f"{kind.__name__}.from_id: {text!r} is no id: that is what .object_id gives.")


def pages(sizes: Sequence[int], bytes_max: int) -> builtins.list[tuple[int, int]]:
    """Which of these are sent together, as (from, to), so that no request brings more than so many bytes."""
    found, start, total = [], 0, 0
    for at, size in enumerate(sizes):
        if at > start and total + size > bytes_max:
            found.append((start, at))
            start, total = at, 0
        total += size
    return [*found, (start, len(sizes))] if sizes else []


def _encoded(body: msgspec.Struct) -> bytes:
    return msgspec.json.encode(body)
