"""Rows of a gateway's table, for tests of what requests lead to."""

from __future__ import annotations

from typing import Any

from swell.model.workload import Method
from swell.wire.link import Route


def a_row(
    namespace: str,
    app: str,
    name: str,
    methods: tuple[Method, ...],
    is_class: bool = False,
    pool: str = "",
    **more: Any,
) -> Route:
    """A workload's, of one revision."""
    return Route(namespace, app, name, pool or f"{namespace}/{app}/{name}@rv-1", methods, is_class, **more)
