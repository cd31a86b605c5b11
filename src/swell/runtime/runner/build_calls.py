"""How do an image's own functions run while its environment is built? One by one, each in a process of its own.

What they print is the build's progress, and stays in a log beside what they made. They run as this user, outside of any
sandbox: what is deployed to run in one cannot have them (`api/validate.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TextIO

import msgspec

from swell.model.environment import BuildCall, Environment
from swell.model.errors import SwellError
from swell.runtime.runner import commands, environment, launching
from swell.runtime.runner.processes import Reaper
from swell.runtime.runner.redact import Redactor
from swell.runtime.runner.secrets import SecretBook
from swell.wire.child import LACKING_STATUS

LOG = "swell-build.log"
"""In an environment: what its build calls printed. Of a build that failed it is there until the next try."""
LOG_MAX = 16 << 20
"""Bytes of it; what is printed after them is in the build's progress alone."""
_KEPT_LINES = 1000
"""Last lines of one that failed that its deploy is told."""


class Site(NamedTuple):
    """Where they run, and with what."""

    wanted: Environment
    home: Path
    """Of the environment, which has its packages by now."""
    folder: Path
    """The unpacked source."""
    reaper: Reaper
    book: SecretBook
    server: Mapping[str, str]
    """The server's environment variables."""

    async def run(self, progress: Callable[[str], None]) -> None:
        """Run all that the environment asks for.

        Raises SwellError("environment") when one fails: those after it are not run.
        """
        if not self.wanted.build_calls:
            return
        with (self.home / LOG).open("w", encoding="utf-8") as file:
            log = Log(file)
            for call in self.wanted.build_calls:
                output: list[str] = []
                redact = Redactor(self.book.of(call.secrets))

                def heard(line: str, redact: Redactor = redact, output: list[str] = output) -> None:
                    line = redact(line)
                    output.append(line)
                    del output[:-_KEPT_LINES]
                    progress(line)
                    log.write(line)

                heard(f"running {call.qualname} of {call.module}")
                output.clear()
                failure = await self._one(call, heard)
                if failure:
                    raise SwellError("environment", failure, detail="\n".join(output))

    async def _one(self, call: BuildCall, heard: Callable[[str], None]) -> str:
        """Why it failed, in a sentence; empty when it did not."""
        lacking = self.book.lacking(call.secrets)
        if lacking:
            return f"{lacking[0].upper()}{lacking[1:]}."
        python, folder = self.home / "bin" / "python", str(self.folder)
        plain = environment.plain_environ(self.server)
        environ = {
            "LANG": "C.UTF-8",
            **plain,
            "PATH": f"{python.parent}:{plain.get('PATH', '/usr/bin:/bin')}",
            **launching.ALWAYS,
            **dict(call.variables),
        }
        status = await commands.run(
            self.reaper,
            [str(python), "-P", "-m", "swell.runtime.building"],
            environ,
            heard,
            call.timeout_s,
            cwd=self.wanted.workdir or folder,
            said=msgspec.msgpack.encode((call, folder, self.wanted.packages, self.book.current(call.secrets))),
        )
        return _failure(call, status)


def _failure(call: BuildCall, status: int | None) -> str:
    name = f"Image.run_function({call.qualname})"
    if status is None:
        return f"{name} took longer than {call.timeout_s:g} s (its timeout=) and was ended."
    if status == LACKING_STATUS:
        return f"{name} could not be found in the source; what was printed says why."
    if status < 0:
        return f"{name} was ended by signal {-status} while the environment was built."
    return f"{name} failed while the environment was built; what it printed says why." if status else ""


class Log:
    """Lines in a file, up to a size."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._left = LOG_MAX

    def write(self, line: str) -> None:
        if self._left <= 0:
            return
        self._left -= len(line.encode()) + 1
        if self._left <= 0:
            line = f"[more was printed than the {LOG_MAX} bytes that are kept]"
        self._file.write(line + "\n")
