"""What is an API key, and what does it let its holder do?

A key is written `swk_{id}_{secret}`. The id names it; of the secret only a digest is kept. What it allows is a set of
scopes: a power over an app, over all apps of a namespace, or over all there are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import Literal

import msgspec

from swell.model.errors import SwellError
from swell.model.limits import Limits
from swell.model.names import name_problem

Power = Literal["call", "deploy", "admin"]

PREFIX = "swk_"
_TOKEN = re.compile(rb"swk_([a-z2-7]{8})_([a-z2-7]{32,64})\Z")
_POWERS: dict[str, int] = {"call": 1, "deploy": 2, "admin": 3}
"""Each includes those before it, over the same apps."""
ALL = "*"


class Scope(msgspec.Struct, frozen=True):
    """A power over apps: held by a key, or needed for something."""

    power: Power
    namespace: str = ALL
    app: str = ALL
    """Of a scope that is needed, "*" means all apps of the namespace."""

    def __str__(self) -> str:
        if self == ADMIN:
            return self.power
        return f"{self.power}:{self.namespace}/{self.app}"

    def covers(self, needed: Scope) -> bool:
        """Is whoever holds this one allowed what `needed` stands for?"""
        return (
            _POWERS[self.power] >= _POWERS[needed.power]
            and self.namespace in (ALL, needed.namespace)
            and self.app in (ALL, needed.app)
        )

    def touches(self, power: Power) -> bool:
        """Does it allow this power over anything at all?"""
        return _POWERS[self.power] >= _POWERS[power]


ADMIN = Scope("admin")


class ApiKey(msgspec.Struct, frozen=True):
    """A key as it is remembered. Times in seconds since the epoch."""

    id: str
    name: str
    """For people; no two keys that work and the same people see have the same."""
    digest: bytes
    """SHA-256 of the secret: that is drawn at random, so there is nothing to guess a slow hash would make dear."""
    scopes: tuple[Scope, ...]
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    limits: Limits = Limits()
    made_by: str = ""
    """Id of the key that it was made with, and ends with; empty: with the server's own."""

    def works(self, now: float) -> bool:
        """Is it, by itself, neither expired nor revoked?"""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def scope_of(text: str) -> Scope:
    """The scope that is written so. SwellError bad_scope names what is wrong with it."""
    power, colon, target = text.strip().partition(":")
    if power not in _POWERS:
        raise _bad_scope(text, "it begins with call, deploy or admin")
    if not colon:
        if power != "admin":
            raise _bad_scope(text, f"it says over which apps: {power}:NAMESPACE/APP, or {power}:NAMESPACE/* for all")
        return ADMIN
    namespace, slash, app = target.partition("/")
    if not slash or (namespace == ALL and app != ALL):
        raise _bad_scope(text, f"write {power}:NAMESPACE/APP, {power}:NAMESPACE/* or {power}:*/*")
    for kind, name in (("namespace", namespace), ("app", app)):
        problem = name_problem(kind, name) if name != ALL else None
        if problem is not None:
            raise _bad_scope(text, problem)
    return Scope(power, namespace, app)  # type: ignore[arg-type]


def allows(held: Collection[Scope], needed: Scope) -> bool:
    """Is something that needs this scope allowed to whoever holds these?"""
    return any(scope.covers(needed) for scope in held)


def token(id: str, secret: str) -> str:
    """A key as its holder has it."""
    return f"{PREFIX}{id}_{secret}"


def parts(text: bytes) -> tuple[str, bytes] | None:
    """(id, secret) of what is written like an API key; None for anything else."""
    found = _TOKEN.match(text)
    return (found[1].decode(), found[2]) if found is not None else None


def digest_of(secret: bytes) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret).digest()


def _bad_scope(text: str, why: str) -> SwellError:
    return SwellError("bad_scope", f"{text[:100]!r} is no scope: {why}.", status=422)
