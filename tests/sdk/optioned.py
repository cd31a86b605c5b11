"""How is what is called given options, and a class parameters, for tests to look at what comes of it?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import swell
from sdk import deployable
from swell.sdk import describe, run

OPTIONS: dict[str, Any] = {
    "cpu": (0.5, 2),
    "memory": (256, 512),
    "gpu": ["L4", "A100"],
    "env": {"A": "1", "B": None},
    "retries": 2,
    "max_containers": 3,
    "buffer_containers": 2,
    "scaledown_window": 5,
    "timeout": 7,
    "timeout_max": 900,
}


def with_parameter(**given: Any) -> Any:
    """A class with one, as it is deployed."""
    app = swell.App("a")
    members = {"plain": swell.method()(lambda self: 1), "x": swell.parameter(**given), "__annotations__": {"x": str}}
    app.cls()(type("Made", (), {**members, "__module__": deployable.__name__}))
    return run.prepare(app, describe.Place("a", "default", {})).app


def optioned(kind: str, method: str, **least: Any) -> Callable[..., Any]:
    """What a function, or a class, has with options of one method: of `least`, and of what is given."""

    def options(**given: Any) -> Any:
        app = swell.App("a")
        one = app.function()(deployable.plain) if kind == "Function" else app.cls()(deployable.Model)
        return getattr(one, method)(**{**least, **given})._chosen.options

    return options


VARIED: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "parameter": (with_parameter, {"default": "x", "init": False})
}
"""Callable → how to get with arguments of it what they change, and a value of each that must."""
for _kind in ("Function", "Cls"):
    VARIED[f"{_kind}.with_options"] = (optioned(_kind, "with_options"), OPTIONS)
    VARIED[f"{_kind}.with_concurrency"] = (
        optioned(_kind, "with_concurrency", max_inputs=4),
        {"max_inputs": 9, "target_inputs": 2},
    )
    VARIED[f"{_kind}.with_batching"] = (
        optioned(_kind, "with_batching", max_batch_size=4, wait_ms=5),
        {"max_batch_size": 9, "wait_ms": 50},
    )
