"""Who may ask? Whoever can read the key files that the first start makes in the state directory."""

from __future__ import annotations

import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from swell.model.errors import SwellError
from swell.store import faults

_KEY = re.compile(r"(?:sk|mk)-[0-9a-f]{64}\Z")


class Keys(NamedTuple):
    """Two secrets, each "sk-" and 256 random bits in hex."""

    api: str
    """Lets a client deploy, and send pickles: as good as a shell for this user."""
    call: str
    """Lets code in replicas call other workloads."""


def ensure_keys(home_key_path: Path, call_key_path: Path) -> Keys:
    """Both keys, made when they are missing."""
    return Keys(_ensure(home_key_path), _ensure(call_key_path))


def ensure_master_key(path: Path) -> str:
    """What secrets are sealed with, made when it is missing: "mk-" and 256 random bits in hex."""
    return _ensure(path, "mk", "; all secrets are lost then, and have to be made anew")


def read_key(path: Path, lost: str = "") -> str:
    """The key in a file. Refuses a file that others can read, since then it is no secret. `lost`: what would be, with
    the file."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(200).decode("ascii", "replace").strip()
    except FileNotFoundError:
        raise SwellError(
            "no_key_file", f"There is no key at {path}. `swell up` makes one at its first start.", status=401
        ) from None
    except OSError as error:
        raise faults.of_file(path, error) from error
    if mode & 0o077:
        raise SwellError(
            "key_exposed",
            f"The key {path} can be read by other users (mode {mode:04o}). Delete it to have a new one made at the "
            f"next start{lost}; if nobody can have seen it, `chmod 600 {path}` keeps it.",
            status=500,
        )
    if not _KEY.match(text):
        raise SwellError("bad_key_file", f"{path} holds no key. Delete it to have a new one made{lost}.", status=500)
    return text


def _ensure(path: Path, kind: str = "sk", lost: str = "") -> str:
    """Make the file if it is missing. Of several that start at once, one wins and all read its key."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    with faults.as_swell_errors(path):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{kind}-{secrets.token_hex(32)}\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                with suppress(FileExistsError):
                    os.link(draft, path)
            finally:
                draft.unlink()
    return read_key(path, lost)
