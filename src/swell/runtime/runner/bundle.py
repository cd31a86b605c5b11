"""Where is a revision's source? Its bundle blob, unpacked once into a folder named by its digest."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tarfile
import tempfile
import zlib
from pathlib import Path

from swell.model.errors import SwellError

MEMBERS_MAX = 100_000
BYTES_MAX = 2 * 1024**3
"""Unpacked size of one bundle, at most."""
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)
"""Faults of the disk, not of the bundle."""

_READABLE = 0o755


def unpack(blob: Path, bundles: Path) -> Path:
    """The folder with the blob's (.tar.gz) content; unpacked unless it is there. Whole or not at all.

    Raises SwellError("bad_bundle") when the blob is missing, damaged or not what it should be, and OSError
    when the disk does not take it.
    """
    folder = bundles / blob.name
    if folder.is_dir():
        _open_up(folder)
        return folder
    bundles.mkdir(parents=True, exist_ok=True)
    bundles.chmod(0o700)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=bundles))
    try:
        _extract(blob, fresh)
        _open_up(fresh)
        try:
            os.rename(fresh, folder)
        except OSError:
            # Another build of the same bundle was first.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _open_up(folder: Path) -> None:
    """Let every user read it who gets there: in a sandbox that is nobody. Others are stopped by its parent's mode."""
    if stat.S_IMODE(folder.stat().st_mode) == _READABLE:
        return
    for path in folder.rglob("*"):
        path.chmod(_READABLE if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    # Last: it is what says that all is done.
    folder.chmod(_READABLE)


def _extract(blob: Path, folder: Path) -> None:
    try:
        with tarfile.open(blob, "r:gz") as archive:
            total = 0
            for count, member in enumerate(archive, 1):
                total += member.size
                if count > MEMBERS_MAX or total > BYTES_MAX:
                    raise _bad(blob, f"it holds more than {MEMBERS_MAX} files or {BYTES_MAX // 2**30} GiB")
                _extract_one(archive, member, folder, blob)
    except OSError as error:
        if error.errno in _DISK:
            raise
        raise _bad(blob, str(error)) from None
    except (tarfile.TarError, EOFError, zlib.error, ValueError, OverflowError) as error:
        # What a damaged archive makes of gzip, of tar, and (a name with a zero byte, say) of the names in it.
        raise _bad(blob, str(error)) from None


def _extract_one(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, blob: Path) -> None:
    parts = Path(member.name).parts
    if member.name.startswith("/") or ".." in parts:
        raise _bad(blob, f"its member {member.name!r} points outside of it")
    target = folder.joinpath(*parts)
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    source = archive.extractfile(member) if member.isfile() else None
    if source is None:
        raise _bad(blob, f"its member {member.name!r} is not a plain file")
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, open(target, "xb") as sink:
        shutil.copyfileobj(source, sink)
    target.chmod(0o700 if member.mode & 0o100 else 0o600)


def _bad(blob: Path, why: str) -> SwellError:
    return SwellError("bad_bundle", f"The source bundle {blob.name} cannot be unpacked: {why}. Deploy again.")
