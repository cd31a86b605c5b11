"""What is a variable without a value, where nobody can be asked for it?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_without_a_terminal_a_value_is_not_asked_for(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "swell", "secret", "create", "db", "PASSWORD", "--home", str(tmp_path)]
    # A session of its own has no terminal, wherever the tests are run.
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 2
    assert "PASSWORD has no value, and there is no terminal" in done.stderr
    assert "give PASSWORD=VALUE, --from-dotenv FILE or --from-stdin." in " ".join(done.stderr.split())
