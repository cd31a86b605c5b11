"""Do the same attempts fail on machines that allow less: where only a user namespace gives the right to make walls, and
where nothing does? `test_escape` and `test_left` once more, as such a user; what cannot be had there is refused by
name, and what was tried is counted."""

from __future__ import annotations

import re
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
        # Then this is such a machine, and they themselves have run as that user.
        return
    words = [sys.executable, "-m", "pytest", "-q", "--minutes", "-p", "no:cacheprovider"]
    words.append(f"--basetemp={tmp_path}/there")
    tests = [str(Path(__file__).with_name(name)) for name in ("test_escape.py", "test_left.py")]
    done = subprocess.run([*WAYS[way], *words, *tests], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.search(r"^refused +(\d+) of (\d+)$", done.stdout, re.MULTILINE)
    assert counted is not None, done.stdout
    assert 0 < int(counted[1]) <= int(counted[2])
