"""Where does a server listen? Sockets bound once, by the supervisor, so that they outlive the processes behind them."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

from swell.model.errors import SwellError

BACKLOG = 1024
"""Connections the kernel keeps while the process behind a socket is being started again."""
_LISTENING = "0A"


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 picks a free one. Raises SwellError that says what is in the way."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise SwellError("bad_host", f"There is no address for host {host!r}: {error}. Set --host.") from None
    listener = socket.socket(family, kind, protocol)
    try:
        # A port whose last server just ended is free; one that somebody listens on is still refused.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise SwellError(
                "port_in_use",
                f"Port {port} on {host} is in use{_by_whom(port)}. "
                "Choose another with --port (0 picks a free one), or stop that process.",
                status=409,
            ) from None
        raise SwellError(
            "bad_host", f"Cannot listen on {host} port {port}: {error.strerror}. Set --host or --port."
        ) from None
    return listener


def reserve_tcp(host: str, port: int) -> socket.socket:
    """A TCP port that is kept for a process which binds it by itself, with SO_REUSEPORT; port 0 picks a free one.

    It is kept while the socket is open, also while that process is being started again. Raises SwellError as
    `listen_tcp` does: one that somebody else listens on is not shared.
    """
    with listen_tcp(host, port) as probe:
        address, family = probe.getsockname(), probe.family
    reserved = socket.socket(family, socket.SOCK_STREAM)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
    except OSError as error:
        reserved.close()
        raise SwellError("bad_host", f"Cannot keep port {address[1]} on {host}: {error.strerror}.") from None
    return reserved


def listen_unix(path: Path) -> socket.socket:
    """A listening unix socket. What an earlier server left at the path is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _by_whom(port: int) -> str:
    """ " by NAME (pid N)" where the system lets us see who listens on a TCP port; else nothing."""
    for pid in listening(port):
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            continue
        return f" by {name} (pid {pid})"
    return ""


def listening(port: int) -> list[int]:
    """Pids of the processes that listen on a TCP port, as far as /proc shows them."""
    if sys.platform != "linux":
        return []
    inodes = {f"socket:[{row[9]}]" for row in _tcp_rows() if row[3] == _LISTENING and row[1].endswith(f":{port:04X}")}
    found = []
    for folder in Path("/proc").glob("[0-9]*/fd") if inodes else ():
        try:
            if any(_link(entry) in inodes for entry in folder.iterdir()):
                found.append(int(folder.parent.name))
        except OSError:
            continue
    return sorted(found)


def _link(entry: Path) -> str:
    try:
        return os.readlink(entry)
    except OSError:
        return ""


def _tcp_rows() -> list[list[str]]:
    rows = []
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        rows += [line.split() for line in lines]
    return rows
