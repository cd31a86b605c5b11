"""What did a process receive, send and sync to disk, in which order? By strace, attached to it while it runs."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from debian import unpacked
from private_swell import Failed, wait_until

STRING_MAX = 1 << 20
_CALL = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?:\(| resumed>)")
_RECEIVES = frozenset({"recvfrom", "recvmsg", "read"})
_SENDS = frozenset({"sendto", "sendmsg", "write", "writev"})
_SYNCS = frozenset({"fsync", "fdatasync"})


class Step(NamedTuple):
    """One thing that it did; `received` and `synced` when it was over, `sent` when it was begun."""

    kind: Literal["received", "sent", "synced"]
    text: str
    """What was received or sent; strace writes what is not ASCII as escapes."""


class Trace:
    """Of one process, all its threads, while it is under way."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def steps(self) -> list[Step]:
        """All so far, in order."""
        found: list[Step] = []
        begun: dict[str, str] = {}
        """Thread → what it was in when another came to speak."""
        for line in self._file.read_text(errors="replace").splitlines():
            match = _CALL.match(line)
            if match is None:
                continue
            thread, name = match.groups()
            unfinished = line.endswith("<unfinished ...>")
            resumed = " resumed>" in line
            if name in _SENDS and not resumed:
                found.append(Step("sent", line))
            elif unfinished:
                begun[thread] = line
            elif name in _SYNCS and line.rstrip().endswith("= 0"):
                found.append(Step("synced", begun.pop(thread, line) if resumed else line))
            elif name in _RECEIVES:
                found.append(Step("received", line))
        return found


@contextmanager
def traced(pid: int) -> Iterator[Trace]:
    """A trace of that process. What was begun before may be missing."""
    with ExitStack() as stack:
        if shutil.which("strace") is None:
            stack.enter_context(unpacked("strace", "strace"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sw-trace")))
        calls = ",".join(sorted(_RECEIVES | _SENDS | _SYNCS))
        words = ["strace", "-f", "-p", str(pid), "-e", f"trace={calls}", "-e", "signal=none", "-s", str(STRING_MAX)]
        with (folder / "said").open("w+b") as said:
            tracer = subprocess.Popen([*words, "-y", "-o", str(folder / "trace")], stderr=said)
            try:
                wait_until("strace is attached", lambda: _attached(tracer, folder / "said"), wait_s=30)
                yield Trace(folder / "trace")
            finally:
                # It lets go of what it traces, and leaves it running.
                tracer.send_signal(signal.SIGINT)
                tracer.wait(60)


def _attached(tracer: subprocess.Popen[bytes], said: Path) -> bool:
    if tracer.poll() is not None:
        raise Failed(f"strace ended: {said.read_text()}")
    return "attached" in said.read_text()
