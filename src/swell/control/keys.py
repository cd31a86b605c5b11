"""Which API keys are there? Made, listed and revoked here; on disk first, then known to every gateway.

The secret of a key is in the answer to who had it made, and nowhere else: not in the store, a log or an event.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import secrets
from collections.abc import Callable
from typing import Literal

import msgspec

from swell.decide.access import Holder, may_manage
from swell.model.errors import SwellError
from swell.model.key import ApiKey, digest_of, scope_of, token
from swell.model.limits import SECONDS_MAX, limits_problem
from swell.model.ports import Clock, Keys
from swell.wire.api import KeyRow, MadeKey, NewKey

log = logging.getLogger("swell.control")

ID_BYTES = 5
"""Eight characters in base 32."""
SECRET_BYTES = 20
"""160 bits: 32 characters."""
_NAME = re.compile(r"\w[\w .-]{0,62}")
SCOPES_MAX = 1000


class KeyRing:
    """The API keys of one server."""

    def __init__(self, store: Keys, clock: Clock, tell: Callable[[ApiKey], None]) -> None:
        """`tell` lets the gateways know of a key that is new, or is not as it was."""
        self._store = store
        self._clock = clock
        self._tell = tell
        self._keys = {key.id: key for key in store.all()}
        self._writing = asyncio.Lock()

    def get(self, id: str) -> ApiKey | None:
        """The key of this id, whether it works or not."""
        return self._keys.get(id)

    def all(self) -> list[ApiKey]:
        """Oldest first."""
        return list(self._keys.values())

    def rows(self, holder: Holder) -> list[KeyRow]:
        """Those that the holder of another may manage, oldest first."""
        now = self._clock.now()
        return [row_of(key, now) for key in self._keys.values() if may_manage(holder, key.scopes) is None]

    async def make(self, asked: NewKey, holder: Holder) -> MadeKey:
        """A new key, with its secret: told this once. Whoever asked may leave: what has begun is finished."""
        return await asyncio.shield(self._make(asked, holder))

    async def revoke(self, named: str, holder: Holder) -> KeyRow:
        """Let the key of this id, or name, work no longer. One that was revoked stays so."""
        return await asyncio.shield(self._revoke(named, holder))

    async def _make(self, asked: NewKey, holder: Holder) -> MadeKey:
        self._check(asked)
        scopes = tuple(dict.fromkeys(map(scope_of, asked.scopes)))
        refused = may_manage(holder, scopes)
        if refused is not None:
            raise refused
        now = self._clock.now()
        expires_at = now + asked.expires_s if asked.expires_s is not None else None
        secret = _drawn(SECRET_BYTES)
        async with self._writing:
            taken = next((key for key in self._keys.values() if key.name == asked.name and key.works(now)), None)
            if taken is not None:
                raise SwellError(
                    "key_taken",
                    f"There is a key {asked.name!r} already ({taken.id}). Revoke that one first, or choose another "
                    "name.",
                    status=409,
                )
            key = ApiKey(
                _drawn(ID_BYTES), asked.name, digest_of(secret.encode()), scopes, now, expires_at, None, asked.limits
            )
            await self._put(key)
        log.info("key %s (%s) was made: %s", key.id, key.name, ", ".join(map(str, scopes)))
        return MadeKey(row_of(key, now), token(key.id, secret))

    async def _revoke(self, named: str, holder: Holder) -> KeyRow:
        async with self._writing:
            key = self._named(named)
            refused = may_manage(holder, key.scopes)
            if refused is not None:
                raise refused
            if key.revoked_at is None:
                key = msgspec.structs.replace(key, revoked_at=self._clock.now())
                await self._put(key)
                log.info("key %s (%s) was revoked", key.id, key.name)
        return row_of(key, self._clock.now())

    async def _put(self, key: ApiKey) -> None:
        """On disk before anybody is told."""
        await asyncio.to_thread(self._store.put, key)
        self._keys[key.id] = key
        self._tell(key)

    def _named(self, named: str) -> ApiKey:
        found = self._keys.get(named)
        if found is not None:
            return found
        now = self._clock.now()
        # Of several of one name only the newest can work.
        same = [key for key in self._keys.values() if key.name == named]
        if not same:
            raise SwellError(
                "unknown_key", f"There is no key {named[:100]!r}. `swell key list` shows those there are.", status=404
            )
        return next((key for key in same if key.works(now)), same[-1])

    @staticmethod
    def _check(asked: NewKey) -> None:
        """Refuse what cannot be a key."""
        code, wrong = "bad_limit", limits_problem(asked.limits)
        if not _NAME.fullmatch(asked.name):
            code, wrong = "invalid", "its name must have 1 to 63 letters, digits, dots, dashes, underscores and spaces"
        elif not 0 < len(asked.scopes) <= SCOPES_MAX:
            code, wrong = "bad_scope", f"it must have 1 to {SCOPES_MAX} scopes, such as call:default/ocr"
        elif asked.expires_s is not None and not 0 < asked.expires_s <= SECONDS_MAX * 100:
            code, wrong = (
                "bad_limit",
                f"expires_s must be above 0, not {asked.expires_s:g}; without it the key does not expire",
            )
        if wrong:
            raise SwellError(code, f"The key cannot be made: {wrong}.", status=422)


def row_of(key: ApiKey, now: float) -> KeyRow:
    """A key as people see it."""
    scopes = tuple(map(str, key.scopes))
    state: Literal["works", "expired", "revoked"] = "works" if key.works(now) else "expired"
    if key.revoked_at is not None:
        state = "revoked"
    return KeyRow(key.id, key.name, scopes, state, key.created_at, key.expires_at, key.revoked_at, key.limits)


def _drawn(size: int) -> str:
    """So many random bytes in base 32, small letters; no padding, since sizes are multiples of five."""
    return base64.b32encode(secrets.token_bytes(size)).decode().lower()
