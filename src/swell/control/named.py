"""Secrets and volumes are found by a name: what can be one, which are there, and which apps use it?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from swell.model.errors import SwellError
from swell.model.names import name_problem
from swell.model.secret import SecretUse
from swell.model.volume import VolumeUse
from swell.model.workload import DEFAULT_NAMESPACE, Revision
from swell.model.world import World

Key = tuple[str, str]
"""Namespace and name."""


def check_name(kind: str, namespace: str, name: str) -> None:
    """Refuse what can be no name."""
    for what, text in (("namespace", namespace), (kind, name)):
        problem = name_problem(what, text)
        if problem is not None:
            raise SwellError("bad_name", f"{problem}.", status=400)


def unknown(kind: Literal["secret", "volume"], key: Key, there: Iterable[Key], way: str) -> SwellError:
    """There is none of this name. `there`: those there are, in all namespaces; `way`: how it comes to be."""
    namespace, name = key
    names = sorted(other for space, other in there if space == namespace)
    where = "" if namespace == DEFAULT_NAMESPACE else f" in namespace {namespace!r}"
    others = f"There are: {', '.join(names)}." if names else f"None is there{where}."
    code = {"secret": "unknown_secret", "volume": "unknown_volume"}[kind]
    return SwellError(code, f"There is no {kind} {name!r}{where}. {others} {way}.", status=404)


def users(world: World, key: Key, uses: Callable[[Revision], Iterable[SecretUse | VolumeUse]]) -> list[str]:
    """The apps that are deployed and name it, "namespace/name"."""
    return sorted(
        app.key
        for app in world.apps.values()
        if any(use.key == key for revision in app.revisions for use in uses(revision))
    )
