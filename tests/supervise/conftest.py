"""What do tests of the supervisor share? A short-pathed home, and a stage that is cleared whatever happens."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from theatre import Stage


@pytest.fixture
def root() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def room(root: Path) -> Path:
    """The file that an actor who `lacks` room waits for."""
    return root / "h.room"


@pytest.fixture
def stage(root: Path) -> Iterator[Callable[..., Stage]]:
    """`stage(control=["dies"], …)` starts a server of actors."""
    stages: list[Stage] = []

    def start(
        home: str = "h",
        attached: list[int] | None = None,
        settings: dict[str, object] | None = None,
        **parts: list[str],
    ) -> Stage:
        stages.append(Stage(root / home, parts, attached or [], settings or {}))
        return stages[-1]

    yield start
    for one in stages:
        one.clear()
