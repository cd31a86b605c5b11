"""What is said of an app, a request or a call that is not there? In one place, for whoever is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from swell.model.errors import NotFoundError, SwellError
from swell.model.workload import DEFAULT_NAMESPACE, App, shown


def unknown_app(name: str, namespace: str, deployed: Iterable[tuple[str, str]], missing: str = "") -> SwellError:
    """No app of that name; `deployed` are (namespace, name).

    `missing`: what no former app of that name left either, e.g. log lines.
    """
    names = sorted(app for space, app in deployed if space == namespace)
    where = "" if namespace == DEFAULT_NAMESPACE else f" in namespace {namespace!r}"
    there = f"There are: {', '.join(names)}." if names else f"No app is deployed{where}."
    left = f", and {missing}" if missing else ""
    return SwellError("unknown_app", f"There is no app {name!r}{where}{left}. {there}", status=404)


class UnknownApp(NotFoundError):
    """The same, told by a server: of the apps that are there each caller is to hear of those alone that it may see."""

    def __init__(self, name: str, namespace: str, deployed: Iterable[tuple[str, str]], missing: str = "") -> None:
        self.name = name
        self.namespace = namespace
        self.deployed = [*deployed]
        self.missing = missing
        told = unknown_app(name, namespace, self.deployed, missing)
        super().__init__(told.code, told.message, status=told.status)

    def seen(self, sees: Callable[[str, str], bool]) -> UnknownApp:
        """As somebody is told who `sees` apps (by namespace and name), or does not."""
        return UnknownApp(self.name, self.namespace, (app for app in self.deployed if sees(*app)), self.missing)


def unknown_workload(app: App, name: str) -> SwellError:
    """No function or class of that name in an app."""
    listed = ", ".join(sorted({workload.base for workload in app.workloads}))
    words = f"App {shown(app.key)} has no function {name[:80]!r}. Choose from: {listed}."
    return SwellError("unknown_function", words, status=404)


def no_request_id(text: str) -> SwellError:
    """What was asked for cannot be a request's id."""
    words = (
        f"{text!r} is no request's id: one looks like 0b30b5fa04e1-2b, and stands in each answer's Swell-Request-Id "
        "header. `swell why` lists the newest that are kept."
    )
    return SwellError("no_request_id", words, status=404)


def unknown_trigger(app: str, name: str, names: Sequence[str]) -> SwellError:
    """No trigger of that name in an app, which has these."""
    has = f"It has {', '.join(names)}." if names else "It has none: schedule= of a function makes one."
    return SwellError("unknown_trigger", f"App {app} has no trigger {name[:80]!r}. {has}", status=404)


def unknown_request(id: str, may_come: bool) -> SwellError:
    """No record of it; where it may still come, asking again is worth it."""
    kept = (
        "Kept are errors (but for a missing or wrong key), cold starts, slow requests and the newest others of each "
        "workload, from two seconds after their end. `swell why` lists them."
    )
    if may_come:
        return SwellError("not_yet", f"Request {id} is not kept, or not yet. {kept}", status=404)
    return SwellError("not_kept", f"Request {id} is not kept. {kept}", status=404)


def unknown_call(id: str) -> SwellError:
    """None of that id, or none that is kept."""
    kept = "Results are kept for 7 days after a call's end, dead letters for 30. `swell calls list` shows the newest."
    return SwellError("unknown_call", f"There is no queued call {id[:80]!r} here. {kept}", status=404)


def unknown_group(id: str) -> SwellError:
    """Nothing of it, or nothing that is kept, or for this key."""
    kept = (
        "Calls of a map are kept until it has their results, or for an hour after their end; those of spawn_map for 7 "
        "days, dead letters for 30."
    )
    return SwellError("unknown_call", f"There is no call of the group {id[:80]!r} here. {kept}", status=404)
