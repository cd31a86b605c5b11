"""Which powers does an app ask of its engine, and who has those that this one lacks?

A power is what not every engine has. What an engine declares in `capabilities` is of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from swell.model.isolation import LAYERS
from swell.model.node import Node
from swell.model.variant import base_of
from swell.model.workload import App, Revision

POWERS = frozenset({"container", "gpu"})
"""All there are: what nobody can ask for, no engine may declare (the conformance suite looks)."""

_BASE = "Start from Image.debian_slim() and pip_install"
_PROCESS = "Start the process with @web_server(port)"
WAYS: Mapping[str, str] = {
    "apt_install": "Install the packages on the node, or find them as Python wheels",
    "cmd": _PROCESS,
    "dockerfile_commands": "Use pip_install, env, add_local_* and run_function",
    "entrypoint": _PROCESS,
    "from_aws_ecr": _BASE,
    "from_dockerfile": _BASE,
    "from_gcp_artifact_registry": _BASE,
    "from_registry": _BASE,
    "from_scratch": _BASE,
    "micromamba": _BASE,
    "micromamba_install": "Use pip_install where there are wheels, or install it on the node",
    "run_commands": "Do it in Python with Image.run_function, or by hand on the node",
    "shell": "Leave it out: nothing runs commands",
}
"""Method of an image that only a container can honour → what to do without one."""


class Ask(NamedTuple):
    """One thing that not every engine has."""

    power: str
    words: str
    """What asks for it, as its user wrote it."""
    way: str
    """How to do without."""


def asked(revision: Revision) -> Iterator[Ask]:
    """All that a revision asks for."""
    gpu = revision.needs.gpu
    if gpu:
        yield Ask("gpu", f"gpu={gpu[0]!r}" if len(gpu) == 1 else f"gpu={list(gpu)!r}", "Leave gpu= out")
    for step in revision.environment.container_steps:
        yield Ask("container", step.shown, WAYS.get(step.method, "Leave it out"))


def lacking(app: App, here: str, engines: Mapping[str, frozenset[str]]) -> list[str]:
    """Why the engine `here` cannot take this app: a sentence or two for each thing it lacks, with the way out.

    `engines`: what each there is can do.
    """
    revisions = {revision.id: revision for revision in app.revisions}
    asks: dict[Ask, list[str]] = {}
    for workload in app.workloads:
        for ask in asked(revisions[workload.revision]):
            askers = asks.setdefault(ask, [])
            name = base_of(workload.name)
            if name not in askers:
                askers.append(name)
    return [_told(ask, who, here, engines) for ask, who in asks.items() if ask.power not in engines[here]]


def _told(ask: Ask, who: Sequence[str], here: str, engines: Mapping[str, frozenset[str]]) -> str:
    able = sorted(name for name, powers in engines.items() if ask.power in powers)
    asking = f"{who[0]} asks" if len(who) == 1 else f"{', '.join(who[:-1])} and {who[-1]} ask"
    lacks = f"{asking} for {ask.words}, and the {here} engine has no power {ask.power!r}"
    if not able:
        return f"{lacks}; no engine has it yet. {ask.way}."
    return f"{lacks}; {' or '.join(able)} has it. {ask.way}, or deploy it there."


def summary(app: App, here: str, lacks: Sequence[str]) -> str:
    """All of it in one sentence, or the only one."""
    if len(lacks) == 1:
        return lacks[0]
    return f"{app.name} asks for {len(lacks)} things that the {here} engine lacks; nothing was changed."


def listing(lacks: Sequence[str]) -> str:
    """What the sentence leaves out, a line for each."""
    return "\n".join(lacks) if len(lacks) > 1 else ""


def unmountable(app: App, nodes: Sequence[Node]) -> str | None:
    """Why no node could mount the volumes that a workload names, in words; None when one can (or none is known)."""
    revisions = {revision.id: revision for revision in app.revisions}
    why_not = [dict(node.lacks).get("volumes") for node in nodes]
    for workload in app.workloads if why_not and all(why_not) else ():
        if revisions[workload.revision].volumes:
            return (
                f"{workload.written} names volumes=, and node {nodes[0].id!r} cannot mount them: {why_not[0]}. "
                "Leave volumes= out, or deploy where it can."
            )
    return None


def unwalled(app: App, nodes: Sequence[Node]) -> str | None:
    """Why no node could put up the sandbox that a workload requires, in words; None when one can (or none is known)."""
    revisions = {revision.id: revision for revision in app.revisions}
    for workload in app.workloads:
        revision = revisions[workload.revision]
        isolation = revision.isolation
        if isolation is not None and revision.needs.gpu:
            return (
                f"{workload.written} is to run in a sandbox and asks for a GPU, and no sandbox shows a GPU yet. "
                "Leave gpu= or @swell.isolated out."
            )
        if isolation is None or not nodes:
            continue
        missing = [[each for each in LAYERS if each in isolation.required & set(dict(node.lacks))] for node in nodes]
        if all(missing):
            node, (layer, *more) = nodes[0], missing[0]
            others = f", and lacks {', '.join(more)}" if more else ""
            return (
                f"{workload.written} is to run in a sandbox, and node {node.id!r} lacks its layer {layer!r} "
                f"({LAYERS[layer]}): {dict(node.lacks)[layer]}{others}. Name it in "
                "@swell.isolated(optional=…) to do without, or deploy where it is there."
            )
    return None
