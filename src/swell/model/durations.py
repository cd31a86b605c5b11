"""How long is "1h30m"? Lengths of time as people write them: "90s", "10m", "2d", or a bare number of seconds."""

from __future__ import annotations

import re

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+", re.ASCII)


def seconds_of(text: str) -> float:
    """In seconds; NaN where it is no length of time."""
    if _DURATION.fullmatch(text):
        return sum(float(part[:-1]) * _UNITS_S[part[-1]] for part in re.findall(r"[\d.]+[smhdw]", text))
    try:
        return float(text)
    except ValueError:
        return float("nan")
