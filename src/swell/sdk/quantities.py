"""How do arguments like cpu=, memory= and min_containers= become resource needs, scaling bounds and seconds?"""

from __future__ import annotations

import math
from typing import Any

from swell.model import gpu
from swell.model.errors import SwellError
from swell.model.limits import COUNT_MAX, SECONDS_MAX
from swell.model.resources import Needs
from swell.model.workload import Scaling
from swell.sdk.frames import point
from swell.sdk.marks import Given
from swell.wire.api import Rescale


def needs(given: Given, ports: tuple[int, ...]) -> Needs:
    """What one replica asks for."""
    default = Needs()
    cpu, cpu_limit = _pair(given, "cpu", whole=False)
    memory, memory_limit = _pair(given, "memory", whole=True)
    return Needs(
        cpu=default.cpu if cpu is None else float(cpu),
        cpu_limit=None if cpu_limit is None else float(cpu_limit),
        memory_mib=default.memory_mib if memory is None else int(memory),
        memory_limit_mib=None if memory_limit is None else int(memory_limit),
        gpu=_gpu(given),
        ports=ports,
    )


def scaling(given: Given) -> Scaling:
    """How many replicas, and when an idle one goes."""
    default = Scaling()
    low = _count(given, "min_containers", 0, default.min_replicas)
    high = _count(given, "max_containers", 1, max(default.max_replicas, low))
    if low > high:
        raise bad(given, "min_containers", f"it is above max_containers={high}")
    idle_s = seconds(given, "scaledown_window", default.idle_s)
    return Scaling(low, high, _count(given, "buffer_containers", 0, default.buffer_replicas), idle_s)


_SIZES = ("min_containers", "max_containers", "buffer_containers", "scaledown_window")


def rescale(given: Given) -> Rescale:
    """What is to change of a scaling that is not known here."""
    if all(given.values[name] is None for name in _SIZES):
        raise SwellError("bad_argument", f"{given.callable}(): give what is to change, like min_containers=1.")
    return sizes(given)


def sizes(given: Given) -> Rescale:
    """The same, where nothing may change."""
    names = _SIZES
    low, high, extra, idle_s = (given.values.get(name) for name in names)
    if low is not None and high is not None:
        scaling(given)
    return Rescale(
        None if low is None else _count(given, names[0], 0, 0),
        None if high is None else _count(given, names[1], 1, 1),
        None if extra is None else _count(given, names[2], 0, 0),
        None if idle_s is None else seconds(given, names[3], 0.0),
    )


def seconds(given: Given, name: str, default: float) -> float:
    """A time above zero."""
    value = given.values[name]
    if value is None:
        return default
    if not _is_number(value) or not 0 < value <= SECONDS_MAX:
        raise bad(given, name, "give seconds above 0, at most a year")
    return float(value)


def timeout_max(given: Given) -> float:
    """What an input may take with all its progress; 0 where progress gives nothing."""
    longest_s, timeout_s = seconds(given, "timeout_max", 0.0), seconds(given, "timeout", 300.0)
    if longest_s and longest_s < timeout_s:
        raise bad(given, "timeout_max", f"it is below timeout={timeout_s:g}, which a call has without any progress")
    return longest_s


def bad(given: Given, name: str, why: str) -> SwellError:
    """An argument that cannot be used."""
    error = SwellError("bad_argument", f"{given.callable}({name}={given.values[name]!r}): {why}.", status=422)
    point(error, given.where)
    return error


def _count(given: Given, name: str, least: int, default: int) -> int:
    value = given.values[name]
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= COUNT_MAX:
        raise bad(given, name, f"give a whole number of at least {least}")
    return value


def _pair(given: Given, name: str, whole: bool) -> tuple[float | None, float | None]:
    value = given.values[name]
    request, limit = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    words = "whole MiB" if whole else "cores"
    for part in (request, limit):
        if part is not None and (not _is_number(part) or part <= 0 or (whole and part != int(part))):
            raise bad(given, name, f"give {words} above 0, or a pair (request, limit)")
    if request is not None and limit is not None and limit < request:
        raise bad(given, name, "the limit is below the request")
    return request, limit


def _gpu(given: Given) -> tuple[str, ...]:
    value = given.values["gpu"]
    kinds = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(kinds, (list, tuple)) or not all(isinstance(kind, str) for kind in kinds):
        raise bad(given, "gpu", "give a kind like 'L4' or 'A100:2', or a list of kinds in order of preference")
    for kind in kinds:
        try:
            gpu.ask(kind)
        except ValueError as error:
            raise bad(given, "gpu", f"{kind!r} {error}") from None
    return tuple(kinds)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
