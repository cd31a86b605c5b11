"""Which walls can this node put up, and which does a workload get? Found out by putting them up, once."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from swell.model.errors import SwellError
from swell.model.isolation import LAYERS, Isolation
from swell.model.limits import SANDBOX_MEMORY_MIB, SANDBOX_PROCESSES_MAX, SANDBOX_SCRATCH_MAX_MIB
from swell.model.resources import Needs
from swell.model.workload import Revision
from swell.runtime.runner.cgroup import Group, Groups
from swell.runtime.runner.sandbox import bpf, start, view, walls
from swell.runtime.runner.sandbox.walls import Walls
from swell.wire.child import Mount
from swell.wire.identity import send_signal
from swell.wire.paths import Home

log = logging.getLogger("swell.runner")

_LIMITED = ("memory", "pids")
_NOTHING = view.View((), (), ("/tmp",))
_LOOK_S = 0.005


def bounded(needs: Needs, isolation: Isolation | None) -> Needs:
    """What a replica needs; in a sandbox always with a limit for its memory."""
    if isolation is None or needs.memory_limit_mib is not None:
        return needs
    return msgspec.structs.replace(needs, memory_limit_mib=max(SANDBOX_MEMORY_MIB, 2 * needs.memory_mib))


class Sandboxes:
    """The sandboxes of one server."""

    def __init__(self, home: Home, groups: Groups) -> None:
        self.home = home
        self.lacks: dict[str, str] = dict.fromkeys(LAYERS, "not tried yet")
        """Layer that this node cannot put up → why."""
        self._groups = groups
        self._privileged = walls.privileged()
        self._checks = 0
        self._dying: list[Group] = []
        """Groups of checks that could not be removed yet."""

    @property
    def layers(self) -> tuple[str, ...]:
        """What this node can put up."""
        return tuple(layer for layer in LAYERS if layer not in self.lacks)

    def probe(self) -> None:
        """Find out. Must be called in the runner's main thread, before anybody else waits for its children."""
        self.lacks = {}
        limited = [each for each in _LIMITED if each not in self._groups.bases]
        if limited:
            self.lacks["cgroups"] = f"{self._groups.missing or 'not there'}: nothing limits {' and '.join(limited)}"
        if os.uname().machine not in bpf.MACHINES:
            self.lacks["seccomp"] = f"there is no list of system calls for {os.uname().machine}"
        tried = tuple(layer for layer in LAYERS if layer != "cgroups" and layer not in self.lacks)
        if self._try(tried):
            for layer in tried:
                why = self._try((layer,))
                if why:
                    self.lacks[layer] = why
        for layer, why in self.lacks.items():
            log.info("no sandbox on this node has the layer %s: %s", layer, why)

    def _try(self, layers: tuple[str, ...]) -> str:
        """Why these cannot be put up; empty when they can."""
        around = Walls(layers, _NOTHING, str(self.home.empty), 1, self._privileged)
        try:
            pid, pidfd = start.run(around, False, _stay, {})
        except (OSError, SwellError, AttributeError) as error:
            return str(error).removeprefix("The sandbox could not be made: ").removesuffix(".")
        send_signal(pid, pidfd, signal.SIGKILL)
        os.close(pidfd)
        _reap(pid)
        return ""

    def around(
        self,
        revision: Revision,
        python: Path,
        folder: Path,
        environ: Mapping[str, str],
        mounts: tuple[Mount, ...] = (),
    ) -> Walls:
        """What to put around a process of this revision, whose source is in `folder`, and its volumes.

        Raises SwellError where a layer that it requires is not there.
        """
        isolation = revision.isolation
        assert isolation is not None
        missing = [layer for layer in isolation.layers if layer in self.lacks and layer in isolation.required]
        if missing:
            raise SwellError("not_available", f"this node lacks {missing[0]!r}: {self.lacks[missing[0]]}")
        seen = isolation
        if revision.environment.workdir is not None and os.path.isdir(revision.environment.workdir):
            seen = msgspec.structs.replace(isolation, readable=(*isolation.readable, revision.environment.workdir))
        return Walls(
            layers=self._had(isolation),
            view=view.of(seen, python, folder, self.home, environ.get("TMPDIR", "")),
            root=str(self.home.empty),
            scratch_mib=min(
                SANDBOX_SCRATCH_MAX_MIB, (bounded(revision.needs, isolation).memory_limit_mib or 0) // 4 or 1
            ),
            privileged=self._privileged,
            mounts=mounts,
        )

    @contextmanager
    def check(
        self, revision: Revision, python: Path, folder: Path, environ: Mapping[str, str]
    ) -> Iterator[tuple[Walls | None, tuple[str, ...]]]:
        """For the import at deploy, which is the first time that its code runs: walls, and what it joins."""
        if revision.isolation is None:
            yield None, ()
            return
        around = self.around(revision, python, folder, environ)
        self._checks += 1
        needs = bounded(revision.needs, revision.isolation)
        group = self._groups.create(f"check-{self._checks}", needs, SANDBOX_PROCESSES_MAX)
        try:
            yield around, group.membership
        finally:
            group.kill()
            self._dying = [each for each in (*self._dying, group) if not (each.kill() and each.remove())]

    def applied(self, isolation: Isolation | None) -> tuple[str, ...]:
        """In words, for people who look at a replica."""
        if isolation is None:
            return ()
        without = [layer for layer in isolation.layers if layer in self.lacks]
        said = (f"sandbox: {', '.join(self._had(isolation))}",)
        return (*said, f"sandbox without {', '.join(without)}") if without else said

    def _had(self, isolation: Isolation) -> tuple[str, ...]:
        return tuple(layer for layer in isolation.layers if layer not in self.lacks)


def _stay() -> None:
    signal.pause()


def _reap(pid: int) -> None:
    """It is our child where we are a subreaper; elsewhere somebody else waits for it."""
    for _ in range(200):
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
        except ChildProcessError:
            return
        time.sleep(_LOOK_S)
