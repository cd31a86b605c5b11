"""How does a shell come to be? An app of its own, of one workload that has all that another's has but its code.

So everything applies to it that applies to that one, on whatever engine: its environment, variables, secrets, limits
and sandbox. It is there for as long as the shell is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from swell.model import workload as model
from swell.model.environment import Environment
from swell.model.errors import SwellError
from swell.model.key import ALL
from swell.model.owner import Owner
from swell.model.retrying import Retrying
from swell.sdk import bundle, describe, load, run
from swell.sdk.bundle import Bundle
from swell.sdk.labels import slug
from swell.sdk.presence import me
from swell.wire.shell import ENTRY, SESSION_S

if TYPE_CHECKING:
    from swell.sdk.app import App
    from swell.sdk.client import Client

PLAIN = "plain"
"""The workload of a shell that is beside no function."""


@dataclass(frozen=True)
class Beside:
    """What a shell is like."""

    revision: model.Revision
    workload: str
    bundles: dict[str, bytes]
    """Those that the server may not have yet."""
    notes: tuple[str, ...] = ()
    namespace: str = ""
    """Where it is deployed; empty where it is not."""


def plain() -> Beside:
    """Nothing but an interpreter: this one."""
    packed: Bundle = bundle.pack({})
    environment = Environment(sys.executable, f"{sys.version_info.major}.{sys.version_info.minor}")
    entry = model.Entry(ENTRY, "shell", "function", (model.Method(PLAIN),))
    return Beside(model.Revision(environment, packed.digest, entry), PLAIN, {packed.digest: packed.data})


async def of_source(reference: str, namespace: str, client: Client) -> Beside:
    """A function or class of a file (an operation): the one that is named, or the only one there is."""
    place, _, name = reference.partition("::")
    app, workload = _chosen(place, name)
    prepared = run.prepare(app, describe.Place(app.name or Path(place).stem, namespace, {}))
    described = await run.bring(prepared, client)
    revision = next(each.revision for each in described.workloads if each.name == workload)
    (found,) = (each for each in described.revisions if each.id == revision)
    return Beside(found, workload, prepared.bundles, tuple(prepared.notes))


def _chosen(place: str, name: str) -> tuple[App, str]:
    """The app, and the workload that `APP.function`, `Class.method` or `function` means."""
    apps = load.apps(place)
    first, _, rest = name.partition(".")
    if first in apps:
        apps, name = {first: apps[first]}, rest
    wanted = name.partition(".")[0]
    found = {(id(app), each): (app, each) for app in apps.values() for each in app.declared if wanted in ("", each)}
    if len(found) == 1:
        return next(iter(found.values()))
    there = sorted({each for app in apps.values() for each in app.declared})
    if not there:
        raise SwellError("empty_app", f"There is no function in {place}: decorate one with @app.function().")
    if not found:
        raise SwellError(
            "unknown_function", f"There is no function {name!r} in {place}. Choose from: {', '.join(there)}."
        )
    raise SwellError("ambiguous", f"Which one? Write {place}::{there[0]}; choose from: {', '.join(there)}.")


async def of_deployed(app: str, workload: str, namespace: str, client: Client) -> Beside:
    """A function or class that is deployed (an operation)."""
    return Beside(await client.revision.start(app, workload, namespace), workload, {}, namespace=namespace)


def app_of(beside: Beside, name: str, namespace: str, owner: Owner) -> model.App:
    """What is deployed for the shell."""
    web = model.Web(kind="asgi", label=slug(name), needs_key=True)
    revision = replace(
        beside.revision,
        entry=model.Entry(ENTRY, "shell", "function", (model.Method(beside.workload, web=web),)),
        # A port is one replica's: the function's own may have it.
        needs=replace(beside.revision.needs, ports=()),
        max_inputs=1,
        target_inputs=1,
        timeout_s=SESSION_S,
        template=False,
        snapshot=False,
        single_use=True,
        retrying=Retrying(),
    )
    scaling = model.Scaling(max_replicas=1)
    workload = model.Workload(namespace, name, beside.workload, revision.id, scaling=scaling)
    return model.App(namespace, name, (workload,), (revision,), owner=owner)


def name_of(stem: str) -> str:
    """A name that no other app has."""
    return run.ephemeral_name(stem)


async def put_up(beside: Beside, name: str, namespace: str, client: Client, progress: Callable[[str], None]) -> str:
    """Have it on the server (an operation); returns the path of its WebSocket there."""
    await run.put_blobs(beside.bundles, client, namespace, ALL)
    await client.deploy.start(app_of(beside, name, namespace, me()), progress)
    return f"/web/{slug(name)}/"
