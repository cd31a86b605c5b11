"""How is it told that a new version of an app does not have all its traffic yet?"""

from __future__ import annotations

from swell.control.table import failing
from swell.decide.traffic import GREEN, green
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


def rolls_on(world: World, app: App) -> list[str]:
    """Keys of an app's workloads whose new revision is not ready yet, and did not fail, while that app is in place."""
    if world.apps.get(app.key) is None or world.apps[app.key].version != app.version:
        return []
    rolling = (workload for workload in app.workloads if workload.key in world.rolling)
    return [workload.key for workload in rolling if workload.pool not in world.failures]
