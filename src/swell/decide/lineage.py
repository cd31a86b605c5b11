"""Which keys does a key come from, and what may one have at most that is made with another?

A key never gives more than it has. One that is made with it may do no more (`access.may_manage`) and ends when it ends;
whatever is asked with it counts at the limits of both, so that all that come from one are together held to its limits.
Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from swell.model.errors import SwellError
from swell.model.key import ApiKey

LINEAGE_MAX = 8
"""Keys in a row of which each was made with the next: all their limits are asked at the door."""


def lineage(key: ApiKey, known: Callable[[str], ApiKey | None]) -> tuple[ApiKey, ...]:
    """The key, the one it was made with, and so on. The last was made with the server's own, or with one not known."""
    line = [key]
    while line[-1].made_by and len(line) < LINEAGE_MAX:
        maker = known(line[-1].made_by)
        if maker is None:
            break
        line.append(maker)
    return tuple(line)


def ends_at(line: Sequence[ApiKey]) -> float | None:
    """When the first of these keys expires; None: none does."""
    return min((each.expires_at for each in line if each.expires_at is not None), default=None)


def end_of(asked_s: float | None, maker: Sequence[ApiKey], now: float) -> float | None:
    """When a key that is made now expires. `maker`: the lineage of the key it is made with, none of the server's own.

    Without a word it is when that one does. SwellError bad_limit where it was to be later.
    """
    last = ends_at(maker)
    if asked_s is None:
        return last
    if last is not None and now + asked_s > last:
        raise SwellError(
            "bad_limit",
            f"The key cannot be made: it would outlive {maker[0].id}, which it is made with and which ends in "
            f"{max(last - now, 0.0):.0f} s. Ask for no more (--expires), or leave it out: it ends with that one then.",
            status=422,
        )
    return now + asked_s


def may_make(maker: Sequence[ApiKey]) -> SwellError | None:
    """Why no key can be made with one of this lineage; None: one can."""
    if len(maker) < LINEAGE_MAX:
        return None
    words = (
        f"The key cannot be made: {maker[0].id} stands at the end of {len(maker)} keys of which each was made with the "
        "one before, which is the most that may be. Make it with one of those, or with the server's own."
    )
    return SwellError("invalid", words, status=422)
