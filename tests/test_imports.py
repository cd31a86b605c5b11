"""What is loaded by a worker, by `import swell`, and by `swell --help`?

A replica's start-up time is made of imports, and so is a command's: each list here is a budget.
"""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import swell.runtime

SERVER_PARTS = {"api", "control", "decide", "engines", "gateway", "serve", "sim", "store", "supervise"}
HEAVY = {"anyio", "httpx2", "prometheus_client", "rich", "sqlite3", "starlette", "uvicorn"}
RUNTIME_MAY = {"httptools", "msgspec", "swell", "uvloop"}
SDK_MAY = {"msgspec", "swell"}


def loaded(code: str) -> set[str]:
    """Names of all modules loaded after `code` ran in a fresh interpreter, less those any interpreter has."""

    def names(code: str) -> set[str]:
        report = "import sys; sys.stdout.write('\\n' + ' '.join(sys.modules))"
        done = subprocess.run(
            [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True, timeout=60
        )
        return set(done.stdout.splitlines()[-1].split())

    return names(code) - names("pass")


def outside_packages(modules: set[str]) -> set[str]:
    """Top-level packages, without what compiled ones put there themselves, and what msgspec takes if it finds it."""
    packages = {name.partition(".")[0] for name in modules if "cython" not in name}
    return packages - set(sys.stdlib_module_names) - {"__mp_main__", "typing_extensions"}


def server_parts(modules: set[str]) -> set[str]:
    return {name.split(".")[1] for name in modules if name.startswith("swell.")} & SERVER_PARTS


RUNTIME = [
    found.name
    for found in pkgutil.walk_packages([str(Path(swell.runtime.__file__).parent)], "swell.runtime.")
    if not found.name.endswith("__main__")
]


def test_the_worker_runtime_loads_nothing_of_the_server() -> None:
    modules = loaded("import " + ", ".join(["swell.runtime", *RUNTIME]))
    assert not HEAVY & modules
    assert server_parts(modules) == set()
    assert outside_packages(modules) <= RUNTIME_MAY


def test_import_swell_loads_the_sdk_alone() -> None:
    modules = loaded("import swell\napp = swell.App('a')\n@app.function()\ndef f(): pass")
    assert not HEAVY & modules
    assert server_parts(modules) == set()
    assert "swell.runtime" not in modules
    assert outside_packages(modules) <= SDK_MAY


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["deploy", "--help"]], ids=" ".join)
def test_help_loads_no_server_and_no_heavy_package(words: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['swell', *{words!r}]\n"
        "from swell.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code, done.code"
    )
    modules = loaded(code)
    assert not HEAVY & modules
    assert server_parts(modules) == set()
    assert outside_packages(modules) <= {"click", "msgspec", "swell"}
