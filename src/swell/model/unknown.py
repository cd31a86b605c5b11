"""What is said of an app that is not there? That it is not, and which are: in one place for whoever is asked."""

from __future__ import annotations

from collections.abc import Iterable

from swell.model.errors import SwellError
from swell.model.workload import DEFAULT_NAMESPACE


def unknown_app(name: str, namespace: str, deployed: Iterable[tuple[str, str]], nothing: str = "") -> SwellError:
    """The error; `deployed` are (namespace, name), `nothing` says what one that was there has not left."""
    names = sorted(app for space, app in deployed if space == namespace)
    where = "" if namespace == DEFAULT_NAMESPACE else f" in namespace {namespace!r}"
    there = f"There are: {', '.join(names)}." if names else f"No app is deployed{where}."
    left = f", and {nothing}" if nothing else ""
    return SwellError("unknown_app", f"There is no app {name!r}{where}{left}. {there}", status=404)
