"""Which processes belong to one Swell? `python examples/census.py STATE_DIRECTORY` lists them.

Whoever starts a Swell with `TMPDIR` set to `{state directory}/tmp` can count its processes without asking it:
the variable is handed down to every process it starts, templates and replicas included, however deep.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process that is running now. `started_at` is in seconds since the epoch."""

    pid: int
    started_at: float
    command: str

    def __str__(self) -> str:
        return f"{self.pid} {self.command}"


def mark(home: Path) -> dict[str, str]:
    """The environment variables to start a Swell with, so that its processes can be told from all others."""
    folder = home / "tmp"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {"SWELL_HOME": str(home), "TMPDIR": str(folder)}


def processes(home: Path) -> list[Process]:
    """Every live process marked as belonging to `home`, oldest first. This process is never among them."""
    found = _from_proc(home) if Path("/proc/self/environ").exists() else _from_ps(home)
    return sorted((one for one in found if one.pid != os.getpid()), key=lambda one: (one.started_at, one.pid))


def _from_proc(home: Path) -> list[Process]:
    marked = f"TMPDIR={home / 'tmp'}".encode()
    booted_at = next(float(line.split()[1]) for line in open("/proc/stat") if line.startswith("btime"))
    ticks = os.sysconf("SC_CLK_TCK")
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if marked not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
        found.append(Process(int(entry.name), booted_at + int(fields[19]) / ticks, command))
    return found


def _from_ps(home: Path) -> list[Process]:
    """Without /proc (macOS): `ps` shows the environment of one's own processes; ages come in whole seconds."""
    lines = subprocess.run(["ps", "-Eaxww", "-o", "pid=,etime=,command="], capture_output=True, text=True).stdout
    found = []
    for line in lines.splitlines():
        pid, age, command = line.split(None, 2)
        if f"TMPDIR={home / 'tmp'}" in command.split():
            found.append(Process(int(pid), time.time() - _seconds(age), command))
    return found


def _seconds(age: str) -> int:
    """Seconds of an age as `ps` prints it: [[days-]hours:]minutes:seconds."""
    days, _, clock = age.rpartition("-")
    total = 0
    for part in clock.split(":"):
        total = total * 60 + int(part)
    return total + int(days or 0) * 86400


if __name__ == "__main__":
    print(*processes(Path(sys.argv[1]).absolute()), sep="\n")
