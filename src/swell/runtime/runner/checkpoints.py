"""Which calls have checkpoints on this node, and how do those go that nobody can go on from?"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from swell.model.call import is_call_id

log = logging.getLogger("swell.runner")

ASKED_MAX = 1000
"""Calls that control is asked after in one message."""


def asked(folder: Path) -> Iterator[tuple[str, ...]]:
    """All calls that have a folder here, so many at a time as are asked after."""
    try:
        found = sorted(path.name for path in folder.iterdir() if is_call_id(path.name))
    except FileNotFoundError:
        found = []
    for at in range(0, len(found), ASKED_MAX):
        yield tuple(found[at : at + ASKED_MAX])


def remove(folder: Path, calls: Iterable[str]) -> None:
    """Take away what these had."""
    for call in filter(is_call_id, calls):
        try:
            shutil.rmtree(folder / call)
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("the checkpoints of %s cannot be removed: %s", call, error.strerror)
