"""What was missing where the source was imported, and lies here? It was most likely forgotten to be sent along."""

from __future__ import annotations

import importlib.machinery
import os
import re
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from swell.sdk.bundle import source

_MODULE = re.compile(r"No module named '([A-Za-z0-9_]+)'")
_FILE = re.compile(r"No such file or directory: '([^'/][^']*)'")
"""A path within the folder of the program, or from the working directory, which is that folder."""


def forgotten(said: str, programs: Iterable[Path]) -> str:
    """What to add to the image, where one of the programs could not be imported for this reason; or empty."""
    module, file = _MODULE.search(said), _FILE.search(said)
    for program in programs:
        hint = (module and _module(module[1], program)) or (file and _file(file[1], program))
        if hint:
            return hint
    return ""


def _module(name: str, program: Path) -> str:
    found = importlib.machinery.PathFinder.find_spec(name, [str(program.parent), *sys.path])
    where = next(iter((found.submodule_search_locations if found else None) or ()), found.origin if found else None)
    if where is None or where.startswith(tuple(sysconfig.get_paths().values())):
        return ""
    return _told(name, where, f".add_local_python_source({name!r})")


def _file(name: str, program: Path) -> str:
    """Looked for where it would be had all that lies beside the program been sent along, too."""
    if ".." in Path(name).parts:
        return ""
    for folder in (source(program).local.source.parent, Path.cwd()):
        here = folder / name
        if here.exists():
            kind = "dir" if here.is_dir() else "file"
            return _told(name, here, f".add_local_{kind}({os.path.relpath(here)!r}, {name!r})")
    return ""


def _told(name: str, where: str | Path, step: str) -> str:
    return f"{name} is {os.path.relpath(where)} here and was not sent along: add {step} to the image."
