"""What is said over the WebSocket of a shell? Text messages are JSON of these; binary ones, what is typed and printed.

Down, a binary message is input of the program. Up, its first byte says whether it is output or (never in a terminal)
errors.
"""

from __future__ import annotations

import msgspec

OUT, ERR = b"\x01", b"\x02"
PIECE = 64 * 1024
"""Bytes of input or output that one message has at most."""
WINDOW = 4 * PIECE
"""Bytes of input that may be on their way: what a program does not read must not keep its end from being heard."""
ENTRY = "swell.runtime.shell"
"""The module that a shell's replica runs in place of the user's."""
SESSION_S = 24 * 3600.0
"""A shell lasts this long at most."""


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """First message down: what to run."""

    command: tuple[str, ...] = ()
    """Empty: bash, or else sh."""
    terminal: bool = True
    """In a terminal of its own; else on three pipes."""
    rows: int = 24
    columns: int = 80
    term: str = ""
    """What kind of terminal (TERM)."""
    prompt: str = ""


class Resize(msgspec.Struct, frozen=True, tag="resize"):
    """The terminal has another size."""

    rows: int
    columns: int


class EndOfInput(msgspec.Struct, frozen=True, tag="end"):
    """Nothing more is typed."""


Down = Begin | Resize | EndOfInput


class Taken(msgspec.Struct, frozen=True, tag="taken"):
    """Up: the program has so many more bytes of its input."""

    size: int


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """Last message up."""

    code: int
    """Exit code of the program, as shells have it: 128 and the number of a signal."""
    why: str = ""
    """Why it could not be started."""


Up = Taken | Ended
