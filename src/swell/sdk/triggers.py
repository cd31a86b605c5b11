"""What may be done with triggers of a server, from here? For the command line."""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec

from swell.sdk import protocol
from swell.sdk.bridge import operation
from swell.sdk.client import Client
from swell.sdk.protocol import Request
from swell.wire import http
from swell.wire.triggers import Backfill, Backfilled, Fired, FiringRow, TriggerRow

T = TypeVar("T")


class Triggers:
    """Those of one namespace."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    @operation
    async def rows(self, app: str = "") -> list[TriggerRow]:
        """Those of an app, or of all apps of the namespace."""
        asked = urlencode({"namespace": self._namespace, "app": app})
        return await self._ask("GET", f"/api/triggers?{asked}", list[TriggerRow])

    @operation
    async def firings(self, app: str, name: str, most: int) -> list[FiringRow]:
        """The newest, newest first."""
        return await self._ask("GET", f"{self._at(app, name)}/firings?limit={most}", list[FiringRow])

    @operation
    async def pause(self, app: str, name: str) -> TriggerRow:
        """Have it fire no more."""
        return await self._ask("POST", f"{self._at(app, name)}/pause", TriggerRow)

    @operation
    async def resume(self, app: str, name: str) -> TriggerRow:
        """Have it fire again."""
        return await self._ask("POST", f"{self._at(app, name)}/resume", TriggerRow)

    @operation
    async def fire(self, app: str, name: str) -> Fired:
        """Once, now."""
        return await self._ask("POST", f"{self._at(app, name)}/fire", Fired)

    @operation
    async def backfill(self, app: str, name: str, since: float, until: float | None) -> Backfilled:
        """Once for each due time that passed without it; seconds since the epoch."""
        return await self._ask("POST", f"{self._at(app, name)}/backfill", Backfilled, Backfill(since, until))

    def _at(self, app: str, name: str) -> str:
        return f"/api/apps/{self._namespace}/{app}/triggers/{quote(name, safe='')}"

    async def _ask(self, method: str, path: str, kind: type[T], body: msgspec.Struct | None = None) -> T:
        headers = {} if body is None else {"content-type": http.JSON}
        content = b"" if body is None else msgspec.json.encode(body)
        answer = await self._client.transport.send(Request(method, path, headers, content))
        if not answer.ok:
            raise protocol.failure(answer)
        return msgspec.json.decode(answer.body, type=kind)
