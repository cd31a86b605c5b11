"""May a request that finds no free slot wait for one, or must it be refused, and in which words?"""

from __future__ import annotations

import msgspec


class Refusal(msgspec.Struct, frozen=True):
    """Why a request is not held. `status` is the HTTP status; the caller may try again after `retry_after_s`."""

    status: int
    code: str
    message: str
    retry_after_s: int


def admit(
    workload: str,
    *,
    held: int,
    hold_max: int,
    held_bytes: int,
    body_bytes: int,
    hold_bytes_max: int,
    closed: str = "",
    retry_after_s: int = 1,
) -> Refusal | None:
    """None: hold it. Limits are inclusive: exactly `hold_max` requests and `hold_bytes_max` bytes may be held.

    `held` counts the pool's own waiting requests, `held_bytes` the bodies of all that wait at this gateway,
    `body_bytes` what has arrived of this one. `closed` says why no replica can be had at all; with it set,
    waiting is pointless and is not begun before `retry_after_s`.
    """
    if closed:
        return unavailable(workload, closed, retry_after_s)
    if held >= hold_max:
        return Refusal(
            429,
            "too_many_held",
            f"{held} requests already wait for a replica of {workload}, which is the most that may (hold_max). "
            f"Try again later, or give it more replicas (max_containers).",
            1,
        )
    if body_bytes and held_bytes + body_bytes > hold_bytes_max:
        return Refusal(
            429,
            "too_many_held",
            f"Requests that wait for a replica already hold {held_bytes} bytes of bodies, and the limit is "
            f"{hold_bytes_max} (hold_bytes_max). Try again later.",
            1,
        )
    return None


def held_too_long(workload: str, hold_s: float) -> Refusal:
    """What a request is told that waited for as long as any may. It was not begun: its caller may send it again."""
    message = (
        f"No replica of {workload} could take it within {hold_s:g} s, and it was not begun. "
        "Try again, give it more replicas (max_containers), or let requests wait longer (hold_s)."
    )
    return Refusal(503, "held_too_long", message, 1)


def unavailable(workload: str, closed: str, retry_after_s: int) -> Refusal:
    """What a request is told when no replica can be had at all, whether it comes now or was held."""
    why = closed.rstrip(".")
    message = f"{workload} cannot be started now: {why}. Try again in {retry_after_s} s."
    return Refusal(503, "no_replica", message, retry_after_s)
