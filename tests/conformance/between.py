"""A socket between a client and its PostgreSQL server, which breaks when a test says so."""

from __future__ import annotations

import select
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = ".s.PGSQL.5432"
READY = b"Z\0\0\0\5"
"""How a message begins by which a server says that it is ready for the next question."""


class Between:
    """What comes from either side is passed on."""

    def __init__(self, there: str, here: str) -> None:
        self.dsn = f"postgresql://swell@/postgres?host={here}"
        self.cut = ""
        """The next commit breaks "before" the server hears of it, or "after" it was made; empty: it does not."""
        self.away = False
        """Nobody is let through."""
        self.silent = False
        """Nothing is passed on, and whoever comes is taken and hears nothing, as where a machine vanished."""
        self.commits = 0
        self.answers = 0
        """How often the server had done all that it was asked for, and waited for more: round trips."""
        self._there = f"{there}/{NAME}"
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._held: list[socket.socket] = []
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(f"{here}/{NAME}")
        self._door.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        """Every connection breaks now."""
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.away = True
        # A thread that waits in it would not hear of its end.
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        self.drop()
        for each in self._held:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            if self.away:
                client.close()
                continue
            if self.silent:
                self._held.append(client)
                continue
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._there)
            except OSError:
                client.close()
                continue
            self._pairs.append((client, server))
            threading.Thread(target=self._pass, args=(client, server), daemon=True).start()

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        breaks = False
        with client, server, suppress(OSError):
            while True:
                for end in select.select([client, server], [], [])[0]:
                    data = end.recv(1 << 16)
                    if not data:
                        return
                    if self.silent:
                        continue
                    if end is client and b"COMMIT\0" in data:
                        self.commits += 1
                        cut, self.cut = self.cut, ""
                        if cut == "before":
                            return
                        breaks = cut == "after"
                    elif end is server and breaks:
                        return
                    elif end is server:
                        self.answers += data.count(READY)
                    (server if end is client else client).sendall(data)


@contextmanager
def between(there: str) -> Iterator[Between]:
    with tempfile.TemporaryDirectory(prefix="sw", dir="/tmp") as here:
        Path(here).chmod(0o700)
        made = Between(there, here)
        try:
            yield made
        finally:
            made.close()
