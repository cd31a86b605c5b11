"""What do the steps of an image find on the disk of who deploys?

They are looked at when something is deployed, not where they are written: replicas import the same program, and what
it names is not there, or lies elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

from swell.model.errors import SwellError
from swell.sdk.frames import point
from swell.sdk.marks import Given
from swell.sdk.patterns import Ignore, ignored

NO_FILES: Sequence[str] = ()
SKIPPED_FOLDERS = frozenset({"__pycache__", ".git", ".hg", ".venv", "venv", ".mypy_cache", ".ruff_cache", ".tox"})
"""Folders that never travel with source code."""


@dataclass(frozen=True)
class LocalPath:
    """A local file or folder and its place (a relative path) in the bundle."""

    source: Path
    place: PurePosixPath
    ignore: Ignore = NO_FILES


@dataclass(frozen=True)
class Unread:
    """A step that is still to be looked up on the disk."""

    given: Given
    find: Callable[[], Mapping[str, tuple[Any, ...]]] = field(compare=False, repr=False)
    """Gives what the step adds, by the image's field. Raises SwellError where it is not there."""

    def read(self) -> Mapping[str, tuple[Any, ...]]:
        """What it adds; an error says which line of the user's asked for it."""
        try:
            return self.find()
        except SwellError as error:
            point(error, self.given.where)
            raise


def files(local: LocalPath) -> Iterator[tuple[PurePosixPath, Path]]:
    """(place in the bundle, file) of everything a local entry holds."""
    if local.source.is_file():
        yield local.place, local.source
        return
    for path in sorted(local.source.rglob("*")):
        inside = PurePosixPath(path.relative_to(local.source).as_posix())
        if path.is_file() and SKIPPED_FOLDERS.isdisjoint(inside.parts) and not ignored(local.ignore, inside):
            yield local.place / inside, path


def file(shown: str, local: LocalPath) -> LocalPath:
    """A file that is there. `shown`: its path as it was written."""
    if not local.source.is_file():
        what = "that is a folder, use add_local_dir" if local.source.is_dir() else "there is no such file"
        raise SwellError("no_such_file", f"add_local_file({shown!r}): {what} ({local.source}).")
    return local


def folder(shown: str, local: LocalPath) -> LocalPath:
    """A folder that is there. `shown`: its path as it was written."""
    if not local.source.is_dir():
        what = "that is a file, use add_local_file" if local.source.is_file() else "there is no such folder"
        raise SwellError("no_such_file", f"add_local_dir({shown!r}): {what} ({local.source}).")
    return local


def module(name: str, ignore: Ignore) -> LocalPath:
    """A module or package, at the place it is imported from by its name."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        raise SwellError("no_such_module", f"add_local_python_source({name!r}): no such module can be imported here.")
    place = PurePosixPath(*name.split("."))
    if spec.submodule_search_locations:
        return LocalPath(Path(next(iter(spec.submodule_search_locations))).absolute(), place, ignore)
    assert spec.origin is not None
    return LocalPath(Path(spec.origin).absolute(), place.with_suffix(".py"))


def text(what: str, path: Path) -> str:
    """What a file says. `what`: how it is called where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SwellError("no_such_file", f"{what} {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SwellError("no_such_file", f"{what} {path} is not text.") from None
