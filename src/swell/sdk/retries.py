"""How often is a failed call tried again, and after how long?"""

from __future__ import annotations

from swell.model.errors import SwellError
from swell.model.retrying import Retrying
from swell.sdk.signatures import public


class Retries:
    """A retry policy. Delays are in seconds; each is `backoff_coefficient` times the one before, at most `max_delay`.

    `retries=3` on a function is short for `Retries(max_retries=3, backoff_coefficient=1.0, initial_delay=1.0)`.
    """

    @public
    def __init__(
        self,
        *,
        max_retries: int,
        backoff_coefficient: float = 2.0,
        initial_delay: float = 1.0,
        max_delay: float = 60.0,
    ) -> None:
        _within("max_retries", max_retries, 0, 10)
        _within("backoff_coefficient", backoff_coefficient, 1.0, 10.0)
        _within("initial_delay", initial_delay, 0.0, 60.0)
        _within("max_delay", max_delay, 0.0, 86400.0)
        self.retrying = Retrying(max_retries, float(backoff_coefficient), float(initial_delay), float(max_delay))

    def __repr__(self) -> str:
        kept = self.retrying
        return (
            f"Retries(max_retries={kept.max_retries}, backoff_coefficient={kept.backoff_coefficient:g}, "
            f"initial_delay={kept.initial_delay_s:g}, max_delay={kept.max_delay_s:g})"
        )


NEVER = Retrying()
"""A failed call is not tried again."""


def retrying(value: int | Retries | None) -> Retrying:
    """What `retries=` means. A plain number waits one second before each try."""
    if value is None:
        return NEVER
    if isinstance(value, int) and not isinstance(value, bool):
        return Retries(max_retries=value, backoff_coefficient=1.0).retrying
    if isinstance(value, Retries):
        return value.retrying
    raise SwellError("bad_argument", f"retries={value!r}: give a number or swell.Retries(max_retries=…).")


def delay_s(retrying: Retrying, failed: int) -> float | None:
    """Seconds to wait after the `failed`th failure (1 = first); None = give up."""
    return None if failed > retrying.max_retries else retrying.delay_s(failed)


def _within(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise SwellError("bad_argument", f"Retries({name}={value!r}): must be between {low:g} and {high:g}.")
