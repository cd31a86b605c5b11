"""What does the kernel enforce and count for one replica? Control groups, version 1 and version 2.

`find` looks for a place where groups may be made and says why not where there is none. Every replica
then gets a `Group`: a folder per controller (v1) or one folder (v2) below `swell-…`.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from swell.model.limits import PROCESSES_MAX
from swell.model.resources import Needs

CONTROLLERS = ("memory", "cpu", "cpuacct", "pids")
_PERIOD_US = 100_000
_QUOTA_MIN_US = 1_000
_READ_BYTES = 64 * 1024


class Groups(msgspec.Struct, frozen=True):
    """Where one server makes its groups."""

    version: int
    bases: Mapping[str, Path]
    """Controller → our own folder. On version 2 it is the same folder for all."""
    missing: str = ""
    """Why some or all controllers cannot be used, for people; empty when all can."""

    def create(self, name: str, needs: Needs, processes: int | None = None) -> Group:
        """A group with the limits `needs` asks for. What could not be had is told in `Group.applied`."""
        group = self.open(name)
        for folder in dict.fromkeys(group.folders.values()):
            with suppress(FileExistsError):
                os.mkdir(folder)
        applied, unmet = _limit(group, needs, processes or PROCESSES_MAX, self.missing)
        return msgspec.structs.replace(group, applied=applied, unmet=unmet)

    def open(self, name: str) -> Group:
        """A group made before, by this runner or an earlier one."""
        return Group(self.version, {c: f"{base}/{name}" for c, base in self.bases.items()})

    def names(self) -> set[str]:
        """Every group that exists below our folders."""
        return {p.name for base in self.bases.values() if base.is_dir() for p in base.iterdir() if p.is_dir()}

    def remove(self) -> None:
        """Take our own (empty) folders away."""
        for base in dict.fromkeys(self.bases.values()):
            _rmdir(base)


class Group(msgspec.Struct, frozen=True):
    """One replica's groups. Every reading is None where its controller is not there."""

    version: int
    folders: Mapping[str, str]
    """Controller → folder. (Plain strings: these files are on the path of every wake and every second.)"""
    applied: tuple[str, ...] = ()
    unmet: tuple[str, ...] = ()
    """Controllers that were to limit something and could not."""

    @property
    def membership(self) -> tuple[str, ...]:
        """Files a process writes "0" into to join. (`tasks`: one thread, which is all it then has.)"""
        name = "tasks" if self.version == 1 else "cgroup.procs"
        return tuple(f"{folder}/{name}" for folder in dict.fromkeys(self.folders.values()))

    def cpu_s(self) -> float | None:
        """CPU seconds used so far by everything that ever ran in it."""
        if self.version == 1:
            text = self._read("cpuacct", "cpuacct.usage")
            return int(text) / 1e9 if text else None
        used = _keyed(self._read("cpu", "cpu.stat")).get("usage_usec")
        return used / 1e6 if used is not None else None

    def memory_mib(self) -> float | None:
        """Memory charged to it now. What a fork shares with its template is charged to the template."""
        text = self._read("memory", "memory.usage_in_bytes" if self.version == 1 else "memory.current")
        return int(text) / 2**20 if text else None

    def oom_kills(self) -> int:
        """Processes the kernel killed in it for want of memory."""
        return _keyed(self._read("memory", "memory.oom_control" if self.version == 1 else "memory.events")).get(
            "oom_kill", 0
        )

    def pids(self) -> set[int]:
        """What runs in it. Every process joins all of its folders, so one of them tells."""
        for controller in self.folders:
            return set(map(int, self._read(controller, "cgroup.procs").split()))
        return set()

    def kill(self) -> bool:
        """SIGKILL everything in it; True when nothing was left to kill. Repeat until then: it may fork."""
        left = self.pids()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return not left

    def remove(self) -> bool:
        """Take its folders away; False while something still dies in it."""
        removed = [_rmdir(folder) for folder in dict.fromkeys(self.folders.values())]
        return all(removed)

    def _read(self, controller: str, name: str) -> str:
        folder = self.folders.get(controller)
        if folder is None:
            return ""
        try:
            descriptor = os.open(f"{folder}/{name}", os.O_RDONLY)
        except OSError:
            return ""
        try:
            parts = []
            while part := os.read(descriptor, _READ_BYTES):
                parts.append(part)
            return b"".join(parts).decode().strip()
        except OSError:
            return ""
        finally:
            os.close(descriptor)


def name_for(home: Path) -> str:
    """What one server calls its groups: servers of other homes are never touched."""
    return "swell-" + hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]


def find(name: str, mounts: str | None = None, own: str | None = None) -> Groups:
    """Where groups called `name` can be made. `mounts`, `own`: texts of /proc/self/{mounts,cgroup}."""
    mounted = _mounts(Path("/proc/self/mounts") if mounts is None else mounts)
    paths = _own(Path("/proc/self/cgroup") if own is None else own)
    if not mounted:
        return Groups(1, {}, "no cgroups on this system")
    if "" in mounted and not any(c in mounted for c in CONTROLLERS):
        return _find_v2(name, mounted[""], paths.get("", "/"))
    bases = {}
    for controller in CONTROLLERS:
        if controller in mounted:
            base = _first_writable(name, mounted[controller], paths.get(controller, "/"))
            if base is not None:
                bases[controller] = base
    lacking = [c for c in CONTROLLERS if c not in bases]
    return Groups(1, bases, f"cgroups not writable: {', '.join(lacking)}" if lacking else "")


def _find_v2(name: str, mount: Path, own: str) -> Groups:
    """The first folder that delegates the controllers to its children: the root, our own, its parent."""
    here = mount / own.lstrip("/")
    why = "cgroups not writable"
    for folder in dict.fromkeys((mount, here, here.parent)):
        try:
            _delegate(folder)
            base = folder / name
            base.mkdir(exist_ok=True)
            _delegate(base)
        except OSError as error:
            why = f"cgroups not writable ({folder}: {error.strerror})"
            continue
        return Groups(2, dict.fromkeys(CONTROLLERS, base))
    return Groups(2, {}, why)


def _delegate(folder: Path) -> None:
    """Let the folder's children have the controllers."""
    control = folder / "cgroup.subtree_control"
    lacking = {"memory", "cpu", "pids"} - set(control.read_text().split())
    if lacking:
        control.write_text(" ".join(f"+{c}" for c in sorted(lacking)))


def _first_writable(name: str, mount: Path, own: str) -> Path | None:
    for folder in dict.fromkeys((mount, mount / own.lstrip("/"))):
        base = folder / name
        try:
            base.mkdir(exist_ok=True)
        except OSError:
            continue
        if os.access(base, os.W_OK):
            return base
    return None


def _mounts(source: str | Path) -> dict[str, Path]:
    """Controller → mount point; "" is the version 2 hierarchy."""
    found: dict[str, Path] = {}
    for line in _text(source).splitlines():
        fields = line.split()
        if len(fields) < 4:
            continue
        if fields[2] == "cgroup2":
            found[""] = Path(fields[1])
        elif fields[2] == "cgroup":
            found.update({option: Path(fields[1]) for option in fields[3].split(",") if option in CONTROLLERS})
    return found


def _own(source: str | Path) -> dict[str, str]:
    """Controller → path of the group we are in; "" is version 2."""
    found = {}
    for line in _text(source).splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _text(source: str | Path) -> str:
    if isinstance(source, str):
        return source
    try:
        return source.read_text()
    except OSError:
        return ""


def _limit(group: Group, needs: Needs, processes: int, missing: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write the limits; returns in words what holds and what does not, and the controllers of the latter."""
    version = f"cgroup v{group.version}"
    wanted: list[tuple[str, str, str, tuple[tuple[str, str], ...]]] = [
        ("pids", "process", f"{processes} processes", (("pids.max", str(processes)),))
    ]
    if needs.memory_limit_mib is not None:
        files = _memory_files(group.version, needs.memory_limit_mib)
        wanted.append(("memory", "memory", f"memory {needs.memory_limit_mib} MiB", files))
    if needs.cpu_limit is not None:
        wanted.append(("cpu", "cpu", f"cpu {needs.cpu_limit:g} cores", _cpu_files(group.version, needs.cpu_limit)))
    said, unmet = [], []
    for controller, noun, words, files in wanted:
        why = missing or "cgroups not writable"
        folder = group.folders.get(controller)
        if folder is not None:
            try:
                _write(folder, files)
                said.append(f"{words} ({version})")
                continue
            except OSError as error:
                why = f"{version}: {error.strerror}"
        said.append(f"no {noun} limit: {why}")
        unmet.append(controller)
    return tuple(said), tuple(unmet)


def _write(folder: str, files: tuple[tuple[str, str], ...]) -> None:
    """The first file is the limit itself; the others only exist on some kernels (swap accounting, say)."""
    for n, (name, value) in enumerate(files):
        path = f"{folder}/{name}"
        if n == 0 or os.path.exists(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                os.write(descriptor, value.encode())
            finally:
                os.close(descriptor)


def _memory_files(version: int, mib: int) -> tuple[tuple[str, str], ...]:
    limit = str(mib * 2**20)
    if version == 2:
        return (("memory.max", limit), ("memory.swap.max", "0"), ("memory.oom.group", "1"))
    return (("memory.limit_in_bytes", limit), ("memory.memsw.limit_in_bytes", limit))


def _cpu_files(version: int, cores: float) -> tuple[tuple[str, str], ...]:
    quota = max(_QUOTA_MIN_US, int(cores * _PERIOD_US))
    if version == 2:
        return (("cpu.max", f"{quota} {_PERIOD_US}"),)
    return (("cpu.cfs_quota_us", str(quota)), ("cpu.cfs_period_us", str(_PERIOD_US)))


def _keyed(text: str) -> dict[str, int]:
    return {key: int(value) for key, _, value in (line.partition(" ") for line in text.splitlines()) if value.isdigit()}


def _rmdir(folder: Path | str) -> bool:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
