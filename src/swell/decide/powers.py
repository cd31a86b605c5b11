"""Which powers does an app ask of its engine, and who has those that this one lacks?

A power is what not every engine has. What an engine declares in `capabilities` is of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swell.model.isolation import LAYERS
from swell.model.node import Node
from swell.model.workload import App, Revision

POWERS = frozenset({"gpu"})
"""All there are: what nobody can ask for, no engine may declare (the conformance suite looks)."""


def asked(revision: Revision) -> dict[str, str]:
    """Power → the argument that asks for it."""
    gpu = revision.needs.gpu
    if not gpu:
        return {}
    return {"gpu": f"gpu={gpu[0]!r}" if len(gpu) == 1 else f"gpu={list(gpu)!r}"}


def refusal(app: App, here: str, engines: Mapping[str, frozenset[str]]) -> str | None:
    """Why the engine `here` cannot take this app, in words; None when it can. `engines`: what each there is can do."""
    revisions = {revision.id: revision for revision in app.revisions}
    for workload in app.workloads:
        for power, argument in asked(revisions[workload.revision]).items():
            if power in engines[here]:
                continue
            able = sorted(name for name, powers in engines.items() if power in powers)
            lacks = f"{workload.name} asks for {argument}, and the {here} engine has no power {power!r}"
            if not able:
                return f"{lacks}; no engine has it yet. Leave {power}= out."
            return f"{lacks}; {' or '.join(able)} has it. Leave {power}= out, or deploy it there."
    return None


def unwalled(app: App, nodes: Sequence[Node]) -> str | None:
    """Why no node could put up the sandbox that a workload requires, in words; None when one can (or none is known)."""
    revisions = {revision.id: revision for revision in app.revisions}
    for workload in app.workloads:
        isolation = revisions[workload.revision].isolation
        if isolation is None or not nodes:
            continue
        missing = [[each for each in LAYERS if each in isolation.required & set(dict(node.lacks))] for node in nodes]
        if all(missing):
            node, (layer, *more) = nodes[0], missing[0]
            others = f", and lacks {', '.join(more)}" if more else ""
            return (
                f"{workload.name} is to run in a sandbox, and node {node.id!r} lacks its layer {layer!r} "
                f"({LAYERS[layer]}): {dict(node.lacks)[layer]}{others}. Name it in "
                "@swell.isolated(optional=…) to do without, or deploy where it is there."
            )
    return None
