"""May this request come in? Only with the key, for a host that is ours, and from no foreign page.

The key keeps other users out. Host and Origin keep web pages out that a browser on this machine has
open: by DNS rebinding a foreign name can point here, and a form can be posted anywhere.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Collection, Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from swell.api.answers import refusal
from swell.model.errors import SwellError
from swell.wire.http import REQUEST_ID, lower

Headers = Iterable[tuple[bytes, bytes]]


class Door:
    """ASGI middleware that answers 401 or 403 itself and lets the rest through."""

    def __init__(
        self,
        app: ASGIApp,
        key: str,
        allowed_hosts: Collection[str],
        allowed_origins: Collection[str],
        any_address: bool = False,
    ) -> None:
        self.app = app
        self._any_address = any_address
        self._key = hashlib.sha256(key.encode()).digest()
        self._hosts = {host.lower() for host in allowed_hosts}
        self._origins = {origin.lower().rstrip("/") for origin in allowed_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self.check(scope["headers"])
            except SwellError as error:
                headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
                await refusal(error, id_of(scope["headers"]), headers)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def check(self, headers: Headers) -> None:
        """Raise SwellError (401, 403) for a request with these headers, unless it may come in."""
        self._check_host(_values(headers, b"host"))
        for origin in _values(headers, b"origin"):
            if origin.lower() not in self._origins:
                raise SwellError(
                    "bad_origin",
                    f"Pages of {origin[:200]!r} may not use this API: "
                    "start the server with that origin among its allowed_origins.",
                    status=403,
                )
        self._check_key(_values(headers, b"authorization"))

    def _check_host(self, hosts: list[str]) -> None:
        host = _without_port(hosts[0].lower()) if len(hosts) == 1 else ""
        if not (host in self._hosts or _is_loopback(host) or (self._any_address and _is_address(host))):
            raise SwellError(
                "bad_host",
                f"This API is not served for the host {host[:200]!r}. "
                "Use 127.0.0.1 or localhost, or start it with that host among its allowed_hosts.",
                status=403,
            )

    def _check_key(self, values: list[str]) -> None:
        if not values:
            raise SwellError(
                "no_key",
                "The API needs the server's key, which stands in the file `key` of its state directory. `swell` reads "
                "it there (SWELL_HOME), or takes it from SWELL_KEY; over HTTP, send `Authorization: Bearer sk-…`.",
                status=401,
            )
        scheme, _, key = values[0].partition(" ")
        sent = hashlib.sha256(key.strip().encode()).digest()
        if len(values) > 1 or scheme.lower() != "bearer" or not hmac.compare_digest(sent, self._key):
            raise SwellError(
                "bad_key",
                "The key is not this server's. Is SWELL_HOME (or SWELL_URL) that of another one?",
                status=401,
            )


def id_of(headers: Headers) -> str:
    """The id that the gateway gave a request; empty for one that did not come through it."""
    return next(iter(_values(headers, lower(REQUEST_ID))), "")


def _values(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


def _without_port(host: str) -> str:
    """ "name:80" → "name"; "[::1]:80" → "::1"."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    """An address in the place of a name: what DNS rebinding cannot forge, since it needs a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
