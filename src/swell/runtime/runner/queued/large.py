"""Where does a result go that is too large to be sent to control? Into a file, beside what is told of its call.

It is written as it comes, so that no part of it stays in memory. Control takes the file when it records the result, by
its digest; it is removed when that was heard.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from io import FileIO
from pathlib import Path

PART = ".part-"
"""How the names of files begin that are not whole."""


class Large:
    """One, as far as it came. Where it cannot be written (on a full disk) nothing of it is kept."""

    def __init__(self, folder: Path) -> None:
        self.size = 0
        """Bytes."""
        self._digest = hashlib.sha256()
        self._file: FileIO | None = None
        self._name: str | None = None
        try:
            descriptor, self._name = tempfile.mkstemp(prefix=PART, dir=folder)
            self._file = FileIO(descriptor, "wb")
        except OSError:
            self.drop()

    def write(self, data: bytes | bytearray) -> None:
        """More of it."""
        self.size += len(data)
        if self._file is None:
            return
        self._digest.update(data)
        try:
            with memoryview(data) as whole:
                written = 0
                while written < len(whole):
                    written += self._file.write(whole[written:]) or 0
        except OSError:
            self.drop()

    def settle(self, path: Path) -> str:
        """It is whole, and gets that name: its digest; empty where it could not be written."""
        if self._file is None or self._name is None:
            return ""
        self._file.close()
        try:
            os.replace(self._name, path)
        except OSError:
            self.drop()
            return ""
        self._file = self._name = None
        return f"sha256-{self._digest.hexdigest()}"

    def read(self) -> bytes:
        """All of it that could be written."""
        return Path(self._name).read_bytes() if self._name is not None else b""

    def drop(self) -> None:
        """Nobody wants it, unless it has another name."""
        if self._file is not None:
            self._file.close()
        if self._name is not None:
            with suppress(OSError):
                os.unlink(self._name)
        self._file = self._name = None
