"""How does a test put a server of actors on stage, watch it, and clear it away?"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from swell.wire.identity import children
from swell.wire.paths import Home

STAGE = str(Path(__file__).with_name("stage.py"))


class Stage:
    """One server of actors, and what it and they said."""

    def __init__(
        self, home: Path, parts: dict[str, list[str]], attached: list[int], settings: dict[str, object]
    ) -> None:
        self.home = Home(home)
        self._notes = home.with_suffix(".notes")
        argv = [sys.executable, STAGE, str(home), json.dumps(settings), json.dumps(parts), *map(str, attached)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def up(self) -> str:
        """Wait until it is ready; its URL."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline().split()
        assert said[:1] == ["up"], self.process.communicate()[1]
        return said[1]

    def end(self, *numbers: signal.Signals) -> tuple[int, str]:
        """Send signals, wait for the end: (exit code, stderr)."""
        for number in numbers:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said

    def hear(self, words: str) -> None:
        """Wait until its supervisor says so."""
        assert self.process.stderr is not None
        assert any(words in line for line in self.process.stderr), words

    @property
    def notes(self) -> list[str]:
        return self._notes.read_text().splitlines() if self._notes.exists() else []

    def pids(self, name: str, what: str = "up") -> list[int]:
        return [int(line.split()[2]) for line in self.notes if line.startswith(f"{name} {what} ")]

    def everyone(self) -> list[int]:
        return [int(line.split()[2]) for line in self.notes if line.split()[1] in ("up", "left")]

    def clear(self) -> None:
        if self.process.poll() is None:
            for pid in [self.process.pid, *children(self.process.pid)]:
                os.kill(pid, signal.SIGKILL)
            self.process.communicate()
        for pid in self.everyone():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)
