"""What do our own processes say, where is it kept, and what of it does a terminal show?"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SIZE_MAX = 8 * 1024 * 1024
"""Bytes at which the log is turned over; one older file is kept."""

_LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
_STAMPED = re.compile(r"\d{4}-\d\d-\d\d[ T]")
_LEVEL_WITHIN = 64
"""A level stands near the start of a line; further on the word is only a word."""


def quiet(line: str, before: bool) -> bool:
    """Is this line of no concern to a terminal? Indented lines go with the line before them."""
    if line[:1].isspace() or not line:
        return before
    level = _LEVEL.search(line[:_LEVEL_WITHIN])
    return level is not None and level[1] in ("DEBUG", "INFO")


class Log:
    """home/logs/swell.log, and on a terminal what is worth a look."""

    def __init__(self, path: Path, show: Callable[[str], None], verbose: bool = False) -> None:
        """`show` takes lines for people; with `verbose` every line of every process goes there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._show = show
        self._verbose = verbose
        self._quiet: dict[str, bool] = {}
        self._redirected: list[int] = []
        self._open()

    def say(self, text: str) -> None:
        """The supervisor's own word, kept and shown."""
        self._keep("supervisor", text)
        self._tell(text)

    def heard(self, name: str, line: str) -> None:
        """One line that a process wrote."""
        self._keep(name, line)
        self._quiet[name] = quiet(line, self._quiet.get(name, False))
        if self._verbose or not self._quiet[name]:
            self._tell(f"{name} | {line}")

    def redirect(self, fd: int) -> None:
        """Let what is written to this descriptor of ours go to the log as well."""
        self._redirected.append(fd)
        os.dup2(self._fd, fd)

    def close(self) -> None:
        os.close(self._fd)

    def _tell(self, line: str) -> None:
        # A terminal that went away must not end the server, let alone keep it from stopping in order.
        with suppress(OSError):
            self._show(line)

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._room = SIZE_MAX - os.fstat(self._fd).st_size
        for fd in self._redirected:
            os.dup2(self._fd, fd)

    def _keep(self, name: str, line: str) -> None:
        stamp = "" if _STAMPED.match(line) else f"{time.strftime('%Y-%m-%d %H:%M:%S')} {name} "
        text = f"{stamp}{line}\n".encode(errors="replace")
        # A full disk must not end the server; the terminal still shows what matters.
        with suppress(OSError):
            if self._room < len(text):
                self._turn_over()
            self._room -= os.write(self._fd, text)

    def _turn_over(self) -> None:
        """Go on in a new file. What cannot be moved aside may be gone already; where there is to be none, the old one
        is written on."""
        before = self._fd
        with suppress(OSError):
            self._path.replace(self._path.with_name(self._path.name + ".1"))
        with suppress(OSError):
            self._open()
            os.close(before)
