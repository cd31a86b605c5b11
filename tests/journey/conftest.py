"""What do journeys begin with? A platform that is not started, a program; and which need a disk of their own?"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from traffic import PROGRAM

from private_swell import PrivateSwell, unstarted_swell


@pytest.fixture
def idle() -> Iterator[PrivateSwell]:
    """A platform that is not started; whatever a test does with it, nothing of it may be left."""
    with unstarted_swell() as swell:
        yield swell


@pytest.fixture(scope="module")
def own_server(own_swell: PrivateSwell) -> Iterator[PrivateSwell]:
    """The platform of this module, and the one that the SDK in this process talks to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWELL_URL", f"http://127.0.0.1:{own_swell.port}")
        patch.setenv("SWELL_KEY", (own_swell.home / "key").read_text().strip())
        yield own_swell


@pytest.fixture
def program(tmp_path: Path) -> str:
    """The file of an app that can be called in each way that traffic is."""
    path = tmp_path / "fire.py"
    path.write_text(PROGRAM)
    return str(path)


def can_mount() -> bool:
    """May a small disk be mounted? Not in every container, and not by every user."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode:
                return False
        except OSError:
            return False
        return subprocess.run(["umount", folder]).returncode == 0


collect_ignore = [] if can_mount() else ["test_full_disk.py"]
