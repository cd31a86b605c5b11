"""Which packages do the files of a project name: its requirements, its pyproject.toml, its uv.lock?"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swell.model.errors import SwellError
from swell.sdk import disk

_EXPORT_S = 120.0
"""A lock file is read in no time; where it is to be looked whether it fits, an index may be asked."""
_EXPORT = ("export", "--no-hashes", "--no-header", "--no-annotate", "--no-emit-workspace", "--no-progress")


def requirements(path: Path) -> list[str]:
    """The lines of a requirements file, without comments."""
    text = disk.text("Requirements file", path)
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in text.replace("\\\n", " ").splitlines()]
    for line in lines:
        if line.startswith("-"):
            raise SwellError("bad_argument", f"{path}: the option {line!r} is not read; pass it as an argument.")
    return [line for line in lines if line]


def declared(path: Path, groups: Sequence[str]) -> list[str]:
    """The dependencies of a pyproject.toml, and those of these of its optional groups."""
    try:
        found: Any = tomllib.loads(disk.text("Project file", path))
    except tomllib.TOMLDecodeError as error:
        raise SwellError("bad_argument", f"{path} cannot be read as TOML: {error}.") from None
    project = found.get("project", {})
    if not isinstance(project, dict) or not isinstance(project.get("dependencies"), list):
        raise SwellError("bad_argument", f"{path} has no [project] with a list of dependencies: add one.")
    optional = project.get("optional-dependencies", {})
    for group in groups:
        if group not in optional:
            there = ", ".join(optional) or "none"
            raise SwellError("bad_argument", f"{path} has no optional dependencies {group!r}. There are: {there}.")
    return [*project["dependencies"], *(line for group in groups for line in optional[group])]


def pinned(folder: Path, chosen: Sequence[str]) -> list[str]:
    """What the uv.lock in a folder pins, without the project itself. `chosen`: uv's words for what of it."""
    if not (folder / "uv.lock").is_file():
        raise SwellError("no_such_file", f"There is no uv.lock in {folder}: `uv lock` makes it.")
    beside = Path(sys.executable).with_name("uv")
    uv = [str(beside)] if beside.exists() else [sys.executable, "-m", "uv"]
    try:
        done = subprocess.run(
            [*uv, *_EXPORT, *chosen, "--project", str(folder)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_EXPORT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SwellError("bad_argument", f"uv did not read {folder / 'uv.lock'} within {_EXPORT_S:g} s.") from None
    if done.returncode:
        raise SwellError("bad_argument", f"uv cannot read {folder / 'uv.lock'}: {done.stderr.strip()}")
    lines = [line for line in map(str.strip, done.stdout.splitlines()) if line]
    local = next((line for line in lines if line.startswith(("-e", ".", "/", "file:")) or "@ file:" in line), None)
    if local is not None:
        raise SwellError(
            "bad_argument",
            f"{folder / 'uv.lock'}: {local!r} is a folder of yours: add it with add_local_python_source.",
        )
    return lines
