"""What can be the name of a namespace or an app? Who deploys one is told, and so is who asks for one."""

from __future__ import annotations

import re

from swell.model.errors import SwellError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")


def name_problem(kind: str, name: str) -> str | None:
    """What is wrong with the name of a namespace or an app."""
    if _NAME.match(name):
        return None
    return (
        f"{kind} {name[:80]!r} is no name: use up to 63 letters, digits, dots, dashes and underscores, "
        "beginning with a letter or digit"
    )


def check_names(namespace: str, app: str) -> None:
    """Refuse what can be no name. An empty `app` stands for all."""
    for kind, name in [("namespace", namespace), *([("app", app)] if app else [])]:
        problem = name_problem(kind, name)
        if problem is not None:
            raise SwellError("bad_request", f"{problem}.")
