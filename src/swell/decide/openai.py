"""What does a path of the OpenAI API ask for? What models there are, or one that a request's body names."""

from __future__ import annotations

from urllib.parse import unquote

import msgspec

from swell.decide.route import Found, NoRoute, Routes, Row, found_in, near_or_any, wrong_method
from swell.model.openai import PATHS, Api

_PATHS: dict[str, str] = {api: path for path, api in PATHS.items()}


class Listing(msgspec.Struct, frozen=True):
    """The models that there are; or this one, which belongs to `row`."""

    model: str = ""
    row: Row | None = None

    @property
    def open(self) -> bool:
        """Names are told to those alone who may call."""
        return False

    @property
    def counts(self) -> bool:
        """It is a request of its key."""
        return True


class Asking(msgspec.Struct, frozen=True):
    """A model's work is asked for: which one's stands in the body (`named`)."""

    api: Api


def openai(routes: Routes, http_method: str, path: str) -> Listing | Asking | NoRoute:
    """What `path` (below /v1, as received) asks for."""
    parts = path.removeprefix("/").removesuffix("/")
    api = PATHS.get(parts)
    if api is not None:
        return Asking(api) if http_method == "POST" else wrong_method("POST")
    first, _, rest = parts.partition("/")
    if first != "models":
        words = f"There is nothing at this path. There are /v1/models and /v1/{', /v1/'.join(PATHS)}."
        return NoRoute("unknown_path", words)
    if http_method not in ("GET", "HEAD"):
        return wrong_method("GET")
    name = unquote(rest)
    if not name:
        return Listing()
    row = next((offers[name][0] for offers in routes.offers.values() if name in offers), None)
    return _no_model(routes, name) if row is None else Listing(name, row)


def named(routes: Routes, api: Api, model: str) -> Found | NoRoute:
    """The method that is this model of this part of the API."""
    found = routes.offers[api].get(model)
    if found is not None:
        return found_in(*found, face="v1")
    if not model:
        words = 'The body names no model: it needs "model".'
        return NoRoute("bad_arguments", words, status=400, hint=lambda: near_or_any("", sorted(routes.offers[api])))
    others = [f"/v1/{_PATHS[other]}" for other, offers in routes.offers.items() if model in offers]
    if others:
        words = f"The model {model!r} does not answer here. It does at {' and '.join(others)}."
        return NoRoute("unknown_function", words)
    return _no_model(routes, model)


def _no_model(routes: Routes, name: str) -> NoRoute:
    shown = name[:200]
    return NoRoute("unknown_function", f"There is no model {shown!r}.", hint=lambda: _offered(routes, shown))


def _offered(routes: Routes, name: str) -> str:
    """The models there are instead."""
    names = sorted({model for offers in routes.offers.values() for model in offers})
    return near_or_any(name, names) or " None is deployed: a method is one that has @swell.openai."
