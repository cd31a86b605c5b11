"""A real Prometheus, as Debian packs it: to scrape a server, and to be asked what it understood."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from debian import unpack
from private_swell import free_port, wait_until

Labels = dict[str, str]


@cache
def program(name: str) -> Path:
    """`prometheus` or `promtool`: the one that is installed, else one that is only unpacked, into a temporary folder.

    Nothing is installed, so that no service begins to run and no user need be root. Fails where there is neither.
    """
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    return _unpacked() / "usr" / "bin" / name


@cache
def _unpacked() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="prometheus-"))
    _REMOVED_AT_THE_END.append(folder)
    unpack("prometheus", "prometheus", folder, alone=True)
    return folder


_REMOVED_AT_THE_END: list[Path] = []


def remove_unpacked() -> None:
    for folder in _REMOVED_AT_THE_END:
        shutil.rmtree(folder, ignore_errors=True)


def complaints(text: bytes) -> str:
    """What `promtool check metrics` has against a text."""
    done = subprocess.run([program("promtool"), "check", "metrics"], input=text, capture_output=True, timeout=60)
    said = (done.stdout + done.stderr).decode()
    return said or ("" if done.returncode == 0 else f"it ended with {done.returncode}")


class Prometheus:
    """One that runs."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, **query: str) -> Any:
        """What its API answers."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        return told["data"]

    def ask(self, query: str) -> list[tuple[Labels, float]]:
        """The value of a query now, by labels."""
        result = self.get("query", query=query)["result"]
        return [(one["metric"], float(one["value"][1])) for one in result]

    def number(self, query: str) -> float:
        """Of a query with one answer; NaN without one."""
        found = self.ask(query)
        assert len(found) <= 1, found
        return found[0][1] if found else float("nan")

    def targets(self) -> list[Any]:
        found: list[Any] = self.get("targets", state="active")["activeTargets"]
        return found


@contextmanager
def running(configuration: str) -> Iterator[Prometheus]:
    """A Prometheus with this configuration, on a free port of loopback; ended and removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="prometheus-", ignore_cleanup_errors=True) as folder:
        written, port = Path(folder) / "prometheus.yml", free_port()
        written.write_text(configuration)
        words = [
            *(f"--config.file={written}", f"--storage.tsdb.path={folder}/data"),
            *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
        ]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen([program("prometheus"), *words], stdout=log, stderr=log, cwd=folder)
        try:

            def ready() -> bool:
                assert process.poll() is None, f"Prometheus ended:\n{(Path(folder) / 'log').read_text()}"
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5) as answer:
                        return bool(answer.status == 200)
                except OSError:
                    time.sleep(0.1)
                    return False

            wait_until("Prometheus is ready", ready, wait_s=60)
            yield Prometheus(port)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
