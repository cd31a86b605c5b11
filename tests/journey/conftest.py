"""What do journeys begin with? A platform that is not started, a program; and where do those run that mount a disk?"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
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


IN_A_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
"""How a program is run as one that may mount, but where nobody else sees it: most kernels let every user do so."""


@cache
def can_mount(*how: str) -> bool:
    """May a small disk be mounted, by a program that is run so? Not in every container, and not by every user."""
    script = 'mount -t tmpfs tmpfs "$1" && umount "$1"'
    with tempfile.TemporaryDirectory() as folder:
        try:
            return subprocess.run([*how, "sh", "-c", script, "sh", folder], capture_output=True).returncode == 0
        except OSError:
            return False


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mounts: it mounts a small disk")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that mounts a disk runs where that is allowed: here, or by another pytest in a namespace of its own."""
    if pyfuncitem.get_closest_marker("mounts") is None or can_mount():
        return None
    if not can_mount(*IN_A_NAMESPACE):
        pytest.skip("it mounts a small disk, which here neither this user may nor anybody in a user namespace")
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--no-skips", f"--basetemp={folder}/there"]
        done = subprocess.run(
            [*IN_A_NAMESPACE, *words, pyfuncitem.nodeid], cwd=pyfuncitem.config.rootpath, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return True
