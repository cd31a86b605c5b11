"""Who may call? By what a way in asks for, and what its caller showed: the key first, then host and page.

The key keeps other users out. Host and Origin keep web pages out that a browser on this machine has open: by DNS
rebinding a foreign name can point here, and a form can be posted anywhere.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterable
from enum import IntEnum

import msgspec

from swell.model.errors import SwellError
from swell.model.hosts import is_address, is_of_this_machine, is_own_page, name_of


class Key(IntEnum):
    """Which key a caller sent."""

    NONE = 0
    """No bearer token."""
    OTHER = 1
    """One that is not of this server."""
    OURS = 2


class Caller(msgspec.Struct, frozen=True):
    """What a request shows of who sent it."""

    key: Key
    host: str
    """As it stands in `Host`; empty where there is not exactly one."""
    origins: tuple[str, ...] = ()
    """The page that a browser sent it for."""


def key_shown(authorization: bytes | None, keys: Iterable[bytes]) -> Key:
    """What an Authorization header holds, where these keys are the server's."""
    if authorization is None or authorization[:7].lower() != b"bearer ":
        return Key.NONE
    token = authorization[7:].strip()
    # All are compared whatever the first says: the time must not tell which one was nearly right.
    matches = [hmac.compare_digest(token, key) for key in keys]
    return Key.OURS if any(matches) else Key.OTHER


def may_call(caller: Caller, *, key_needed: bool) -> SwellError | None:
    """Why a function may not be called; None: it may. Without the key only own pages may, with it all."""
    if caller.key is Key.OURS:
        return None
    if key_needed or caller.key is Key.OTHER:
        return _no_key(caller.key)
    for origin in caller.origins:
        if not is_own_page(origin, caller.host):
            words = (
                f"Pages of {origin[:200]!r} may not call functions here. Send the server's key as well, or no Origin."
            )
            return SwellError("bad_origin", words, status=403)
    return None


def may_visit(caller: Caller, *, key_needed: bool, allowed_hosts: Collection[str]) -> SwellError | None:
    """Why a web endpoint does not answer; None: it does. Another's key, and pages, are the endpoint's own business."""
    if caller.key is Key.OURS:
        return None
    if key_needed:
        return _no_key(caller.key)
    return _foreign_host("Web endpoints are", "127.0.0.1, localhost or {label}.localhost", caller, allowed_hosts)


def may_scrape(caller: Caller, *, key_needed: bool, allowed_hosts: Collection[str]) -> SwellError | None:
    """Why the metrics are not told; None: they are. They name apps: to foreign pages, which a browser lets read what
    comes from a host of their own name, they are not told."""
    if caller.key is Key.OURS:
        return None
    if key_needed or caller.key is Key.OTHER:
        return _no_key(caller.key)
    return _foreign_host("Metrics are", "127.0.0.1 or localhost", caller, allowed_hosts)


def _foreign_host(what: str, here: str, caller: Caller, allowed_hosts: Collection[str]) -> SwellError | None:
    if is_of_this_machine(caller.host) or name_of(caller.host) in allowed_hosts:
        return None
    words = (
        f"{what} not served for the host {caller.host[:200]!r}. Use {here}, "
        "start the server with that host among its allowed_hosts, or send its key."
    )
    return SwellError("bad_host", words, status=403)


def may_control(
    caller: Caller, *, allowed_hosts: Collection[str], allowed_origins: Collection[str], any_address: bool
) -> SwellError | None:
    """Why the control API does not answer; None: it does. Deploying is running code: all three have to be right.

    `any_address`: every address of this machine is listened on, so each is a host of it.
    """
    if caller.key is not Key.OURS:
        return _no_key(caller.key)
    name = name_of(caller.host)
    if not (is_of_this_machine(caller.host) or name in allowed_hosts or (any_address and is_address(name))):
        words = (
            f"This API is not served for the host {caller.host[:200]!r}. "
            "Use 127.0.0.1 or localhost, or start the server with that host among its allowed_hosts."
        )
        return SwellError("bad_host", words, status=403)
    for origin in caller.origins:
        if origin.lower() not in allowed_origins:
            words = (
                f"Pages of {origin[:200]!r} may not use this API: "
                "start the server with that origin among its allowed_origins."
            )
            return SwellError("bad_origin", words, status=403)
    return None


def _no_key(shown: Key) -> SwellError:
    if shown is Key.NONE:
        words = (
            "This needs the server's key, which stands in the file `key` of its state directory: send it as "
            "`Authorization: Bearer KEY`. `swell` reads it there (SWELL_HOME), or takes it from SWELL_KEY."
        )
        return SwellError("no_key", words, status=401)
    words = "The key is not this server's. Is SWELL_HOME (or SWELL_URL) that of another one?"
    return SwellError("bad_key", words, status=401)
