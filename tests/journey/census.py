"""Does what the platform says of itself agree with what is there? Processes, sockets, records and cgroups, counted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from private_swell import Failed, PrivateSwell
from swell.runtime.runner.secrets import files_folder

OWN = ("swell.supervise", "swell.serve control", "swell.serve gateway", "swell.runtime.runner")
"""What the commands of the platform's own processes hold; every other process is a replica or template."""


def groups(home: Path) -> list[Path]:
    """Folders of this server's control groups, in every hierarchy."""
    name = "swell-" + hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]
    # Groups come and go meanwhile: `rglob` stumbles over that.
    return [Path(folder, name) for folder, inner, _ in os.walk("/sys/fs/cgroup") if name in inner]


def unreconciled(swell: PrivateSwell) -> list[str]:
    """Every way in which what it says and the machine differ; empty when they agree."""
    try:
        rows = swell.replicas()
    except Failed as failure:
        return [str(failure)]
    wrong = [f"{row['id']} is {row['phase']}" for row in rows if row["phase"] != "ready"]
    wrong += [f"{row['id']} has {row['in_flight']} in flight" for row in rows if row["in_flight"]]
    ids = {row["id"] for row in rows}
    said, there = {row["pid"] for row in rows}, set(replica_pids(swell))
    run = swell.home / "run"
    wrong += _differ("pids", said, there)
    serving = {f"{row['id']}.s" for row in rows if row["role"] == "serving"}
    wrong += _differ("sockets", serving, {path.name for path in (run / "r").iterdir()})
    records = {f"{id}.{kind}" for id in ids for kind in ("json", "log")}
    wrong += _differ("records", records, {path.name for path in (run / "p").iterdir()})
    for base in groups(swell.home):
        inside = [path for path in base.iterdir() if path.is_dir()]
        wrong += _differ(f"groups in {base.parent.name}", ids, {path.name.partition(".")[0] for path in inside})
        members = {int(pid) for path in inside for pid in (path / "cgroup.procs").read_text().split()}
        wrong += _differ(f"pids of {base.parent.name}", said, members)
    return wrong


def replica_pids(swell: PrivateSwell) -> list[int]:
    """Processes of replicas and templates, as the machine knows them."""
    return [one.pid for one in swell.processes() if not any(words in one.command for words in OWN)]


def supervisor(swell: PrivateSwell) -> int:
    (pid,) = (one.pid for one in swell.processes() if "swell.supervise" in one.command)
    return pid


def walls(swell: PrivateSwell) -> set[str]:
    """Namespaces that its processes have made for themselves: of sandboxes, of replicas that have volumes."""
    own = _namespaces("self")
    return {one for process in swell.processes() for one in _namespaces(str(process.pid)) - own}


def left_over(swell: PrivateSwell, walls: Collection[str] = ()) -> list[str]:
    """What a server that is down should not have left behind; `walls` are the namespaces that it had."""
    folders = (swell.home / "run" / "empty", swell.home / "mounts" / "views", files_folder(swell.home))
    sockets = Path("/proc/net/unix").read_text().splitlines()
    return [
        *(f"process {one}" for one in swell.processes()),
        *(f"group {path}" for path in groups(swell.home)),
        *(f"socket {line}" for line in sockets if f"{swell.home}/" in line),
        *(f"file {path}" for path in _files(swell.home / "run") if path.name not in ("runner.lock",)),
        *(f"temporary file {path}" for path in _files(swell.scratch)),
        *(f"folder {path}" for folder in folders if folder and folder.is_dir() for path in folder.iterdir()),
        *(f"mount {line}" for line in sorted(_mounts()) if f"{swell.home}/" in line),
        *(f"namespace {one}" for one in sorted(set(walls) & {one for pid in _pids() for one in _namespaces(pid)})),
    ]


def _pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _namespaces(pid: str) -> set[str]:
    """Those that a process is in, as far as may be looked at."""
    found = set()
    for kind in ("mnt", "pid", "net", "user", "ipc", "uts"):
        with suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
    return found


def _mounts() -> set[str]:
    """Of the whole machine, whoever sees them."""
    found: set[str] = set()
    for pid in _pids():
        with suppress(OSError):
            found.update(line.partition(" ")[2] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
    return found


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


def _differ(what: str, said: set, there: set) -> list[str]:
    if said == there:
        return []
    return [f"{what}: only said {sorted(said - there, key=str)}, only there {sorted(there - said, key=str)}"]
