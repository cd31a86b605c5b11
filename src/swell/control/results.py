"""Where is the result of a queued call that is too large for its row? In a file, which the row names by its digest.

A runner tells that it has such a result, and keeps it until it hears that it is recorded. It is taken in by the write
that records it, before that: a row never names what is not on disk, and what no row names, since the server ended in
between, is told, and taken in, once more. So it may go at any time.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from swell.model.call import Done, Outcome
from swell.model.call_ports import CallRecords
from swell.model.errors import SwellError
from swell.model.ports import Blobs
from swell.model.unknown import unknown_call
from swell.wire.calls import CallEnd

FREE_SHARE = 0.05
"""Of a small disk this much is left free where that is less."""
LOST = "Its result was in a file, which is not there any more."


class LargeResults(Protocol):
    """Those of one server."""

    def check_room(self) -> None:
        """SwellError results_full: of calls that come now no large result should be kept, too; state_full: there is
        little space left on the disk, for what is more urgent."""
        ...

    def there(self, end: CallEnd) -> CallEnd:
        """The end as it was told; where its result is lost, as one that came to nothing."""
        ...

    def take(self, outcomes: Iterable[Outcome]) -> None:
        """Have the large ones on disk: they are about to be recorded. In a thread. SwellError, and none need be."""
        ...

    def path(self, digest: str, id: str) -> str:
        """The file. SwellError unknown_call where it went with its call, this moment."""
        ...

    def sweep(self, some: bool) -> int:
        """Remove those that no call names; how many. Between two writes of the queue, in their thread: what one of them
        takes in it names. `some`: the state names any file. One that names none may have lost what it named."""
        ...


class Results:
    """`LargeResults` in a folder."""

    def __init__(
        self,
        blobs: Blobs,
        records: CallRecords,
        told: Callable[[str, int], Path],
        disk: Callable[[], tuple[int, int]] = lambda: (1, 1),
        free_min: int = 0,
    ) -> None:
        """`told`: where its runner has that of one hand-out. `disk`: bytes that are free on that of the state, and all
        that it has; where fewer than `free_min` are, no calls come."""
        self._blobs = blobs
        self._records = records
        self._told = told
        self._disk = disk
        self._free_min = free_min

    def check_room(self) -> None:
        """SwellError results_full, or state_full, where there is none."""
        free, size = self._disk()
        if free < min(self._free_min, FREE_SHARE * size):
            words = (
                f"The disk of the state directory has {free // 2**20} MiB left, which are for what runs, for deploys "
                "and for results (queue_free_mib). No further call is accepted until there is more: free some, or "
                "cancel calls that nobody wants."
            )
            raise SwellError("state_full", words, status=507)
        if self._blobs.full:
            words = (
                "The large results of queued calls take what they may (results_max_gib). They go when their callers "
                "have had them (map), or have expired. No further call is accepted until then; or have the server's "
                "operator allow more."
            )
            raise SwellError("results_full", words, status=507)

    def there(self, end: CallEnd) -> CallEnd:
        """The end, or that it is lost."""
        digest = end.body.digest
        if not digest or self._told(end.id, end.token).exists() or self._blobs.has(digest):
            return end
        return CallEnd(end.id, end.token, end.replica, "lease_expired", LOST)

    def take(self, outcomes: Iterable[Outcome]) -> None:
        """Link them here."""
        for each in outcomes:
            if isinstance(each, Done) and each.result.digest:
                path = self._told(each.id, each.token)
                try:
                    self._blobs.take(each.result.digest, str(path))
                except SwellError as error:
                    if error.code != "wrong_digest":
                        raise
                    # Torn, by a power cut say. The next time it is found to be lost.
                    with suppress(OSError):
                        os.unlink(path)
                    raise SwellError("state_failed", f"{path} was not as it was written.", status=503) from error

    def path(self, digest: str, id: str) -> str:
        """One that is here."""
        if not self._blobs.has(digest):
            raise unknown_call(id)
        return self._blobs.path(digest)

    def sweep(self, some: bool) -> int:
        """Remove those that no call names."""
        return self._blobs.sweep(set(self._records.digests()), math.inf) if some else 0
