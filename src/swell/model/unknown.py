"""What is said of an app or a request that is not there? In one place, for whoever is asked."""

from __future__ import annotations

from collections.abc import Iterable

from swell.model.errors import SwellError
from swell.model.workload import DEFAULT_NAMESPACE


def unknown_app(name: str, namespace: str, deployed: Iterable[tuple[str, str]], missing: str = "") -> SwellError:
    """No app of that name; `deployed` are (namespace, name).

    `missing`: what no former app of that name left either, e.g. log lines.
    """
    names = sorted(app for space, app in deployed if space == namespace)
    where = "" if namespace == DEFAULT_NAMESPACE else f" in namespace {namespace!r}"
    there = f"There are: {', '.join(names)}." if names else f"No app is deployed{where}."
    left = f", and {missing}" if missing else ""
    return SwellError("unknown_app", f"There is no app {name!r}{where}{left}. {there}", status=404)


def no_request_id(text: str) -> SwellError:
    """What was asked for cannot be a request's id."""
    words = (
        f"{text!r} is no request's id: one looks like 0b30b5fa04e1-2b, and stands in each answer's Swell-Request-Id "
        "header. `swell why` lists the newest that are kept."
    )
    return SwellError("no_request_id", words, status=404)


def unknown_request(id: str, may_come: bool) -> SwellError:
    """No record of it; where it may still come, asking again is worth it."""
    kept = (
        "Kept are errors (but for a missing or wrong key), cold starts, slow requests and the newest others of each "
        "workload, from two seconds after their end. `swell why` lists them."
    )
    if may_come:
        return SwellError("not_yet", f"Request {id} is not kept, or not yet. {kept}", status=404)
    return SwellError("not_kept", f"Request {id} is not kept. {kept}", status=404)
