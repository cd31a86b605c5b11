"""Which bytes carry the user's source to a replica? A .tar.gz that is the same for the same files, and its digest."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from swell.model.errors import SwellError
from swell.model.limits import BUNDLE_MAX
from swell.sdk import shadow
from swell.sdk.disk import LocalPath, files


class Bundle(NamedTuple):
    """Packed source."""

    digest: str
    """ "sha256-" and hex digits of `data`."""
    data: bytes


class Source(NamedTuple):
    """Where a Python file is imported from."""

    module: str
    """Import name inside the bundle."""
    local: LocalPath
    """The file, or the package it lies in."""


def source(path: Path) -> Source:
    """How the file is imported: by its stem, or by its dotted name from the top of the package it lies in.

    SwellError bad_file_name where that is the name of one of Python's own modules.
    """
    path = path.absolute()
    top = path.parent
    while (top / "__init__.py").is_file():
        top = top.parent
    shadowing = shadow.refusal(str(path if top == path.parent else top / path.relative_to(top).parts[0]))
    if shadowing is not None:
        raise shadowing
    if top == path.parent:
        return Source(path.stem, LocalPath(path, PurePosixPath(path.name)))
    parts = path.relative_to(top).with_suffix("").parts
    names = parts[:-1] if parts[-1] == "__init__" else parts
    return Source(".".join(names), LocalPath(top / parts[0], PurePosixPath(parts[0])))


def gather(entries: list[LocalPath]) -> dict[str, Path]:
    """Every file by its place in the bundle. Two different files at one place are an error."""
    found: dict[str, Path] = {}
    for entry in entries:
        for place, path in files(entry):
            before = found.setdefault(str(place), path)
            if before != path:
                raise SwellError("bundle_clash", f"{before} and {path} would both be {place}: rename one.")
    for inside, path in found.items():
        for folder in PurePosixPath(inside).parents:
            if file := found.get(str(folder)):
                raise SwellError(
                    "bundle_clash", f"{file} would be {folder}, and so would the folder that {path} is in: rename one."
                )
    return found


def pack(contents: Mapping[str, Path]) -> Bundle:
    """The files as a .tar.gz. Neither the order, nor times, nor owners change it."""
    sizes = {place: path.stat().st_size for place, path in contents.items()}
    if sum(sizes.values()) > BUNDLE_MAX:
        biggest = sorted(sizes, key=lambda place: -sizes[place])[:5]
        listed = ", ".join(f"{place} ({sizes[place] / 2**20:.1f} MiB)" for place in biggest)
        raise SwellError(
            "bundle_too_large",
            f"The source is {sum(sizes.values()) / 2**20:.1f} MiB; at most {BUNDLE_MAX // 2**20} MiB travel. Biggest: "
            f"{listed}. Leave files out with ignore=, or load them from where they are.",
            status=413,
        )
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0, compresslevel=6) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for place in sorted(contents):
            data = contents[place].read_bytes()
            member = tarfile.TarInfo(place)
            member.size = len(data)
            member.mode = 0o755 if contents[place].stat().st_mode & 0o100 else 0o644
            archive.addfile(member, io.BytesIO(data))
    data = packed.getvalue()
    return Bundle("sha256-" + hashlib.sha256(data).hexdigest(), data)
