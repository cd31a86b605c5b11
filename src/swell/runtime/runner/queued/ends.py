"""What came of calls, and was not heard by control yet? Kept until it was, on disk while control is away.

A runner that is killed meanwhile leaves it to the next one. Not synced: what is lost in a power cut is worked on again.
An end that is recorded, or on disk here, is safe: its replica need not keep it any more, and is told so.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from swell.runtime.runner.queued.large import PART
from swell.wire.calls import CallEnd, Ended, Lease
from swell.wire.paths import RESULT, Home

log = logging.getLogger("swell.runner")

KEPT_MAX = 256 * 1024 * 1024
"""Bytes that may wait to be heard, in memory and in files; beyond, no call is begun."""
UNHEARD_MAX = 16 * 1024 * 1024
"""Bytes that are said and not heard, at most, but for the last one: control is not sent more than it takes."""
EACH = 1024
"""Bytes that an end is taken to have beside its body."""
FRAME = 4 * 1024 * 1024
"""Bytes in one message at most, but for the last one."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(CallEnd)


class Ends:
    """Ends of calls, in the order in which they came."""

    def __init__(
        self,
        home: Home,
        send: Callable[[Ended], bool],
        room: Callable[[], None],
        safe: Callable[[str, tuple[Lease, ...]], None],
    ) -> None:
        """`send` is False where nobody listens. `room`: calls may be begun again. `safe` is told which ends are, by
        replica."""
        self._home = home
        self._folder = home.call_ends
        self._send = send
        self._room = room
        self._safe = safe
        self._kept: dict[Lease, CallEnd] = {}
        self._said: dict[Lease, None] = {}
        self._unsaid: dict[Lease, None] = {}
        self._written: set[Lease] = set()
        self.unreadable: set[Lease] = set()
        """What an earlier runner left of these cannot be read."""
        self._bytes = 0
        self._said_bytes = 0
        self._soon = False
        self._away = True
        self._failed = False

    def __contains__(self, lease: Lease) -> bool:
        return lease in self._kept

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._kept)

    @property
    def full(self) -> bool:
        return self._bytes >= KEPT_MAX

    @property
    def awaited(self) -> bool:
        """Something is about to be heard."""
        return bool(self._kept) and not self._away

    def read(self) -> None:
        """What an earlier runner left."""
        for path in sorted(self._folder.iterdir()):
            if path.name.endswith(RESULT) or path.name.startswith(PART):
                continue
            try:
                end = _decoder.decode(path.read_bytes())
            except (OSError, msgspec.MsgspecError):
                end = None
            if end is None or path != self._path((end.id, end.token)):
                id, _, token = path.name.rpartition("-")
                if token.isdecimal():
                    self.unreadable.add((id, int(token)))
                path.unlink(missing_ok=True)
                continue
            self._written.add((end.id, end.token))
            self._keep(end)
        named = {self._home.call_result(*lease) for lease in self._kept}
        for path in self._folder.iterdir():
            if path not in named and (path.name.endswith(RESULT) or path.name.startswith(PART)):
                # Its replica has it, as it was told nothing else.
                path.unlink(missing_ok=True)

    def is_safe(self, lease: Lease) -> bool:
        """Would it outlive this runner?"""
        return lease in self._written

    def add(self, end: CallEnd, at_once: bool = False) -> None:
        """A call has ended; control hears of it with all others that end in this turn of the loop. `at_once`: it is to
        be safe without waiting for that."""
        self._keep(end)
        if self._away or at_once:
            self._write([end])
        if self._away:
            return
        if not self._soon:
            self._soon = True
            asyncio.get_running_loop().call_soon(self.flush)

    def heard(self, leases: Iterable[Lease]) -> None:
        """These are recorded, or nobody needs them."""
        was_full = self.full
        safe: dict[str, list[Lease]] = {}
        for lease in leases:
            end = self._kept.pop(lease, None)
            if end is None:
                continue
            self._bytes -= _size(end) + end.size
            if end.size:
                self._home.call_result(*lease).unlink(missing_ok=True)
            self._unsaid.pop(lease, None)
            if lease in self._said:
                del self._said[lease]
                self._said_bytes -= _awaited(end)
            if lease in self._written:
                self._written.discard(lease)
                self._path(lease).unlink(missing_ok=True)
            else:
                safe.setdefault(end.replica, []).append(lease)
        for replica, those in safe.items():
            self._safe(replica, tuple(those))
        self.flush()
        if was_full and not self.full:
            self._room()

    def welcomed(self) -> None:
        """Control is back: all is said again."""
        self._away = False
        self._unsaid = dict.fromkeys(self._kept)
        self._said = {}
        self._said_bytes = 0
        self.flush()

    def lost(self) -> None:
        """Control is away."""
        self._away = True
        self._write(end for lease, end in self._kept.items() if lease not in self._written)

    def secure(self, replica: str) -> None:
        """What this one told is to be safe now: it waits for that with its end."""
        unsafe = (end for lease, end in self._kept.items() if end.replica == replica and lease not in self._written)
        self._write([end for end in unsafe if had(end)])

    def flush(self) -> None:
        """Say what was not said, as far as control has room."""
        self._soon = False
        while self._unsaid and not self._away and self._said_bytes < UNHEARD_MAX:
            batch: list[CallEnd] = []
            size = 0
            for lease in self._unsaid:
                batch.append(self._kept[lease])
                size += _size(batch[-1])
                if size >= FRAME:
                    break
            if not self._send(Ended(tuple(batch))):
                return
            for end in batch:
                del self._unsaid[end.id, end.token]
                self._said[end.id, end.token] = None
            self._said_bytes += sum(map(_awaited, batch))

    def _keep(self, end: CallEnd) -> None:
        lease = end.id, end.token
        self._kept[lease] = end
        self._unsaid[lease] = None
        self._bytes += _size(end) + end.size

    def _path(self, lease: Lease) -> Path:
        return self._folder / f"{lease[0]}-{lease[1]}"

    def _write(self, ends: Iterable[CallEnd]) -> None:
        """For the next runner. Where that cannot be (a full disk) this one has them all the same."""
        safe: dict[str, list[Lease]] = {}
        for end in ends:
            if self._write_one(end):
                safe.setdefault(end.replica, []).append((end.id, end.token))
        for replica, leases in safe.items():
            self._safe(replica, tuple(leases))

    def _write_one(self, end: CallEnd) -> bool:
        lease = end.id, end.token
        path = self._path(lease)
        fresh = path.with_name(f"{path.name}.tmp")
        try:
            fresh.write_bytes(_encoder.encode(end))
            os.replace(fresh, path)
        except OSError as error:
            if not self._failed:
                log.warning("what came of queued calls cannot be noted down: %s", error.strerror)
            self._failed = True
            fresh.unlink(missing_ok=True)
            return False
        self._failed = False
        self._written.add(lease)
        return True


def had(end: CallEnd) -> bool:
    """Did its replica begin it?"""
    return end.code != "drained"


def _size(end: CallEnd) -> int:
    """Bytes that are told of it."""
    return EACH + len(end.body.data)


def _awaited(end: CallEnd) -> int:
    """Bytes that others wait for. A member's result is recorded when its whole gang has ended, in hours maybe."""
    return 0 if end.members else _size(end)
