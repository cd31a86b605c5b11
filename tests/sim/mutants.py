"""Does the simulator notice defects of what it runs? `python tests/sim/mutants.py`, or with the names of some.

Each patch beside it plants one defect in a copy of the source; the seeds that are run on it are to break a promise. On
the source as it is the same seeds are to keep all.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "mutants"
SEEDS = 100
"""So many are tried at most; the first that breaks a promise is enough."""


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.patch"))


def planted(name: str, folder: Path) -> Path:
    """A copy of the source with that defect. Raises CalledProcessError where the patch does not fit any more."""
    source = shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    apply = ["git", "apply", "--whitespace=nowarn", str(FOLDER / f"{name}.patch")]
    subprocess.run(apply, cwd=folder, check=True, env=os.environ | {"GIT_CEILING_DIRECTORIES": str(folder.parent)})
    return source


def caught(source: Path, seeds: int = SEEDS) -> str:
    """The first promise that is broken there; empty where none is."""
    run = [sys.executable, "-m", "swell", "sim", "--first", "--seeds", f"0-{seeds - 1}"]
    done = subprocess.run(run, env=os.environ | {"PYTHONPATH": str(source)}, capture_output=True, text=True)
    told = re.search(r"^seed \d+: .*", done.stdout, re.MULTILINE)
    if told is None:
        # One that cannot run proves nothing.
        done.check_returncode()
    return told[0] if told is not None else ""


def main() -> int:
    missed = 0
    for name in sys.argv[1:] or names():
        with tempfile.TemporaryDirectory() as folder:
            told = caught(planted(name, Path(folder)))
        missed += not told
        sys.stdout.write(f"{name}: {told or 'NOT CAUGHT'}\n")
        sys.stdout.flush()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
