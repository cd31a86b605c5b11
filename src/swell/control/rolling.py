"""How is it told that a new version of an app does not have all its traffic yet?"""

from __future__ import annotations

from swell.control.table import failing
from swell.decide.traffic import GREEN, green
from swell.model.errors import SwellError
from swell.model.workload import App, shown
from swell.model.world import World


def story(world: World, key: str, waiting: str = "") -> str:
    """What a workload's new revision waits for, and what serves meanwhile; empty where it has its traffic.

    `waiting`: why it is not started now, where there is something.
    """
    rolling = world.rolling.get(key)
    if rolling is None:
        return ""
    workload = world.workloads[key]
    new, old = f"v{workload.version}", f"v{rolling.previous.version}"
    if new == old:
        # Of an app that belongs to a program, which has no versions.
        new, old = "the new code", "the old code"
    failures = world.failures.get(workload.pool)
    if failures is not None:
        return f"{new} does not start: {failing(failures).rstrip('.')}; {old} still serves"
    if waiting and not world.in_pool(workload.pool):
        return f"{new} waits for room beside {old}, which serves: {waiting}"
    return f"{new} is starting; {old} serves until it is ready"


def staging(app: App) -> list[str]:
    """What to do about a version that is made ready beside the one that has the traffic."""
    number = green(app)
    if not number:
        return []
    name = shown(app.key)
    return [
        f"v{number} is made ready beside v{app.version}, at /call/{name}@{GREEN}/…: `swell app promote {name}` "
        f"gives it the traffic, `swell app rollback {name}` takes it away"
    ]


def not_started(world: World, app: App) -> SwellError | None:
    """What to say of an app whose new revisions fail to start, while what was before them serves; None where none do,
    or where another deploy came meanwhile."""
    if not _in_place(world, app):
        return None
    failing = [each for each in app.workloads if each.key in world.rolling and each.pool in world.failures]
    if not failing:
        return None
    name = shown(app.key)
    told = " ".join(f"{each.written}: {story(world, each.key)}." for each in failing)
    words = f"{told} `swell logs {name}` has what it wrote."
    if app.version:
        before = world.rolling[failing[0].key].previous.version
        words += f" Deploy again once that is mended, or go back: `swell app rollback {name} v{before}`."
    return SwellError("not_started", words, status=422, detail=world.failures[failing[0].pool].detail)


def asleep(world: World, app: App) -> list[str]:
    """Names of the workloads of which nothing runs, nor will before somebody asks for them."""
    kept = {each.name for each in app.workloads if each.scaling.min_replicas or each.scaling.buffer_replicas}
    running = {each.name for each in app.workloads if any(r.role == "serving" for r in world.in_pool(each.pool))}
    return [each.name for each in app.workloads if each.name not in kept | running]


def served(world: World, app: App) -> bool:
    """Do all functions of what is in place have their traffic, and does none of them fail to start?"""
    failing = (w for w in app.workloads if w.pool in world.failures and not world.ready(w.pool))
    return not app.previous and not any(failing)


def rolls_on(world: World, app: App) -> list[str]:
    """Keys of an app's workloads whose new revision is not ready yet, and did not fail, while that app is in place."""
    if not _in_place(world, app):
        return []
    rolling = (workload for workload in app.workloads if workload.key in world.rolling)
    return [workload.key for workload in rolling if workload.pool not in world.failures]


def _in_place(world: World, app: App) -> bool:
    """Is it this version still?"""
    return app.key in world.apps and world.apps[app.key].version == app.version
