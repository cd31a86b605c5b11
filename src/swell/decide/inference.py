"""What does a path of the Open Inference Protocol V2 ask for? Something to be told, or a method that infers."""

from __future__ import annotations

from typing import Literal
from urllib.parse import unquote

import msgspec

from swell.decide.route import Found, NoRoute, Routes, Row, found_in, near
from swell.model.workload import Method, revision_of

_MODELS_SHOWN = 10


class Told(msgspec.Struct, frozen=True):
    """Something that is known without a replica; of a model, of this method."""

    what: Literal["live", "ready", "server", "models", "index", "model", "model_ready"]
    model: str = ""
    row: Row | None = None
    method: Method | None = None

    @property
    def open(self) -> bool:
        """It says no more than that the server is there, to whoever asks."""
        return self.what in ("live", "ready")


_ALONE: dict[tuple[str, ...], Literal["live", "ready", "server", "models", "index"]] = {
    (): "server",
    ("",): "server",
    ("health", "live"): "live",
    ("health", "ready"): "ready",
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
        return NoRoute("unknown_function", _no_model(routes, parts[1]))
    row, method = known
    rest = parts[2:]
    if rest[:1] == ("versions",):
        version = version_of(row)
        if rest[1:2] != (version,):
            asked = rest[1] if len(rest) > 1 else ""
            words = f"Model {parts[1]!r} has no version {asked!r}: its version is {version}. Or leave it out."
            return NoRoute("unknown_function", words)
        rest = rest[2:]
    match rest:
        case ():
            return _allowed(Told("model", parts[1], row, method), http_method, "GET")
        case ("ready",):
            return _allowed(Told("model_ready", parts[1], row, method), http_method, "GET")
        case ("infer",):
            return _allowed(found_in(row, method, face="v2"), http_method, "POST")
    return _no_path()


def version_of(row: Row) -> str:
    """What the protocol calls the version of a model: its revision, which never changes."""
    return revision_of(row.pool)


def _allowed(found: Told | Found, http_method: str, wanted: str) -> Told | Found | NoRoute:
    if http_method == wanted or (wanted == "GET" and http_method == "HEAD"):
        return found
    return NoRoute("method_not_allowed", f"This is asked for with {wanted}.", status=405, allow=wanted)


def _no_path() -> NoRoute:
    return NoRoute(
        "unknown_path",
        "There is nothing at this path. A model is at /v2/models/{model}, and below it are /ready and /infer.",
    )


def _no_model(routes: Routes, name: str) -> str:
    hint = near(name, routes.models)
    if not hint and routes.models:
        names = [*routes.models][:_MODELS_SHOWN]
        hint = f" There is {', '.join(names)}{', …' if len(routes.models) > _MODELS_SHOWN else ''}."
    elif not hint:
        hint = (
            " None is deployed: a method is one whose arguments are annotated as NumPy arrays, or have @swell.tensors."
        )
    return f"There is no model {name!r}.{hint}"
