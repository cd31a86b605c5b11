"""Whose key came with a request, and what does it open? Found once for each key and app, then remembered.

It knows of API keys what control told last, so it goes on while control is away.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from swell.decide.access import CODE, NOBODY, SERVER, Holder, Key, holder_of, lacks
from swell.gateway.gate import Gate
from swell.gateway.shared import Shared
from swell.model.key import ApiKey, Scope, allows
from swell.model.limits import UNLIMITED

REMEMBERED_MAX = 4096
"""Keys that were shown for an app; beyond it all are forgotten and found again."""
REMEMBERED_SIZE_MAX = 256
"""Bytes of a header with which one is remembered: no key of ours is longer."""


class Pass:
    """What one key is to one app."""

    __slots__ = ("gate", "holder", "lacks", "trusted", "until")

    def __init__(self, holder: Holder, app: Scope, gate: Gate | None = None, until: float = math.inf) -> None:
        self.holder = holder
        self.gate = gate
        """The limits of the key, where it has any."""
        self.until = until
        """When the key expires, in seconds since the epoch."""
        self.lacks = lacks(holder, app) if self.ours else None
        self.trusted = self.ours and allows(holder.scopes, Scope("deploy", app.namespace, app.app))
        """Pickles of its holder are read: that runs code, as deploying does."""

    @property
    def ours(self) -> bool:
        """It is of a key of this server that works."""
        return self.holder.key is Key.OURS


class Door:
    """The keys a gateway knows."""

    def __init__(self, shared: Shared, key: str, call_key: str) -> None:
        self.shared = shared
        self.own = {k.encode(): holder for k, holder in ((key, SERVER), (call_key, CODE)) if k}
        self.keys: dict[str, ApiKey] = {}
        self.gates: dict[str, Gate] = {}
        """Limits of keys that have any, by the key's id."""
        self.remembered: dict[tuple[bytes, str, str], Pass] = {}

    def take(self, keys: Iterable[ApiKey], gateways: int, whole: bool) -> None:
        """Take in keys that changed, or all that there are."""
        if whole:
            self.keys = {}
        self.keys.update((key.id, key) for key in keys)
        self.remembered.clear()
        now, epoch = self.shared.now(), time.time()
        limited = {id: key for id, key in self.keys.items() if key.limits != UNLIMITED and key.works(epoch)}
        gates = self.gates
        self.gates = {}
        for id, key in limited.items():
            gate = gates.get(id) or Gate(f"the key {key.name} ({id})", key.limits, gateways, now)
            gate.set(key.limits, gateways, now)
            self.gates[id] = gate

    def pass_of(self, authorization: bytes | None, app: Scope) -> Pass:
        """What a header's key is to an app."""
        if authorization is None:
            return Pass(NOBODY, app)
        named = (authorization, app.namespace, app.app)
        found = self.remembered.get(named)
        if found is not None and (found.until == math.inf or time.time() < found.until):
            return found
        holder = holder_of(authorization, self.own, self.keys.get, time.time())
        key = self.keys.get(holder.id)
        expires_at = key.expires_at if key is not None else None
        found = Pass(holder, app, self.gates.get(holder.id), math.inf if expires_at is None else expires_at)
        if found.ours and len(authorization) <= REMEMBERED_SIZE_MAX:
            if len(self.remembered) >= REMEMBERED_MAX:
                self.remembered.clear()
            self.remembered[named] = found
        return found
