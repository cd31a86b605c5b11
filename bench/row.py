"""What is one measured number? Its median, its spread, and what it was to be."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec


class Options(msgspec.Struct, frozen=True):
    """What every part is told."""

    quick: bool = False
    """Fewer rounds, to see that everything works; the numbers mean little."""

    def rounds(self, whole: int, quick: int) -> int:
        """How often to repeat something."""
        return quick if self.quick else whole


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the table."""

    part: str
    what: str
    unit: str
    median: float
    low: float
    """25th percentile of the repeats."""
    high: float
    """75th percentile."""
    repeats: int
    goal: str = ""
    """"≤ 20", say."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached; None without one."""
        if not self.goal:
            return None
        relation, _, value = self.goal.partition(" ")
        return self.median <= float(value) if relation == "≤" else self.median >= float(value)


def row(part: str, what: str, unit: str, values: Sequence[float], goal: str = "", note: str = "") -> Row:
    """A row from repeated measurements of one thing."""
    low, high = (quantile(values, 0.25), quantile(values, 0.75))
    return Row(part, what, unit, statistics.median(values), low, high, len(values), goal, note)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie, between neighbours by straight line."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def table(rows: Sequence[Row]) -> str:
    """All rows, aligned, a blank line between parts."""
    cells = [("", "measured", "median", "25–75 %", "n", "goal", "note")]
    parts = [""]
    for one in rows:
        verdict = {None: "", True: f"{one.goal}  ✓", False: f"{one.goal}  ✗"}[one.met]
        spread = f"{_number(one.low)}–{_number(one.high)}" if one.repeats > 1 else ""
        shown = f"{_number(one.median)} {one.unit}".strip()
        cells.append((one.part, one.what, shown, spread, str(one.repeats), verdict, one.note))
        parts.append(one.part)
    widths = [max(len(line[column]) for line in cells) for column in range(6)]
    lines = []
    for number, line in enumerate(cells):
        if number and parts[number] != parts[number - 1]:
            lines.append("")
        first = number and parts[number] != parts[number - 1]
        part, what, median, spread, repeats, goal, note = line
        lines.append(
            f"{part if first else '':<{widths[0]}}  {what:<{widths[1]}}  {median:>{widths[2]}}  {spread:>{widths[3]}}  "
            f"{repeats:>{widths[4]}}  {goal:<{widths[5]}}  {note}".rstrip()
        )
    return "\n".join(lines)


def _number(value: float) -> str:
    """Three digits that matter, and no exponent."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.4f}"
