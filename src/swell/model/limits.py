"""What may a user ask for at most, and what may a key or a workload be bounded to?

The first the SDK says where it is written, the API to whoever deploys; the second the gateways hold.
"""

from __future__ import annotations

import math
import re

import msgspec

from swell.model.errors import SwellError

SECONDS_MAX = 366 * 86_400.0
"""A time longer than a year is a mistake; the event loop's timers could not hold it either."""
COUNT_MAX = 1_000_000
"""Inputs, replicas, retries."""
RATE_MAX = 1e6
"""Requests per second: no gateway sees as many."""
RATE_MIN = 1 / SECONDS_MAX
"""One a year: who has to wait for longer may not come at all."""
BYTES_MAX = 1 << 40
BATCH_SIZE_MAX = 1000
BATCH_WAIT_MS_MAX = 600_000
"""Ten minutes: a batch of a dear model may be worth waiting for, a lost one is not."""
BUNDLE_MAX = 64 * 1024 * 1024
"""Bytes of all files of one program's source together."""
IMPORT_TIMEOUT_MIN_S = 60.0
"""For importing what is to be deployed, where `startup_timeout=` is less."""
BUILD_TIMEOUT_S = 1800.0
"""For installing an environment's packages."""
PROCESSES_MAX = 4096
"""Processes and threads one replica may have."""
SANDBOX_PROCESSES_MAX = 512
"""The same of one in a sandbox."""
SANDBOX_MEMORY_MIB = 1024
"""What a sandboxed replica may use that has no limit of its own; one that asks for much gets twice that."""
SANDBOX_SCRATCH_MAX_MIB = 512
"""Of its /tmp: a quarter of its memory, and no more than this."""
HTTP_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")
"""Of a function that is a web endpoint."""

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(s|sec|second|m|min|minute|h|hour|d|day)\Z")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}\Z")
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE = re.compile(r"(\d+)\s*(|B|KB|MB|GB|KiB|MiB|GiB)\Z")
_SIZES = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is let in of one key, or to one workload. 0 = not bounded."""

    rate_per_s: float = 0.0
    """Requests per second in the long run."""
    burst: int = 0
    """Requests that may come at once, with a rate; 0 = what one second of it lets in, at least one."""
    concurrency: int = 0
    """Requests under way at the same time, those that wait for a replica included."""
    body_max: int = 0
    """Bytes of one request's body, if that is less than the server's own `body_max`."""
    timeout_s: float = 0.0
    """Of a key: how long one request may take from when it came, waiting included."""

    @property
    def burst_max(self) -> int:
        """Requests that may come at once."""
        return self.burst or max(math.ceil(self.rate_per_s), 1)


UNLIMITED = Limits()


def vary_problem(name: object) -> str | None:
    """Why answers cannot be kept apart by a header of that name; None: they can."""
    if not isinstance(name, str) or not _HEADER.match(name):
        return "it is the name of a header, such as 'accept-language'"
    if name.lower().startswith("swell-") or name.lower() in ("connection", "content-length", "host"):
        return "no answer depends on that header: functions are not given it"
    return None


def limits_problem(limits: Limits) -> str | None:
    """What is wrong with limits that came from outside."""
    for name, most in (
        ("rate_per_s", RATE_MAX),
        ("burst", COUNT_MAX),
        ("concurrency", COUNT_MAX),
        ("body_max", BYTES_MAX),
        ("timeout_s", SECONDS_MAX),
    ):
        value = getattr(limits, name)
        if not 0 <= value <= most:
            return f"{name} must be from 0 (not bounded) to {most:g}, not {value:g}"
    if 0 < limits.rate_per_s < RATE_MIN:
        return f"rate_per_s must be 0 (not bounded) or at least one a year ({RATE_MIN:.2g}), not {limits.rate_per_s:g}"
    if limits.burst and not limits.rate_per_s:
        return "burst without a rate bounds nothing: give a rate, too"
    return None


def rate_of(value: object) -> float:
    """Requests per second of "100/s", "30/min" or a number. SwellError bad_limit for anything else, and for less than
    one a year."""
    per_s = 0.0
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        per_s = float(value)
    elif isinstance(value, str) and (found := _RATE.match(value.strip())):
        per_s = float(found[1]) / _UNIT_S[found[2][0]]
    if not RATE_MIN <= per_s <= RATE_MAX:
        raise SwellError("bad_limit", f"{value!r} is no rate such as '100/s', '30/min' or '1000/h'.", status=422)
    return per_s


def size_of(value: object) -> int:
    """Bytes of "10MiB", "500KB" or a number. SwellError bad_limit for anything else."""
    size = 0
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (found := _SIZE.match(value.strip())):
        size = int(found[1]) * _SIZES.get(found[2], 1)
    if not 0 < size <= BYTES_MAX:
        raise SwellError("bad_limit", f"{value!r} is no size above 0 such as 1000000, '500KB' or '10MiB'.", status=422)
    return size
