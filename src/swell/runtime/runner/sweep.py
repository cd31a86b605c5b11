"""What is left of replicas when the whole server was killed, and who ends it? `python -m swell.runtime.runner.sweep`.

For a state directory whose runner is gone and will not be followed by another: processes that are
recorded or in our cgroups are killed; groups, sockets, pipes and records are removed. While a runner
lives nothing is touched.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

from swell.runtime.runner import cgroup, processes, records
from swell.runtime.runner.cache import erase
from swell.runtime.runner.volumes import points
from swell.wire.paths import Home

_PATIENCE_S = 5.0
_PAUSE_S = 0.02


def sweep(home: Home) -> bool:
    """Leave nothing of this home's replicas; False when a runner lives, or something would not go."""
    try:
        lock = os.open(home.run / "runner.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _sweep(home)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)


def _sweep(home: Home) -> bool:
    for record in records.read_all(home.replica_records):
        if record.process.alive:
            record.process.signal(signal.SIGKILL)
            processes.kill_session(record.pid)
    groups = cgroup.find(cgroup.name_for(home.root))
    until = time.monotonic() + _PATIENCE_S
    gone = False
    while not gone and time.monotonic() < until:
        left = [group for group in map(groups.open, groups.names()) if not (group.kill() and group.remove())]
        gone = not left
        if left:
            time.sleep(_PAUSE_S)
    groups.remove()
    home.replica_groups.unlink(missing_ok=True)
    erase(home.mounts / "views")
    points.remove(home, ())
    for folder in (home.replica_sockets, home.replica_records):
        for path in folder.glob("*"):
            path.unlink(missing_ok=True)
    return gone


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="swell.runtime.runner.sweep", description="Remove what a killed server left.")
    parser.add_argument("--home", type=Path, required=True, help="state directory")
    return 0 if sweep(Home(parser.parse_args(words).home.absolute())) else 1


if __name__ == "__main__":
    sys.exit(main())
