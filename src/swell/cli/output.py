"""How do values read in a terminal? Plain text that needs no colour: tables, times, sizes, money, bars."""

from __future__ import annotations

import re
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from shutil import get_terminal_size
from typing import Any

import click

from swell.model.errors import SwellError

GAP = "  "
LAST_MIN = 24
"""Columns that the last cell of a row must have left for it to stay beside the others: enough for a sentence."""
BELOW = "    "
LEAST_USD = 0.0001
"""Less money than this is not written out."""
PATIENCE_S = 1.0
"""What takes longer than this says what it waits for."""
_LOOK_S = 0.5
_BAR = " ▏▎▍▌▋▊▉█"
_CONTROL = re.compile(
    r"(?P<colour>\x1b\[[0-9;:]*m)"  # SGR: how what follows looks
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: where the cursor goes, what is erased
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC and its kin: titles, links
    r"|\x1b[ -/]*[0-~]"  # of two characters or three: save the cursor, reset the terminal
    r"|[\x00-\x08\x0a-\x1f\x7f-\x9f]"  # alone: a bell, or what is left of one that is not whole
)
"""What a terminal obeys instead of showing it."""


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[str] = (),
    last_min: int = LAST_MIN,
    headless: bool = False,
) -> str:
    """Aligned columns; those named in `right` end at the same place. On a terminal nothing is wider than it.

    There a long last cell goes on beside the others where `last_min` columns are left for it, else below them; of
    others that have no room in one line the rest is below, too. `headless`: `heads` are not shown.
    """
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    width = _columns()
    lines = []
    for cells in rows if headless else (heads, *rows):
        placed = [
            cell.rjust(wide) if head in right else cell.ljust(wide)
            for head, cell, wide in zip(heads, cells, widths, strict=True)
        ]
        lines += [GAP.join(placed).rstrip()] if width is None else _fitted(placed, width, last_min)
    return "\n".join(lines)


def _columns() -> int | None:
    """How wide the terminal is; None where output goes elsewhere."""
    return get_terminal_size().columns if sys.stdout.isatty() else None


def wrapped(text: str, indent: str = "") -> str:
    """On a terminal in lines no wider than it, all but the first indented."""
    width = _columns()
    return text if width is None else textwrap.fill(text, width, subsequent_indent=indent)


def _fitted(placed: Sequence[str], width: int, last_min: int, indent: str = "") -> list[str]:
    """A row in lines of at most `width`: what has no room goes on below; the last cell beside the others if it can."""
    *others, last = placed
    beside = indent + "".join(cell + GAP for cell in others)
    if len(beside.removesuffix(GAP)) > width:
        count = 1
        while len(indent + GAP.join(others[: count + 1])) <= width:
            count += 1
        own = GAP.join(others[:count]).rstrip()
        lines = [indent + own] if count > 1 else _broken(own.strip(), width, indent)
        return [*lines, *_fitted(placed[count:], width, last_min, BELOW)]
    whole = (beside + last).rstrip()
    if len(whole) <= width:
        return [whole] if whole or not indent else []
    last = last.strip()
    room = width - len(beside)
    # A name that has no room beside is whole below: it can be copied.
    if room >= max(last_min, *map(len, last.split()), 0):
        first, *more = textwrap.wrap(last, room, break_on_hyphens=False) or [""]
        return [beside + first, *(" " * len(beside) + line for line in more)]
    return [*([beside.rstrip()] if others else []), *_broken(last, width, BELOW)]


def _broken(text: str, width: int, indent: str) -> list[str]:
    """A cell in lines of its own."""
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=BELOW, break_on_hyphens=False)


def printable(text: str, colours: bool) -> str:
    """A line that others wrote, without what would steer a terminal; `colours` may stay.

    What a carriage return would have written over stays readable before a space.
    """
    parted = re.sub(r"\r+(?=.)", " ", text, flags=re.DOTALL)
    return _CONTROL.sub(lambda found: (found["colour"] or "") if colours else "", parted)


def show_line(mark: str, text: str, err: bool = False) -> None:
    """Print a line that others wrote, behind a mark of ours: with its colours where they can be seen."""
    stream = sys.stderr if err else sys.stdout
    click.echo(mark + printable(text, stream.isatty()), err=err)


def show_error(message: str, detail: str, notes: Iterable[str]) -> None:
    """Say on stderr what went wrong: where, what, and what helps."""
    if detail:
        click.echo(detail.rstrip(), err=True)
    click.echo(f"Error: {message}", err=True)
    for note in notes:
        # The detail is often also a note, for those who see the exception itself.
        if detail.strip() not in note or not detail:
            click.echo(note, err=True)


def json_text(value: Any) -> str:
    """Any of our rows, or plain values, as JSON for people and programs."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def duration(seconds: float) -> str:
    """ "0.4s", "12s", "3m20s", "5h01m", "2d04h"."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def money(usd: float) -> str:
    """US dollars to look at: "$1,234.50", "$0.12", "$0.0012"; what is below is "< $0.0001"."""
    if usd == 0:
        return "$0"
    if usd < LEAST_USD:
        return f"< ${LEAST_USD}"
    if usd >= 0.1:
        return f"${usd:,.2f}"
    return f"${usd:.4f}" if usd < 0.01 else f"${usd:.3f}"


def mebibytes(mib: float) -> str:
    """ "512M", "1.5G"."""
    return f"{mib:.0f}M" if mib < 1024 else f"{mib / 1024:.1f}G"


def bar(value: float, whole: float, width: int = 24) -> str:
    """A bar as long as the share of `value` in `whole`; the least there is for anything above zero."""
    eighths = round(min(value / whole, 1.0) * width * 8) if whole > 0 else 0
    eighths = max(eighths, 1) if value > 0 else 0
    return ("█" * (eighths // 8) + _BAR[eighths % 8]).strip()


def clock(at: float) -> str:
    """Local time of day with milliseconds."""
    return time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03d}"


@contextmanager
def progress(title: str) -> Iterator[Callable[[str], None]]:
    """Says on stderr that something is under way; the function it gives tells how far it is.

    A spinner with the newest line on a terminal; elsewhere the plain lines one after the other, of which an error
    does not say in its detail again what they said.
    """
    if not sys.stderr.isatty():
        told: list[str] = []

        def plain(line: str) -> None:
            # The same is said of each function of a module.
            if told[-1:] != [line]:
                told.append(line)
                _aside(f"  {line}")

        _aside(f"{title} …")

        try:
            yield plain
        except SwellError as error:
            if set(told).issuperset(error.detail.splitlines()):
                error.__notes__ = [note for note in getattr(error, "__notes__", ()) if note != error.detail]
                error.detail = ""
            raise
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    with console.status(f"{escape(title)} …") as status:

        def tell(line: str) -> None:
            status.update(f"{escape(title)} … [dim]{escape(beside(title, line, console.width))}[/dim]")

        yield tell


def _aside(line: str) -> None:
    """What is done does not depend on whether anybody reads how far it is (`2>&1 | head`)."""
    with suppress(OSError):
        click.echo(line, err=True)


def beside(title: str, line: str, width: int) -> str:
    """As much of a line as there is room for beside the spinner and the title: whole words, as far as there are."""
    room = max(width - len(f"⠋ {title} … ") - 1, 0)
    if len(line) <= room:
        return line
    cut = line[: max(room - 1, 0)]
    if line[len(cut)] != " ":
        cut = cut.rpartition(" ")[0] or cut
    return cut.rstrip(" ,:;") + "…"


@contextmanager
def patience(title: str, look: Callable[[], str]) -> Iterator[Callable[[], None]]:
    """On a terminal, says after a while what is waited for, as `look` (called on another thread) tells it.

    Calling what it gives, or leaving, takes that away again. Elsewhere nothing is said.
    """
    if not sys.stderr.isatty():
        yield lambda: None
        return
    over = threading.Event()

    def watch() -> None:
        if over.wait(PATIENCE_S):
            return
        with progress(title) as tell:
            while not over.wait(_LOOK_S):
                tell(look())

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()

    def end() -> None:
        over.set()
        watching.join()

    try:
        yield end
    finally:
        end()
