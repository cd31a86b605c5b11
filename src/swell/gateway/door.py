"""Whose key came with a request, and what does it open? Found once for each key and app, then remembered.

It knows of API keys what control told last, so it goes on while control is away.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from swell.decide.access import CODE, NOBODY, SERVER, STRANGER, Holder, Key, holder_of, lacks, standing, unfit
from swell.decide.lineage import ends_at, lineage
from swell.gateway.gate import Gate
from swell.gateway.shared import Shared
from swell.gateway.wheel import Slot
from swell.model.errors import SwellError
from swell.model.key import ApiKey, Scope, allows
from swell.model.limits import UNLIMITED

REMEMBERED_MAX = 4096
"""Keys that were shown for an app; beyond it all are forgotten and found again."""
REMEMBERED_SIZE_MAX = 256
"""Bytes of a header with which one is remembered: no key of ours is longer."""
LOOK_MAX_S = 3600.0
"""Whether a key has expired is looked at this often at least: what the clock says of later can change."""


class Pass:
    """What one key is to one app."""

    __slots__ = ("gates", "holder", "lacks", "ours", "trusted", "until")

    def __init__(self, holder: Holder, app: Scope, gates: tuple[Gate, ...] = (), until: float | None = None) -> None:
        self.holder = holder
        self.gates = gates
        """The limits of the key, and of those that it comes from, as far as they have any."""
        self.until = math.inf if until is None else until
        """When it ends, in seconds since the epoch."""
        self.ours = holder.key is Key.OURS
        """It is of a key of this server that works."""
        self.lacks = lacks(holder, app) if self.ours else None
        self.trusted = self.ours and allows(holder.scopes, Scope("deploy", app.namespace, app.app))
        """Pickles of its holder are read: that runs code, as deploying does."""


class Door:
    """The keys a gateway knows. `expired` is called when one has come to its end by itself."""

    def __init__(self, shared: Shared, key: str, call_key: str, expired: Callable[[], None]) -> None:
        self.shared = shared
        self.expired = expired
        self.locked = False
        """True: reachable from elsewhere, so that everything needs a key."""
        self.hosts = {host.lower() for host in shared.settings.allowed_hosts}
        """Names, beside those of this machine, that web endpoints answer to."""
        self.slot: Slot | None = None
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
        self._wait()

    def _wait(self) -> None:
        """Until the next key expires."""
        epoch = time.time()
        ends = [key.expires_at for key in self.keys.values() if key.expires_at is not None and key.works(epoch)]
        if ends:
            self.shared.wheel.add(self, self.shared.now() + min(min(ends) - epoch, LOOK_MAX_S))
        else:
            self.shared.wheel.discard(self)

    def due(self, _now: float) -> None:
        """One may have."""
        self.expired()
        self._wait()

    def ended(self, id: str) -> SwellError | None:
        """Why the key that this id is of opens nothing; None: it does, or none was named."""
        if not id:
            return None
        key = self.keys.get(id)
        return unfit(STRANGER if key is None else standing(key, self.keys.get, time.time()))

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
        line = lineage(key, self.keys.get) if key is not None else ()
        found = Pass(holder, app, tuple(self.gates[k.id] for k in line if k.id in self.gates), ends_at(line))
        if found.ours and len(authorization) <= REMEMBERED_SIZE_MAX:
            if len(self.remembered) >= REMEMBERED_MAX:
                self.remembered.clear()
            self.remembered[named] = found
        return found

    def overlooks(self, shown: Pass) -> bool:
        """Clients of the OpenAI API always send a key: where none is needed, any will do that is not one of ours."""
        return not self.locked and shown.holder.key is Key.OTHER
