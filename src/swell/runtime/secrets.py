"""How does a process come to its secrets? Over its channel, once it runs, into os.environ.

What is set after a process was exec'ed is not in its /proc/PID/environ. What it starts itself inherits them, as any
environment variable, and then they are.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from swell.model.secret import Revealed
from swell.runtime import limits
from swell.wire.child import Secrets

FOLDER = "SWELL_SECRETS_DIR"
"""Where each variable is a file, SECRET/KEY, of this replica alone."""

_covered: dict[str, str | None] = {}
"""Variables that secrets have set in this process, and what each was before."""


def apply(message: Secrets) -> None:
    """Have these values, and no earlier ones."""
    limits.hide_memory()
    values = variables(message.secrets)
    if message.folder and (not message.inside or _made(Path(message.folder), message.secrets)):
        values[FOLDER] = message.folder
    for name in _covered.keys() - values.keys():
        before = _covered.pop(name)
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
    for name in values.keys() - _covered.keys():
        _covered[name] = os.environ.get(name)
    os.environ.update(values)


def variables(secrets: Sequence[Revealed]) -> dict[str, str]:
    """Of a variable that several have, the last one counts."""
    return {name: value for secret in secrets for name, value in secret.values}


def _made(folder: Path, secrets: Sequence[Revealed]) -> bool:
    """Whether the files of this process's sandbox are there: its code may have filled the memory they are in."""
    try:
        write(folder, secrets)
    except OSError as error:
        sys.stderr.write(f"secrets are not written to files: {error.strerror}\n")
        return False
    return True


def write(folder: Path, secrets: Sequence[Revealed]) -> None:
    """A file for each variable. Several processes of a sandbox may do so at a time."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for secret in secrets:
        _write_all(folder / file_name(secret.name), dict(secret.values))


def file_name(secret: str) -> str:
    """Of a secret's folder. Values that a program brought along are in one called after its app."""
    return secret.split(":")[1] if secret.startswith("app:") else secret


def _write_all(folder: Path, values: dict[str, str]) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    for key, value in values.items():
        # Whoever reads meets the old value or the new one, and never half of one.
        draft = folder / f".{key}.{os.getpid()}"
        draft.touch(mode=0o600)
        draft.write_bytes(value.encode())
        draft.replace(folder / key)
    for path in folder.iterdir():
        if path.name not in values and not path.name.startswith("."):
            path.unlink(missing_ok=True)
