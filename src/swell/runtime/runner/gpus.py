"""Which GPUs has this machine, which process gets which of them, and how is it told?

A device belongs to one process at a time: a replica that is given one which another still has is started once that one
is over. What a process sees is said to it by `CUDA_VISIBLE_DEVICES`, which the driver's libraries heed.
"""

from __future__ import annotations

import csv
import logging
import re
import shutil
from collections.abc import Iterable, Mapping
from typing import Protocol

from swell.model import gpu
from swell.model.gpu import Gpu
from swell.runtime.runner import commands
from swell.runtime.runner.children import Child
from swell.runtime.runner.processes import Reaper
from swell.runtime.runner.spool import Spool
from swell.wire.settings import GPUS_FOUND, GPUS_NONE

log = logging.getLogger("swell.runner")

PROGRAM = "nvidia-smi"
QUERY = ("--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader")
FIND_S = 30.0
"""How long it may take to tell what there is: a driver that nothing keeps loaded is loaded for that."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
_LINES_MAX = 256
_SAID_MAX = 300
"""Characters that are logged of what it said."""


async def find(setting: str, reaper: Reaper, environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """The devices of this machine, as its operator says (the setting `gpus`) or else as the driver does. `environ`: the
    server's: where it says which devices the server may use, these are all."""
    if setting == GPUS_NONE:
        return ()
    found = await _ask_driver(reaper, environ) if setting == GPUS_FOUND else gpu.read(setting)
    return permitted(found, environ.get(VISIBLE))


async def _ask_driver(reaper: Reaper, environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    program = shutil.which(PROGRAM, path=environ.get("PATH"))
    if program is None:
        return ()
    said: list[str] = []
    try:
        status = await commands.run(reaper, [program, *QUERY], environ, said.append, FIND_S)
    except OSError as error:
        log.warning("this machine's GPUs are not known: %s cannot be run: %s", PROGRAM, error)
        return ()
    found = listed(said)
    if status != 0 or not found:
        how = f"took longer than {FIND_S:g} s" if status is None else f"ended with status {status}"
        log.warning("%s %s, and told of %d GPUs: %s", PROGRAM, how, len(found), " ".join(said)[:_SAID_MAX])
    return found


def listed(lines: Iterable[str]) -> tuple[Gpu, ...]:
    """The devices in what `nvidia-smi` printed. A line that is no device (a warning, one that is lost) is passed
    over."""
    found: dict[str, Gpu] = {}
    for row in csv.reader(list(lines)[:_LINES_MAX], skipinitialspace=True):
        if len(row) >= 3 and row[0].strip().isdecimal() and row[2].strip():
            index, uuid, model = (cell.strip() for cell in row[:3])
            size = re.match(r"\s*(\d+)", row[3]) if len(row) > 3 else None
            name = uuid if uuid.startswith("GPU-") else str(int(index))
            found[name] = Gpu(name, model, int(size[1]) if size is not None else 0)
    return tuple(found.values())


def permitted(found: tuple[Gpu, ...], visible: str | None) -> tuple[Gpu, ...]:
    """Those of these that `CUDA_VISIBLE_DEVICES` names, by number or by the beginning of a UUID; None: all."""
    if visible is None:
        return found
    names = [name.strip() for name in visible.split(",") if name.strip()]
    numbers = {int(name) for name in names if name.isdecimal()}
    uuids = tuple(name for name in names if name.startswith("GPU-"))
    return tuple(each for number, each in enumerate(found) if number in numbers or each.id.startswith(uuids))


class Owner(Protocol):
    """What the fleet is to what gives devices to its replicas."""

    spool: Spool
    children: dict[str, Child]
    """Everything that is not over, by id."""

    def begin(self, child: Child) -> None:
        """Make its process."""
        ...

    def report(self, child: Child) -> None:
        """Tell control how it is."""
        ...


class Gpus:
    """Those of one runner, and who has them."""

    def __init__(self, owner: Owner) -> None:
        self.found: tuple[Gpu, ...] = ()
        self.unseen = {VISIBLE: ""}
        """What hides the devices of this machine from a process, where it has some or that is not known yet."""
        self._owner = owner
        self._waiting: dict[str, Child] = {}
        """Those that were given what another still has; the first to come first."""

    def are(self, found: tuple[Gpu, ...]) -> None:
        """These are all that the machine has."""
        self.found = found
        self.unseen = {VISIBLE: ""} if found else {}

    def admit(self, child: Child) -> None:
        """Begin it, once nobody else has the devices that it was given."""
        holder = self._holder(child)
        if holder is None:
            self._owner.begin(child)
            return
        self._waiting[child.id] = child
        words = f"waits for a GPU that {holder.id} was given, until that has ended"
        self._owner.spool.note(child.pool, child.id, words)
        self._owner.report(child)

    def freed(self) -> None:
        """One is over: who waits for its devices may have them."""
        for child in list(self._waiting.values()):
            there = self._owner.children.get(child.id) is child
            if not there or self._holder(child) is None:
                waited = self._waiting.pop(child.id, None)
                # What it begins may fail at once, and be over.
                if there and waited is not None:
                    self._owner.begin(child)

    def _holder(self, child: Child) -> Child | None:
        """Who has one of its devices."""
        for other in self._owner.children.values() if child.gpus else ():
            if other is not child and other.id not in self._waiting and not set(child.gpus).isdisjoint(other.gpus):
                return other
        return None

    def given(self, child: Child) -> dict[str, str]:
        """What tells a process which devices it has. Numbers count as the driver lists them."""
        return {VISIBLE: ",".join(child.gpus), ORDER: "PCI_BUS_ID"} if child.gpus else {}

    def applied(self, child: Child) -> tuple[str, ...]:
        """In words, for people who look at a replica."""
        if not child.gpus:
            return ()
        models = dict.fromkeys(each.model for each in self.found if each.id in child.gpus)
        what = "GPU" if len(child.gpus) == 1 else f"{len(child.gpus)} GPUs"
        return (f"{what} {' and '.join(models) or 'not known any more'}: {', '.join(child.gpus)}",)
