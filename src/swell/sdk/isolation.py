"""What does `@isolated` declare, and which sandbox do it and Modal's arguments make together?"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from msgspec.structs import replace

from swell.model.errors import SwellError
from swell.model.isolation import LAYERS, Isolation

Network = Literal["none", "node"]


def declared(network: Network, readable: Iterable[str], writable: Iterable[str], optional: Iterable[str]) -> Isolation:
    """What the decorator was given, checked."""
    if network not in ("none", "node"):
        raise SwellError("bad_argument", f"@isolated(network={network!r}): use 'none' or 'node'.")
    layers = _texts("optional", optional)
    unknown = next((layer for layer in layers if layer not in LAYERS), None)
    if unknown is not None:
        words = f"@isolated(optional=…): there is no layer {unknown!r}; they are {', '.join(LAYERS)}."
        raise SwellError("bad_argument", words)
    return Isolation(network, _folders("readable", readable), _folders("writable", writable), layers)


def combined(name: str, own: Isolation | None, values: Mapping[str, Any], ports: tuple[int, ...]) -> Isolation | None:
    """The sandbox of the workload `name`: `own` is what `@isolated` says, `values` what `@app.function` was given."""
    blocked, restricted = bool(values["block_network"]), bool(values["restrict_modal_access"])
    if own is None and not blocked and not restricted:
        return None
    if own is not None and own.network == "node" and blocked:
        raise SwellError(
            "bad_argument", f"{name}: block_network=True and @isolated(network='node') contradict each other."
        )
    found = own or Isolation(network="none" if blocked else "node")
    if found.network == "none" and ports:
        raise SwellError(
            "bad_argument",
            f"{name} listens on port {ports[0]}, where nobody reaches a sandbox without a network: "
            "give it @isolated(network='node').",
        )
    return replace(found, calls=not restricted)


def _folders(name: str, given: Iterable[str]) -> tuple[str, ...]:
    folders = tuple(posixpath.normpath(each) for each in _texts(name, given))
    for folder in folders:
        if not folder.startswith("/") or folder.strip("/") == "":
            raise SwellError("bad_argument", f"@isolated({name}=…): {folder!r} is no absolute path of a folder.")
    return folders


def _texts(name: str, given: object) -> tuple[str, ...]:
    texts = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (None,)
    if not all(isinstance(each, str) for each in texts):
        raise SwellError("bad_argument", f"@isolated({name}={given!r}): give a list of texts.")
    return texts
