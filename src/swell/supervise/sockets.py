"""Where does a server listen? Sockets bound once, by the supervisor, so that they outlive the processes behind them."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterable
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


def listen_shared(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` listening sockets at one port, among which the kernel divides the connections that come.

    Each is for one process, and the connections that came to it wait in it while that process is started again. Where
    the kernel does not divide, all of them are one socket, and whoever is free takes from it. Raises SwellError as
    `listen_tcp` does: a port that somebody else listens on is not shared.
    """
    first = listen_tcp(host, port)
    if count == 1:
        return [first]
    if sys.platform != "linux":
        # Others have the option, and give all connections to one of those that listen.
        return [first, *(first.dup() for _ in range(count - 1))]
    address, family = first.getsockname(), first.family
    first.close()
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            made.append(socket.socket(family, socket.SOCK_STREAM))
            # Both: what is left of connections here must not be in the way of the next server, of one gateway too.
            made[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made[-1].bind(address)
            made[-1].listen(BACKLOG)
    except OSError as error:
        close(made)
        words = f"Cannot listen on {host} port {address[1]} with {count} gateways: {error.strerror}. Try --gateways 1."
        raise SwellError("bad_host", words) from None
    return made


def close(listeners: Iterable[socket.socket]) -> None:
    """Here: what inherited them may go on."""
    for listener in listeners:
        listener.close()


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
