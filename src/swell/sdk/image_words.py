"""Does what the methods of an image were given fit? Checked where it is written, in the words of the method."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from swell.model.errors import SwellError

CONTAINER_HOME = PurePosixPath("/root")
"""Where programs written for containers put their files; here it stands for the folder of the source."""


def texts(method: str, given: Sequence[Any], what: str) -> tuple[str, ...]:
    """Words that are given one by one, or in lists. `what` says what one of them is."""
    flat: list[Any] = []
    if isinstance(given, str):
        raise SwellError("bad_argument", f"Image.{method}({given!r}): give a list of texts.")
    for each in given:
        flat += each if isinstance(each, list | tuple) else [each]
    for word in flat:
        if not isinstance(word, str) or not word.strip():
            raise SwellError("bad_argument", f"Image.{method}({word!r}): {what}.")
    return tuple(flat)


def packages(method: str, given: Sequence[Any]) -> tuple[str, ...]:
    """Requirements of Python packages."""
    what = "a package is written like 'numpy' or 'numpy>=2,<3'"
    lines = texts(method, given, what)
    for line in lines:
        if line.lstrip().startswith("-"):
            raise SwellError("bad_argument", f"Image.{method}({line!r}): {what}.")
    return lines


def index_options(
    find_links: str | None, index_url: str | None, extra_index_url: str | None, pre: bool, extra_options: str
) -> tuple[str, ...]:
    """The installer's words for them."""
    words: list[str] = []
    for name, value in (("find-links", find_links), ("index-url", index_url), ("extra-index-url", extra_index_url)):
        if value is not None:
            words += [f"--{name}", value]
    return (*words, *(["--pre"] if pre else []), *shlex.split(extra_options))


def path(method: str, given: Any) -> Path:
    """A local path, from the current directory."""
    if not isinstance(given, str | Path) or not str(given):
        raise SwellError("bad_argument", f"Image.{method}({given!r}): give the path as text, or as a pathlib.Path.")
    return Path(given).absolute()


def place(method: str, remote_path: Any) -> PurePosixPath:
    """Where in the folder of the source a file goes."""
    if not isinstance(remote_path, str | PurePosixPath):
        raise SwellError("bad_argument", f"Image.{method}(…, {remote_path!r}): give the path as text.")
    found = PurePosixPath(remote_path)
    if found.is_relative_to(CONTAINER_HOME):
        found = found.relative_to(CONTAINER_HOME)
    if ".." in found.parts:
        raise SwellError(
            "bad_argument",
            f"{method}(…, {remote_path!r}): that would be outside the program's own folder. Leave the '..' out.",
        )
    if found.is_absolute():
        raise SwellError(
            "bad_argument",
            f"{method}(…, {remote_path!r}): there is no container to put files at an absolute path of. Give a path "
            "relative to the source, and open it with Path(__file__).parent / that path.",
        )
    return found


def variables(callable: str, given: Any) -> tuple[tuple[str, str], ...]:
    """Environment variables, sorted; None leaves one out."""
    if not isinstance(given, Mapping):
        raise SwellError("bad_argument", f"{callable}: give names and values, like {{'NAME': 'value'}}, not {given!r}.")
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, (str, type(None))):
            raise SwellError("bad_argument", f"{callable}: {name!r} and its value must be text.")
        if not name or "=" in name:
            raise SwellError("bad_argument", f"{callable}: {name!r} can be no variable's name, which has no '=' in it.")
    return tuple(sorted((name, value) for name, value in given.items() if value is not None))
