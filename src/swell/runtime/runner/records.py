"""Which processes did the runner before this one own? One small file each, for the next to find."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from swell.model.gang import Seat
from swell.model.replica import Role
from swell.model.secret import SecretUse
from swell.runtime.runner.children import Child
from swell.wire.child import Mount
from swell.wire.identity import Identity

log = logging.getLogger("swell.runner")


class Record(msgspec.Struct, frozen=True):
    """What the next runner must know to take a process over."""

    replica: str
    pool: str
    role: Role
    pid: int
    start_ticks: int
    address: str
    template: str | None
    ordered_at: float
    ordered_monotonic_s: float
    """The same on the clock that all processes of this boot of the machine have, and that nobody sets."""
    startup_timeout_s: float
    group: str
    """Name of its cgroup."""
    uses: tuple[str, ...]
    """Folders in the cache that it runs from."""
    applied: tuple[str, ...] = ()
    isolated: bool = False
    seat: Seat | None = None
    gpus: tuple[str, ...] = ()
    meeting: str = ""
    fork_refused: str = ""
    """Why this template is not forked any more."""
    secrets: tuple[SecretUse, ...] = ()
    """Those it was told; not their values."""
    mounts: tuple[Mount, ...] = ()
    behind: tuple[Mount, ...] = ()
    snapped: bool = False
    max_inputs: int = 1

    @property
    def process(self) -> Identity:
        return Identity(self.pid, self.start_ticks)


def of(child: Child, pid: int, start_ticks: int) -> Record:
    """What there is to know of one."""
    return Record(
        replica=child.id,
        pool=child.pool,
        role=child.role,
        pid=pid,
        start_ticks=start_ticks,
        address=child.address,
        template=child.template,
        ordered_at=child.ordered_at,
        ordered_monotonic_s=child.ordered_monotonic_s,
        startup_timeout_s=child.startup_timeout_s,
        applied=child.applied,
        group=child.group_name,
        uses=child.uses,
        isolated=child.isolated,
        seat=child.seat,
        gpus=child.gpus,
        meeting=child.meeting,
        fork_refused=child.fork_refused,
        secrets=child.secrets,
        mounts=child.mounts,
        behind=child.behind,
        snapped=child.snapped,
        max_inputs=child.max_inputs,
    )


def write(folder: Path, record: Record) -> None:
    """Make or replace one record. Not synced: after a power cut there is no process to adopt either.

    Where it cannot be written (a full disk) the process runs all the same; it ends with this runner.
    """
    path = folder / f"{record.replica}.json"
    fresh = folder / f"{record.replica}.tmp"
    try:
        fresh.write_bytes(msgspec.json.encode(record))
        os.replace(fresh, path)
    except OSError as error:
        log.warning("%s could not be noted down: %s", record.replica, error.strerror)
        fresh.unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def read_all(folder: Path) -> list[Record]:
    """Every readable record; what cannot be read belongs to nobody and is removed."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Record))
        except (OSError, msgspec.DecodeError):
            path.unlink(missing_ok=True)
    return found


def remove(folder: Path, replica: str) -> None:
    (folder / f"{replica}.json").unlink(missing_ok=True)
