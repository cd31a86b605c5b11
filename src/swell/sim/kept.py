"""Which runs once broke a promise? Each is a file: the seed, and the whole scenario that was drawn from it then.

So it is the same run again, whatever scenarios are drawn from seeds later.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from swell.sim.settings import Scenario


class Kept(msgspec.Struct, frozen=True):
    """One of them."""

    seed: int
    why: str
    """What was broken, in words."""
    scenario: Scenario


def keep(kept: Kept, folder: Path) -> Path:
    """Write it down. Python's JSON: a scenario may say infinity."""
    path = folder / f"{kept.seed}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(msgspec.to_builtins(kept), indent=1) + "\n")
    return path


def kept(path: Path) -> Kept:
    """Read it."""
    return msgspec.convert(json.loads(path.read_text()), Kept)
