"""How a line of user output carries the request it belongs to through a plain pipe.

A replica's stdout and stderr are one pipe to the runner. Python-level writes are marked
(`\\x1e{stream}{request}\\x1f{text}`); what C code or a subprocess writes arrives unmarked. The runner
turns each line into a JSON object of the shape `LogLine` in the app's log file. An input that printed something says
so when it ends (`\\x1e-{request}\\x1f`), so that a crash later on is not put down to its lines. What a batch prints is
under an id of its own, in front of which stands who is in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from swell.model.request import BATCH_STREAM

LINE_MAX = 16 * 1024
"""Characters of one line that are kept; the rest is cut and counted."""

ENDED = "end"
"""The stream of what is no line: the request has ended."""
STREAMS = {"o": "out", "e": "err", "-": ENDED, "=": BATCH_STREAM}
MEMBERS_MAX = 200
"""Of a batch in one line."""


class LogLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line in `logs/{namespace}/{app}.ndjson`."""

    at: float
    pool: str
    replica: str
    request: str
    stream: str
    """"out", "err", "batch" (see there), or "sys": Swell's own notes about the replica (start, crash, traceback)."""
    text: str
    rank: int | None = None
    """Of a member of a gang."""


def mark(stream: str, request: str, text: str) -> str:
    """One line (without its newline) with its origin. `stream` is "o" or "e"."""
    return f"\x1e{stream}{request}\x1f{text}"


def mark_end(request: str) -> str:
    """Of an input that printed something: it has ended."""
    return mark("-", request, "")


def mark_batch(id: str, requests: Sequence[str]) -> list[str]:
    """Who is in a batch: what is printed under its id belongs to all of these requests."""
    return [mark("=", id, " ".join(requests[at : at + MEMBERS_MAX])) for at in range(0, len(requests), MEMBERS_MAX)]


def unmark(line: str) -> tuple[str, str, str]:
    """(stream, request, text) of a line; unmarked lines are ("out", "", line)."""
    if not line.startswith("\x1e"):
        return "out", "", line
    head, separator, text = line[1:].partition("\x1f")
    if not separator or head[:1] not in STREAMS:
        return "out", "", line
    return STREAMS[head[0]], head[1:], text
