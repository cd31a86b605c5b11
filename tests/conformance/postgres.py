"""A PostgreSQL server of a test's own, on a socket in a folder that goes with it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = "nobody"
"""The server refuses to be root."""


def programs() -> Path:
    """The folder of `initdb` and `postgres`, of the newest version that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return found[-1] if found else Path(shutil.which("initdb") or "/nowhere/initdb").parent


@contextmanager
def server() -> Iterator[str]:
    """The folder of its socket."""
    folder = Path(tempfile.mkdtemp(prefix="sw-pg", dir="/tmp"))
    user = pwd.getpwnam(NOBODY) if os.geteuid() == 0 else pwd.getpwuid(os.getuid())
    os.chown(folder, user.pw_uid, user.pw_gid)
    who = {"user": user.pw_uid, "group": user.pw_gid} if os.geteuid() == 0 else {}
    data = folder / "data"
    try:
        made = [programs() / "initdb", "-D", data, "-U", "swell", "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd=folder, **who)  # type: ignore[call-overload]
        control = [programs() / "pg_ctl", "-D", data, "-w"]
        options = f"-c listen_addresses='' -c unix_socket_directories={folder}"
        log = folder / "log"
        started = [*control, "-t", "60", "-l", log, "-o", options, "start"]
        subprocess.run(started, check=True, stdout=subprocess.DEVNULL, cwd=folder, **who)  # type: ignore[call-overload]
        try:
            yield str(folder)
        finally:
            stopped = [*control, "-m", "immediate", "stop"]
            subprocess.run(stopped, check=True, stdout=subprocess.DEVNULL, cwd=folder, **who)  # type: ignore[call-overload]
    finally:
        shutil.rmtree(folder)


def emptied(folder: str) -> str:
    """Where its database is reached, which has nothing in it any more."""
    again = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
    asked = [programs() / "psql", "-q", "-h", folder, "-U", "swell", "-d", "postgres", "-c", again]
    subprocess.run(asked, check=True, stderr=subprocess.DEVNULL)
    return f"postgresql://swell@/postgres?host={folder}"
