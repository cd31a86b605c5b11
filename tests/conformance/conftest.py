"""Where do the suites find the tools of other parts' tests, and the server that PostgreSQL's stores are on?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import postgres
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "runtime"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The folder of its socket. What is not synced outlives its processes, and no test cuts the power."""
    with postgres.server("fsync=off") as folder:
        postgres.SHARED.append(folder)
        yield folder
        postgres.SHARED.clear()


@pytest.fixture
def dsn(postgres_server: str) -> str:
    """Of a database with nothing in it."""
    return postgres.emptied(postgres_server)
