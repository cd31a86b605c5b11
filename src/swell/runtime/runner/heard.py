"""How much of what a process says is kept? Its code can make it say anything: as much as a person reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from swell.wire.child import Failed, Ready, Stuck, Unforked, Up

DETAIL_MAX = 32 * 1024
"""Characters of a traceback: the first and the last half of them."""
WORDS_MAX = 1000
"""Characters of a reason."""
NAME_MAX = 100
LIST_MAX = 1000
"""Names, times and ids."""


def abridged(message: Up, redact: Callable[[str], str]) -> Up:
    """The message, with no more than is kept of it, and without what `redact` takes out of its text."""
    match message:
        case Failed():
            return Failed(_words(message.reason), _detail(message.detail, redact))
        case Ready():
            timings_ms = tuple((name[:NAME_MAX], ms) for name, ms in message.timings_ms[:LIST_MAX])
            threads = _names(message.threads)
            return replace(message, timings_ms=timings_ms, threads=threads, refused=_words(message.refused))
        case Unforked():
            return replace(message, why=_words(message.why))
        case Stuck():
            return replace(message, requests=_names(message.requests))
        case _:
            return message


def _names(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name[:NAME_MAX] for name in names[:LIST_MAX])


def _words(text: str) -> str:
    return text if len(text) <= WORDS_MAX else text[: WORDS_MAX - 1] + "…"


def _detail(text: str, redact: Callable[[str], str]) -> str:
    """Each end is redacted by itself: a piece of a secret at a cut is known as such where it is the text's edge."""
    left_out = len(text) - DETAIL_MAX
    if left_out <= 0:
        return redact(text)
    half = DETAIL_MAX // 2
    return f"{redact(text[:half])}\n… [{left_out} more characters] …\n{redact(text[-half:])}"
