"""How soon does what an author saves answer? `swell serve` with one small function, its source saved again and again.

From the moment the file is in its place: until calls reach the new version, and until the first of them is answered,
for which its process has to start.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.row import Options, Row, row
from private_swell import Failed, PrivateSwell, private_swell, wait_until

PROGRAM = """\
import swell

app = swell.App("bench-serve")


@app.function()
def version() -> int:
    return {version}
"""
TARGET = "bench-serve-dev/version"
PATIENCE_S = 60.0
PAUSE_S = 0.5
"""Between two changes: the last one is over, and its old version has gone."""


def run(options: Options) -> list[Row]:
    """Seconds from saving to the answer of what was saved."""
    answered: list[float] = []
    with private_swell() as here, tempfile.TemporaryDirectory() as folder, _served(here, Path(folder)) as file:
        for version in range(1, options.rounds(20, 3) + 1):
            time.sleep(PAUSE_S)
            _save(file, version)
            saved_at = time.monotonic()
            _call_until(here, version)
            answered.append(time.monotonic() - saved_at)
    return [row("serve", "saved to the first answer of the new code", "s", answered, "≤ 1", "fresh process and all")]


@contextmanager
def _served(here: PrivateSwell, folder: Path) -> Iterator[Path]:
    file = folder / "program.py"
    _save(file, 0)
    words = ["swell", "serve", str(file)]
    with subprocess.Popen(words, env=here.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until("it is served", lambda: _apps(here), PATIENCE_S)
            _call_until(here, 0)
            yield file
        finally:
            process.terminate()


def _apps(here: PrivateSwell) -> object:
    with here.connect() as client:
        return client.get("/api/apps").value


def _save(file: Path, version: int) -> None:
    """As editors do: written beside it, then put in its place."""
    beside = file.with_suffix(".new")
    beside.write_text(PROGRAM.format(version=version))
    beside.replace(file)


def _call_until(here: PrivateSwell, version: int) -> None:
    end = time.monotonic() + PATIENCE_S
    with here.connect() as client:
        while client.call(TARGET).value != version:
            if time.monotonic() > end:
                raise Failed(f"version {version} was never served")
            time.sleep(0.005)
