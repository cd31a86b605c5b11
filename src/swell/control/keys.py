"""Which API keys are there? Made, listed and revoked here; on disk first, then known to every gateway.

The secret of a key is in the answer to who had it made, and nowhere else: not in the store, a log or an event.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import secrets
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from swell.decide.access import Holder, Key, may_manage, standing
from swell.decide.lineage import end_of, lineage, may_make
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
        return [self._row(key) for key in self._seen(holder)]

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
        own = self._keys.get(holder.id)
        maker = lineage(own, self._keys.get) if own is not None else ()
        refused = may_make(maker)
        if refused is not None:
            raise refused
        expires_at = end_of(asked.expires_s, maker, now)
        secret = _drawn(SECRET_BYTES)
        async with self._writing:
            # What others have called theirs that who asks may not see is none of their business.
            taken = next((key for key in self._seen(holder) if key.name == asked.name and self._works(key)), None)
            if taken is not None:
                raise SwellError(
                    "key_taken",
                    f"There is a key {asked.name!r} already ({taken.id}). Revoke that one first, or choose another "
                    "name.",
                    status=409,
                )
            key = ApiKey(
                _drawn(ID_BYTES),
                asked.name,
                digest_of(secret.encode()),
                scopes,
                now,
                expires_at,
                limits=asked.limits,
                made_by=holder.id,
            )
            await self._put(key)
        by = f" with {key.made_by}" if key.made_by else ""
        log.info("key %s (%s) was made%s: %s", key.id, key.name, by, ", ".join(map(str, scopes)))
        return MadeKey(self._row(key), token(key.id, secret))

    async def _revoke(self, named: str, holder: Holder) -> KeyRow:
        async with self._writing:
            key = self._named(named, holder)
            if key.revoked_at is None:
                key = msgspec.structs.replace(key, revoked_at=self._clock.now())
                await self._put(key)
                log.info("key %s (%s) was revoked", key.id, key.name)
        return self._row(key)

    async def _put(self, key: ApiKey) -> None:
        """On disk before anybody is told."""
        await asyncio.to_thread(self._store.put, key)
        self._keys[key.id] = key
        self._tell(key)

    def _seen(self, holder: Holder) -> Iterator[ApiKey]:
        """Those that the holder of a key may manage. Of all others nothing is told, not even that they are there."""
        return (key for key in self._keys.values() if may_manage(holder, key.scopes) is None)

    def _works(self, key: ApiKey) -> bool:
        return standing(key, self._keys.get, self._clock.now()).key is Key.OURS

    def _named(self, named: str, holder: Holder) -> ApiKey:
        seen = list(self._seen(holder))
        same = [key for key in seen if key.id == named] or [key for key in seen if key.name == named]
        if not same:
            words = f"There is no key {named[:100]!r} that yours may manage. `swell key list` shows those there are."
            raise SwellError("unknown_key", words, status=404)
        work = [key for key in same if self._works(key)]
        if len(work) > 1:
            which = ", ".join(f"{key.id} ({', '.join(map(str, key.scopes))})" for key in work)
            words = f"There are {len(work)} keys called {named[:100]!r}: {which}. Name the one that is meant by its id."
            raise SwellError("key_ambiguous", words, status=409)
        return work[0] if work else same[-1]

    def _row(self, key: ApiKey) -> KeyRow:
        """A key as people see it."""
        state: Literal["works", "expired", "revoked"] = "works"
        stands = standing(key, self._keys.get, self._clock.now()).key
        if stands is not Key.OURS:
            state = "expired" if stands is Key.EXPIRED else "revoked"
        return KeyRow(
            key.id,
            key.name,
            tuple(map(str, key.scopes)),
            state,
            key.created_at,
            key.expires_at,
            key.revoked_at,
            key.limits,
            key.made_by,
        )

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


def _drawn(size: int) -> str:
    """So many random bytes in base 32, small letters; no padding, since sizes are multiples of five."""
    return base64.b32encode(secrets.token_bytes(size)).decode().lower()
