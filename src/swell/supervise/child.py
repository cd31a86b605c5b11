"""How is one process of ours started, and what is known of it while it runs?"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from swell.wire.identity import identify

TAIL_LINES = 20
"""Last lines of a process that are shown when it does not come up or does not stay."""
_READ_BYTES = 65536
_LINE_MAX = 16 * 1024
"""A line longer than this is taken in pieces."""


_OWN_ERROR = re.compile(r"\S+ \S+ \S+ ERROR (.+)")
"""A line of an error as our processes log it: time, who, how bad, what."""


class Child(NamedTuple):
    """A process to keep running. "--ready-fd N" and "--supervisor-fd N" are added to `argv`."""

    name: str
    argv: Sequence[str]
    fds: Sequence[int] = ()
    """Descriptors it inherits, under the same numbers."""
    grace_s: float = 10.0
    """How long after SIGTERM it may take to end."""
    ready_s: float = 30.0
    """How long it may take to write a line "ready" to its ready descriptor, or before that one that says what it waits
    for: then there is no such bound."""
    stage: str = ""
    """Those of one stage start and stop together; empty: it has one of its own."""
    record: Path | None = None
    """File that names the running process, for a supervisor that comes after a crash."""
    environ: Mapping[str, str] | None = None
    """Its environment; that of the supervisor by default."""


class Process:
    """One child at work: its output, its readiness, its end."""

    def __init__(self, child: Child, supervisor_fd: int) -> None:
        """Start it, in a session of its own: a Ctrl-C at the terminal is for the supervisor alone.

        Raises OSError when it cannot be executed.
        """
        self.child = child
        self.ready = False
        self.waits_for = ""
        """What it said that it waits for before it can be ready."""
        self.late = False
        """It was killed because it was not ready in time."""
        self.status: int | None = None
        """How it ended, as os.waitstatus_to_exitcode gives it; None while it runs."""
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._word = b""
        """What came of a line on the ready descriptor."""
        self.ready_by = time.monotonic() + child.ready_s
        self._rest = b""
        self.output_fd, output = os.pipe()
        self.ready_fd, ready = os.pipe()
        fds = (*child.fds, ready, supervisor_fd)
        try:
            self._popen = subprocess.Popen(
                [*child.argv, "--ready-fd", str(ready), "--supervisor-fd", str(supervisor_fd)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=fds,
                env=child.environ,
                start_new_session=True,
            )
        except OSError:
            self.close()
            raise
        finally:
            os.close(output)
            os.close(ready)
        self.pid = self._popen.pid
        for fd in (self.output_fd, self.ready_fd):
            os.set_blocking(fd, False)
        identity = identify(self.pid)
        if child.record is not None and identity is not None:
            # Only a supervisor after a crash misses it: no reason to go down over a full disk.
            with suppress(OSError):
                identity.write(child.record)

    def read_output(self, final: bool = False) -> tuple[list[str], bool]:
        """(lines that are complete, whether there may be more). `final`: what is there is all there will be."""
        data = _read(self.output_fd)
        if data is None and not final:
            return [], True
        *lines, self._rest = (self._rest + (data or b"")).split(b"\n")
        if self._rest and (len(self._rest) > _LINE_MAX or final or not data):
            lines, self._rest = [*lines, self._rest], b""
        said = [line.decode(errors="replace") for line in lines]
        self.tail += said
        return said, bool(data)

    def read_ready(self) -> tuple[list[str], bool]:
        """Take what came on the ready descriptor in: (lines for people after "ready", whether there may be more)."""
        data = _read(self.ready_fd)
        *lines, self._word = (self._word + (data or b"")).split(b"\n")
        said = []
        for line in lines:
            if line == b"ready":
                self.ready = True
            elif self.ready:
                said.append(line.decode(errors="replace"))
            else:
                self.waits_for = line.decode(errors="replace")
        return said, data is None or bool(data)

    def ended(self, status: int) -> None:
        """It was waited for."""
        self.status = status
        # Popen must not wait for a pid that may be another process's by now.
        self._popen.returncode = status
        if self.child.record is not None:
            with suppress(OSError):
                self.child.record.unlink()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal. Safe while `status` is None: the pid stays ours until it is waited for."""
        if self.status is None:
            os.kill(self.pid, number)

    def how_it_ended(self) -> str:
        """ "exit code 1", "killed by SIGKILL", "not ready within 30 s"."""
        if self.late:
            return f"not ready within {self.child.ready_s:g} s"
        if self.status is None or self.status >= 0:
            return f"exit code {self.status}"
        try:
            return f"killed by {signal.Signals(-self.status).name}"
        except ValueError:
            return f"killed by signal {-self.status}"

    def last_words(self) -> str:
        """The sentence in which it said itself why it could not go on; else its last lines, or that there were none."""
        lines = [line for line in self.tail if line.strip()]
        said = _OWN_ERROR.fullmatch(lines[-1]) if lines else None
        if said is not None:
            return said[1]
        return "\n".join(["Its last lines:", *(f"    {line}" for line in lines)]) if lines else "It wrote nothing."

    def close(self) -> None:
        """Close our ends of its pipes."""
        for fd in (self.output_fd, self.ready_fd):
            os.close(fd)


def _read(fd: int) -> bytes | None:
    """What there is; empty at the end; None when there is nothing now."""
    try:
        return os.read(fd, _READ_BYTES)
    except BlockingIOError:
        return None
