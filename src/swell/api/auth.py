"""How is who asks the API checked? Middleware that reads what a request shows, and refuses in its own words."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from swell.api.answers import refusal
from swell.decide.access import CODE, NOBODY, SERVER, STRANGER, Caller, Holder, holder_of, may_control
from swell.model.errors import SwellError
from swell.model.key import ApiKey
from swell.wire.http import REQUEST_ID, lower

Headers = Iterable[tuple[bytes, bytes]]
HOLDER = "swell.holder"
"""Where a request's scope says who sent it."""


class Auth:
    """ASGI middleware that answers 401 or 403 itself and lets the rest through."""

    def __init__(
        self,
        app: ASGIApp,
        key: str,
        allowed_hosts: Collection[str],
        allowed_origins: Collection[str],
        any_address: bool = False,
        call_key: str = "",
        known: Callable[[str], ApiKey | None] = lambda _: None,
    ) -> None:
        self.app = app
        self._any_address = any_address
        self._own = {k.encode(): holder for k, holder in ((key, SERVER), (call_key, CODE)) if k}
        self._known = known
        self._hosts = {host.lower() for host in allowed_hosts}
        self._origins = {origin.lower().rstrip("/") for origin in allowed_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            holder, refused = self.judged(scope["headers"])
            if refused is not None:
                headers = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else None
                await refusal(refused, id_of(scope["headers"]), headers)(scope, receive, send)
                return
            scope[HOLDER] = holder
        await self.app(scope, receive, send)

    def judged(self, headers: Headers) -> tuple[Holder, SwellError | None]:
        """Who sent a request with these headers, and why it may not come in."""
        hosts, keys = _values(headers, b"host"), _values(headers, b"authorization")
        holder = STRANGER if keys else NOBODY
        if len(keys) == 1:
            holder = holder_of(keys[0].encode("latin-1"), self._own, self._known, time.time())
        caller = Caller(holder, hosts[0] if len(hosts) == 1 else "", tuple(_values(headers, b"origin")))
        return holder, may_control(
            caller, allowed_hosts=self._hosts, allowed_origins=self._origins, any_address=self._any_address
        )


def id_of(headers: Headers) -> str:
    """The id that the gateway gave a request; empty for one that did not come through it."""
    return next(iter(_values(headers, lower(REQUEST_ID))), "")


def _values(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]
