"""What is on the simulated disk? What was synced; beside it what was only committed, until the power goes.

Over the store of memory, or over a database of SQLite in a folder, of which a power cut leaves the bytes that were
synced and a part of what was written after them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Protocol

from swell.model.call_ports import CallRecords, Calls
from swell.model.errors import SwellError
from swell.store.memory import MemoryStore
from swell.store.sqlite import SqliteStore

MEMORY = Path("/dev/shm")
"""Files in memory, where the machine has them."""


class Medium(Protocol):
    """Where a store keeps its calls."""

    @property
    def store(self) -> MemoryStore | SqliteStore: ...

    def synced(self) -> None:
        """All that was committed is on disk."""
        ...

    def cut_power(self, chance: Random) -> bool:
        """What was not is lost, or some of it: True where a part was left."""
        ...

    def restart(self) -> None:
        """The process that had it open was killed."""
        ...

    def close(self) -> None: ...


class Memory:
    """Its dictionaries, and how they were when they were synced."""

    _PARTS = ("kept", "inputs", "results", "variants", "ends", "_by_key")

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.synced()

    def synced(self) -> None:
        calls = self.store.calls
        self._synced = {part: dict(getattr(calls, part)) for part in self._PARTS}
        self._numbered = calls._numbered

    def cut_power(self, chance: Random) -> bool:  # noqa: ARG002 (of the protocol)
        calls = self.store.calls
        for part, value in self._synced.items():
            setattr(calls, part, dict(value))
        calls._numbered = self._numbered
        return False

    def restart(self) -> None:
        """Nothing is lost with a process."""

    def close(self) -> None: ...


class Database:
    """Files of SQLite, and their bytes when they were synced."""

    def __init__(self) -> None:
        # What a power cut leaves is reckoned here: nothing need be synced in earnest.
        self._folder = tempfile.TemporaryDirectory(prefix="swell-sim-", dir=MEMORY if MEMORY.is_dir() else None)
        self._number = 0
        self._open()

    def synced(self) -> None:
        self._synced = self._bytes()

    def cut_power(self, chance: Random) -> bool:
        """The log may have any number of the bytes behind those that were synced: the last of its writes is torn."""
        data, log = self._synced
        now_data, now_log = self._bytes()
        synced = len(log)
        if now_data == data and now_log.startswith(log):
            log = now_log[: chance.randint(len(log), len(now_log))]
        self.store.close()
        self._number += 1
        self._path.write_bytes(data)
        self._log.write_bytes(log)
        self._open()
        return synced < len(log) < len(now_log)

    def restart(self) -> None:
        """As a process leaves them that is killed: the same bytes, and nobody has them open."""
        data, log = self._bytes()
        self.store.close()
        self._number += 1
        self._path.write_bytes(data)
        self._log.write_bytes(log)
        self._open()

    def close(self) -> None:
        self.store.close()
        self._folder.cleanup()

    @property
    def _path(self) -> Path:
        return Path(self._folder.name) / f"{self._number}.db"

    @property
    def _log(self) -> Path:
        return self._path.with_name(f"{self._path.name}-wal")

    def _open(self) -> None:
        self.store = SqliteStore(self._path)
        self.synced()

    def _bytes(self) -> tuple[bytes, bytes]:
        return self._path.read_bytes(), self._log.read_bytes() if self._log.exists() else b""


class Disk:
    """The `Store` port as far as the queue needs it, over a medium that fails when it is told to."""

    def __init__(self, medium: Medium) -> None:
        self.medium = medium
        self.full = ""
        """ "before" a write it fails, or "after" it was made; empty: it does not."""
        self.slow_s = 0.0
        """The longest that one access takes."""
        self.calls: Calls = _Calls(self)

    @property
    def call_records(self) -> CallRecords:
        return self.medium.store.call_records

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self.medium.store.transaction():
            yield
            self.fail("before")
        self.medium.synced()
        self.fail("after")

    def fail(self, when: str) -> None:
        """Where it is to fail now."""
        if self.full == when:
            raise SwellError("state_full", "There is no space left.", status=507)


class _Calls:
    """The `Calls` port: whatever the store under it is by now."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk.medium.store.calls, name)
