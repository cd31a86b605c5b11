"""Redis and PostgreSQL of a benchmark's own, in folders that go with them. Yields where they are, and their pid."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from bench import ROOT
from bench.kernel import family_cpu_s
from private_swell import free_port, wait_until

# Tests have servers of their own, too.
sys.path += [str(ROOT / "tests" / "sources"), str(ROOT / "tests" / "conformance")]

import postgres

import debian


class Server(NamedTuple):
    """One that runs."""

    url: str
    pid: int
    """Its first process: the others are below it."""


@contextmanager
def redis(durable: bool) -> Iterator[Server]:
    """As Redis is by default, in a folder on disk; `durable`: each write is synced before it is answered."""
    with ExitStack() as stack:
        if shutil.which("redis-server") is None:
            stack.enter_context(debian.unpacked("redis-server", "redis-server"))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sw-redis"))
        port = free_port()
        words = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", folder]
        words += ["--appendonly", "yes", "--appendfsync", "always"] if durable else []
        server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        try:
            answers = ["redis-cli", "-p", str(port), "ping"]
            wait_until("Redis answers", lambda: not subprocess.run(answers, capture_output=True).returncode, wait_s=30)
            yield Server(f"redis://127.0.0.1:{port}/0", server.pid)
        finally:
            server.send_signal(signal.SIGKILL)
            server.wait()


@contextmanager
def postgresql() -> Iterator[Server]:
    """As it is by default: each commit is synced."""
    with ExitStack() as stack:
        if not (postgres.programs() / "initdb").exists():
            stack.enter_context(debian.unpacked("postgresql", "initdb"))
        folder = stack.enter_context(postgres.server())
        pid = int((Path(folder) / "data" / "postmaster.pid").read_text().split()[0])
        yield Server(f"postgresql://swell@/postgres?host={folder}", pid)


def used_s(*pids: int) -> float:
    """CPU seconds of these processes and of all that came of them, but for what ended while it was asked."""
    total_s = 0.0
    for pid in _below(*pids):
        with suppress(OSError):
            total_s += family_cpu_s([pid])
    return total_s


@contextmanager
def syncs(*pids: int) -> Iterator[Callable[[], int]]:
    """How often these processes, and all that come of them, have synced a file to disk since. It is counted by strace,
    which stops them at each thing that they ask of the kernel: they are slower meanwhile."""
    with ExitStack() as stack:
        if shutil.which("strace") is None:
            stack.enter_context(debian.unpacked("strace", "strace"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sw-syncs")))
        told, said = folder / "told", folder / "said"
        traced = [word for pid in _below(*pids) for word in ("-p", str(pid))]
        words = ["strace", "-f", "-e", "trace=fsync,fdatasync", "-e", "signal=none", "-o", str(told), *traced]
        tracer = subprocess.Popen(words, stderr=stack.enter_context(said.open("wb")))
        try:
            # One that ended before is told of, too.
            wait_until("strace is attached", lambda: said.read_bytes().count(b"attach") >= len(traced) // 2, wait_s=30)
            yield lambda: len(re.findall(rb"^\d+ +(?:fsync|fdatasync)\(", told.read_bytes(), re.MULTILINE))
        finally:
            # It lets go of what it traces, and leaves it running.
            tracer.send_signal(signal.SIGINT)
            tracer.wait()


def _below(*pids: int) -> list[int]:
    """These processes, and all that came of them and is there."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry))
    found = [*pids]
    for pid in found:
        found += children.get(pid, [])
    return found
