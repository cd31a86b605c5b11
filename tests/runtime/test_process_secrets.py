"""Which variables has a process while it is told of secrets, and of other ones later? In one of its own, which stays
closed to debuggers after it."""

from __future__ import annotations

import os
import subprocess
import sys

TOLD = """
import os
from swell.model.secret import Revealed
from swell.runtime import secrets
from swell.wire.child import Secrets

def hear(**values):
    secrets.apply(Secrets((Revealed("default", "all", 1, tuple(values.items())),)))
    print(os.environ.get("OWN"), os.environ.get("NEW"))

hear()
hear(OWN="secret", NEW="a")
hear(OWN="rotated")
hear(NEW="b")
hear()
"""


def test_a_variable_that_a_secret_covered_has_its_own_value_again() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", TOLD], env={**os.environ, "OWN": "own"}, capture_output=True, text=True, timeout=60
    )
    heard = ["own None", "secret a", "rotated None", "own b", "own None"]
    assert ended.stdout.splitlines() == heard, ended.stderr
