"""How many replicas work on a call? What nodes= and @clustered say, and what of that cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swell.model.errors import SwellError
from swell.model.gang import SIZE_MAX, Gang
from swell.model.isolation import Isolation
from swell.sdk.marks import Given, Marks
from swell.sdk.quantities import bad


def declared(given: Given, marked: Marks) -> Gang | None:
    """The gang that works on each call; None where a replica does alone, and nothing of a class."""
    nodes, least = given.values.get("nodes"), given.values.get("min_nodes")
    if nodes is None:
        if least is not None:
            raise bad(given, "min_nodes", "it goes with nodes=, the most that a call gets")
        return marked.gang
    if marked.gang is not None:
        raise bad(given, "nodes", f"@clustered(size={marked.gang.size}) says it, too: keep one of them")
    for name, most in (("nodes", SIZE_MAX), ("min_nodes", nodes)):
        value = given.values[name]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and 1 <= value <= most):
            raise bad(
                given, name, f"give a whole number from 1 to {most:,}{'' if name == 'nodes' else ', which nodes= is'}"
            )
    return Gang(nodes, 0 if least is None or least == nodes else least)


def check(given: Given, name: str, marked: Marks, streams: bool) -> None:
    """Refuse what cannot be beside a gang: its members take one call from the queue, and end with it."""
    if declared(given, marked) is None:
        return
    says = "nodes=" if marked.gang is None else "@clustered"
    others = {
        "a web endpoint": marked.web is not None,
        "a generator": streams,
        "@batched": marked.batch is not None,
        "@concurrent": marked.max_inputs is not None,
        "@cached": marked.cache is not None,
        "a model of @openai": marked.openai is not None,
        "a model of @tensors": marked.tensors is not None,
    }
    other = next((each for each, there in others.items() if there), None)
    if other is not None:
        words = f"{name} has {says}, so each call has its replicas to itself and comes by the queue: it cannot be"
        raise SwellError("bad_function", f"{words} {other} as well.")
    _check_scaling(given, name, says, given.values)


def check_walls(name: str, walls: Isolation | None) -> None:
    """Members meet on the node's network, and share a folder of it."""
    if walls is not None:
        raise SwellError(
            "bad_function",
            f"{name} has several replicas for a call, which meet on the node's network and share a checkpoint folder: "
            "that cannot be in a sandbox. Leave out @isolated, block_network= and restrict_modal_access=.",
        )


def _check_scaling(given: Given, name: str, says: str, values: Mapping[str, Any]) -> None:
    for argument in ("min_containers", "buffer_containers"):
        if values[argument]:
            raise bad(given, argument, f"{name} has {says}: its replicas start for a call, and end with it")
