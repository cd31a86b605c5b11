"""Is this machine about to go, and when? What `swell node leave` noted down says so."""

from __future__ import annotations

import math
from pathlib import Path


def leaving_at(path: Path) -> float | None:
    """When the node goes (seconds since the epoch), where this file says that it does."""
    try:
        at = float(path.read_text())
    except (OSError, ValueError):
        return None
    return at if math.isfinite(at) else None
