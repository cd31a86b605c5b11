"""What a template imports for its forks: FastAPI where an endpoint will need it, and not otherwise."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from swell.model.workload import Entry, Method, Web
from swell.runtime.endpoint import prepare
from swell.runtime.load import Program

web = Web("endpoint", "a--f") if sys.argv[1] == "endpoint" else None
prepare(Program(Entry("m", "f", "function", (Method("f", web=web),)), lambda: None))
print("fastapi" in sys.modules)
"""


@pytest.mark.parametrize(("kind", "loaded"), [("endpoint", "True"), ("function", "False")])
def test_fastapi_is_loaded_before_the_fork_where_it_is_needed(kind: str, loaded: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, kind], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == loaded
