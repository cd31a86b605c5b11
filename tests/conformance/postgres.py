"""A PostgreSQL server of a test's own, on a socket in a folder that goes with it."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from debian import unpacked

NOBODY = "nobody"
"""The server refuses to be root."""
SHARED: list[str] = []
"""The one that the suites share, while there is one."""


def programs() -> Path:
    """The folder of `initdb` and `postgres`, of the newest version that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return found[-1] if found else Path(shutil.which("initdb") or "/nowhere/initdb").parent


@contextmanager
def server(*options: str) -> Iterator[str]:
    """The folder of its socket. `options`: settings of the server, as name=value."""
    with ExitStack() as stack:
        if not (programs() / "initdb").exists():
            stack.enter_context(unpacked("postgresql", "initdb"))
        yield stack.enter_context(_server(options))


@contextmanager
def standby(of: str) -> Iterator[str]:
    """The folder of another server's socket: it has what the one has, a moment later, and takes over by `promote`."""
    with _runs(["pg_basebackup", "-h", of, "-U", "swell", "-R", "-c", "fast"], ()) as folder:
        yield folder


def promote(folder: str) -> None:
    """A standby is one no longer."""
    _run(Path(folder), "pg_ctl", "-D", f"{folder}/data", "-w", "-t", "60", "promote")


def _server(options: Sequence[str]) -> AbstractContextManager[str]:
    made = ["initdb", "-U", "swell", "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust"]
    return _runs(made, ("listen_addresses=''", *options))


@contextmanager
def _runs(made: Sequence[str], options: Sequence[str]) -> Iterator[str]:
    """A server with the data that a program makes."""
    folder = Path(tempfile.mkdtemp(prefix="sw-pg", dir="/tmp"))
    user = pwd.getpwnam(NOBODY) if os.geteuid() == 0 else pwd.getpwuid(os.getuid())
    os.chown(folder, user.pw_uid, user.pw_gid)
    data = folder / "data"
    try:
        _run(folder, *made, "-D", str(data))
        with open(data / "postgresql.conf", "a") as file:
            for option in (f"unix_socket_directories='{folder}'", *options):
                file.write(f"{option}\n")
        start(str(folder))
        try:
            yield str(folder)
        finally:
            if (data / "postmaster.pid").exists():
                stop(str(folder))
    finally:
        shutil.rmtree(folder)


def start(folder: str) -> None:
    """Once more, after a stop."""
    _run(Path(folder), "pg_ctl", "-D", f"{folder}/data", "-w", "-t", "60", "-l", f"{folder}/log", "start")


def stop(folder: str, mode: str = "immediate") -> None:
    """As if it was killed, by default."""
    _run(Path(folder), "pg_ctl", "-D", f"{folder}/data", "-w", "-t", "60", "-m", mode, "stop")


def url(folder: str, user: str = "swell") -> str:
    """Where its database is reached."""
    return f"postgresql://{user}@/postgres?host={folder}"


def emptied(folder: str) -> str:
    """The same; nothing is in it any more, and nobody has it."""
    cut(folder)
    ask(url(folder), "DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO public")
    return url(folder)


def cut(folder: str) -> None:
    """Nobody has it any more, without having said so: as if their machines were gone."""
    others = "FROM pg_stat_activity WHERE pid != pg_backend_pid() AND usename != ''"
    ask(url(folder), f"SELECT pg_terminate_backend(pid, 30000) {others}")


def ask(dsn: str, statements: str) -> Any:
    """Run statements on a connection of their own; rows where it is one that gives some."""

    async def asked() -> Any:
        connection: Any = await asyncpg.connect(dsn)
        try:
            if ";" in statements:
                return await connection.execute(statements)
            return await connection.fetch(statements)
        finally:
            await connection.close()

    return asyncio.run(asked())


def _run(folder: Path, program: str, *words: str) -> None:
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam(NOBODY)
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    subprocess.run([programs() / program, *words], check=True, stdout=subprocess.DEVNULL, cwd=folder, **who)
