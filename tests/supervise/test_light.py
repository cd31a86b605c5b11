"""Is the supervisor as light as it says: the standard library, the paths, and nothing that is slow to import?"""

from __future__ import annotations

import json
import subprocess
import sys

SLOW = {"asyncio", "dataclasses", "inspect", "click", "msgspec", "tempfile", "ctypes", "logging", "argparse"}


def test_what_a_running_supervisor_imports() -> None:
    program = "import swell.supervise.server, sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {program}"],
        capture_output=True,
        text=True,
    )
    loaded = set(json.loads(done.stdout))
    ours = {name for name in loaded if name.split(".")[0] == "swell" and not name.startswith("swell.supervise")}
    assert ours <= {
        "swell",
        "swell.model",
        "swell.model.errors",
        "swell.model.ids",
        "swell.wire",
        "swell.wire.attached",
        "swell.wire.handed",
        "swell.wire.identity",
        "swell.wire.paths",
    }
    assert {name.split(".")[0] for name in loaded} - {"swell", "__main__"} <= set(sys.stdlib_module_names)
    assert loaded & SLOW == set()
