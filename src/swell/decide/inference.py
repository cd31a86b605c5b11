"""What does a path of the Open Inference Protocol V2 ask for? Something to be told, or a method that infers."""

from __future__ import annotations

from typing import Literal, NamedTuple
from urllib.parse import unquote

import msgspec

from swell.decide.route import Alone, Found, NoRoute, Routes, Row, alone, found_in, near_or_any, tagging, wrong_method
from swell.model.traffic import Branch
from swell.model.workload import Method, revision_of


class Told(msgspec.Struct, frozen=True):
    """Something that is known without a replica; of a model, of this method."""

    what: Literal["live", "ready", "key", "server", "models", "index", "model", "model_ready"]
    model: str = ""
    row: Row | None = None
    method: Method | None = None

    @property
    def open(self) -> bool:
        """It says no more than that the server is there, to whoever asks."""
        return self.what in ("live", "ready")

    @property
    def counts(self) -> bool:
        """It is a request of its key, and not only asked for the sake of one."""
        return not self.open and self.what != "key"


_ALONE: dict[tuple[str, ...], Literal["live", "ready", "key", "server", "models", "index"]] = {
    (): "server",
    ("",): "server",
    ("health", "live"): "live",
    ("health", "ready"): "ready",
    ("health", "key"): "key",
    ("models",): "models",
    ("repository", "index"): "index",
}


def inference(routes: Routes, http_method: str, path: str) -> Told | Found | NoRoute:
    """What `path` (below /v2, as received) asks for."""
    parts = tuple(unquote(part) for part in path.removeprefix("/").split("/"))
    alone = _ALONE.get(parts)
    if alone is not None:
        return _allowed(Told(alone), http_method, "POST" if alone == "index" else "GET")
    if parts[0] == "repository":
        return NoRoute("unknown_path", "Models are loaded by `swell deploy`, and for each request that needs one.")
    if parts[0] != "models":
        return _no_path()
    known = routes.models.get(parts[1])
    if known is None:
        words = f"There is no model {parts[1]!r}."
        return NoRoute("unknown_function", words, hint=lambda: _offered(routes, parts[1]))
    row, method = known
    rest = parts[2:]
    if rest[:1] == ("versions",):
        asked = rest[1] if len(rest) > 1 else ""
        version = next((each for each in versions_of(row, method) if asked in each.names), None)
        if version is None:
            return NoRoute("unknown_function", _no_version(row, method, parts[1], asked))
        row, method, rest = version.row, version.method, rest[2:]
        if isinstance(row, Alone):
            row = msgspec.structs.replace(row, tag=asked)
    match rest:
        case ():
            return _allowed(Told("model", parts[1], row, method), http_method, "GET")
        case ("ready",):
            return _allowed(Told("model_ready", parts[1], row, method), http_method, "GET")
        case ("infer",):
            return _allowed(found_in(row, method, face="v2"), http_method, "POST")
    return _no_path()


class Version(NamedTuple):
    """A revision of a model that can be asked for by name."""

    names: tuple[str, ...]
    """The revision, which never changes and which answers have, and what it is called now: v3, 3, and its tag."""
    row: Row
    method: Method


def versions_of(row: Row, method: Method) -> list[Version]:
    """Those of a model: first the one that is had without a name, then those that traffic is split among or tags lead
    to, as far as the method is a model there."""
    found: dict[str, Version] = {}
    for branch in (Branch(row.pool, row.version, row.methods), *row.branches):
        own = next((each for each in branch.methods if each.name == method.name and each.tensors is not None), None)
        if own is None:
            continue
        revision = revision_of(branch.pool)
        known = found.get(revision) or Version((revision,), alone(row, branch) if row.branches else row, own)
        number = (f"v{branch.version}", f"{branch.version}") if branch.version else ()
        names = (*known.names, *number, *filter(None, (branch.tag,)))
        found[revision] = known._replace(names=tuple(dict.fromkeys(names)))
    return [*found.values()]


def _allowed(found: Told | Found, http_method: str, wanted: str) -> Told | Found | NoRoute:
    if http_method == wanted or (wanted == "GET" and http_method == "HEAD"):
        return found
    return wrong_method(wanted)


def _no_path() -> NoRoute:
    return NoRoute(
        "unknown_path",
        "There is nothing at this path. A model is at /v2/models/{model}, and below it are /ready and /infer.",
    )


def _no_version(row: Row, method: Method, model: str, asked: str) -> str:
    there = []
    for version in versions_of(row, method):
        revision, *others = (name for name in version.names if not name.isdigit())
        there.append(f"{revision} ({', '.join(others)})" if others else revision)
    known = f"its version is {there[0]}" if len(there) == 1 else f"its versions are {', '.join(there)}"
    words = f"Model {model!r} has no version {asked[:80]!r}: {known}. Or leave it out."
    return f"{words} `{tagging(row)}` lets another one be asked for."


def _offered(routes: Routes, name: str) -> str:
    """The models there are instead."""
    none = " None is deployed: a method is one whose arguments are annotated as NumPy arrays, or have @swell.tensors."
    return near_or_any(name, [*routes.models]) or none
