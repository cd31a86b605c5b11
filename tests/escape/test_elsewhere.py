"""Do the same attempts fail on machines that allow less: where only a user namespace gives the right to make walls, and
where nothing does? All of `test_escape` once more, as such a user; what cannot be had there is refused by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

AS_A_USER = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
"""No other is needed to be as any user is, but to own the files: the interpreter may lie where only root gets."""
NO_NAMESPACES = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
WAYS = {
    "a user namespace": AS_A_USER,
    "nothing": ("unshare", "--user", "--map-root-user", "sh", "-c", NO_NAMESPACES, "sh", *AS_A_USER),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_attempts(way: str, tmp_path: Path) -> None:
    try:
        able = subprocess.run([*WAYS[way], "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        # Then this is such a machine, and `test_escape` itself has run as that user.
        return
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/there"]
    tests = str(Path(__file__).with_name("test_escape.py"))
    done = subprocess.run([*WAYS[way], *words, tests], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
