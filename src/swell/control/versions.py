"""Which versions has an app, what changed between them, and which one is meant?"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from swell.model.errors import SwellError
from swell.model.workload import App, Version, Workload, shown
from swell.wire.api import VersionRow

FIRST = 1
"""What was deployed before there were versions."""


def current(app: App) -> int:
    """The version that takes an app's traffic; 0 where it has none, since it belongs to a program."""
    return app.version or (FIRST if app.owner is None else 0)


def numbered(app: App, number: int) -> App:
    """The app as its version of that number."""
    workloads = tuple(
        msgspec.structs.replace(workload, version=number, splits=(), hash_header="") for workload in app.workloads
    )
    return msgspec.structs.replace(app, workloads=workloads, previous=())


def chosen(app: App, versions: Sequence[Version], number: int) -> Version:
    """The version of that number; of 0 the one that had the traffic before the one that takes it."""
    found = _of(versions, number) if number else before(app, versions)
    if found is not None:
        return found
    kept = ", ".join(f"v{version.number}" for version in versions) or "none"
    other = f"No version that had the traffic before v{current(app)}, and is other than that, is"
    missing = f"v{number} is not" if number else other
    raise SwellError(
        "unknown_version",
        f"{missing} kept of app {shown(app.key)}. There are: {kept}. `swell app history {shown(app.key)}` lists them.",
        status=404,
    )


def before(app: App, versions: Sequence[Version]) -> Version | None:
    """What a rollback goes back to: the version that had the traffic when the one was deployed that takes it now; not
    one that never had all of it or did not start, but what was before that; nor one that is as what is there."""
    at = current(app)
    while True:
        this = _of(versions, at)
        # Of what an earlier Swell deployed nobody noted it.
        at = this.over if this is not None and this.over else _newest_before(versions, at)
        if not at:
            return None
        served = this is None or not this.over or this.over_served
        that = _of(versions, at)
        if served and (that is None or not same(that.app, app)):
            return that


def _of(versions: Sequence[Version], number: int) -> Version | None:
    return next((version for version in versions if version.number == number), None)


def _newest_before(versions: Sequence[Version], number: int) -> int:
    return max((version.number for version in versions if version.number < number), default=0)


def same(one: App, other: App) -> bool:
    """Was the same asked for?"""
    return all(change == "unchanged" for _, change in changes(one, other))


def named(app: App, versions: Sequence[Version], numbers: Collection[int]) -> dict[int, App]:
    """The versions of these numbers, as they were deployed; the one that takes the traffic as it is where that is not
    kept: it was deployed before there were versions."""
    gone = {current(app)} - {version.number for version in versions}
    return {
        number: numbered(app if number in gone else chosen(app, versions, number).app, number)
        for number in sorted(numbers)
    }


def rows(app: App, versions: Sequence[Version], rolling: Sequence[str] = ()) -> list[VersionRow]:
    """The history of an app, the newest first. `rolling`: what of the version in place has no traffic yet, and why."""
    serving = _serving(app)
    before: App | None = None
    told = []
    for version in versions:
        # What the oldest that is kept changed is not known, unless it is the first of all.
        known = before is not None or version.number == FIRST
        told.append(
            VersionRow(
                version=version.number,
                at=version.at,
                how=version.how,
                tag=version.tag,
                source=version.app.source,
                current=version.number in serving,
                changes=tuple(changes(before, version.app)) if known else (),
                rolling=tuple(rolling) if version.number == current(app) else (),
            )
        )
        before = version.app
    return told[::-1]


def _serving(app: App) -> set[int]:
    """The versions that have the traffic of one function or another."""
    before = {workload.name: workload.version for workload in app.previous}
    return {before.get(workload.name, workload.version) or FIRST for workload in app.workloads}


def changes(known: App | None, app: App) -> list[tuple[str, str]]:
    """(workload, "new", "changed", "unchanged" or "removed"), by name: what a deploy over `known` does."""
    before = {each.name: _asked(each) for each in known.workloads} if known is not None else {}
    after = {each.name: _asked(each) for each in app.workloads}
    told = dict.fromkeys(before.keys() - after.keys(), "removed")
    for name, what in after.items():
        told[name] = "new" if name not in before else "unchanged" if what == before[name] else "changed"
    return sorted(told.items())


def _asked(workload: Workload) -> Workload:
    """What its author asked for: without what a deploy and a split of the traffic make of that."""
    return msgspec.structs.replace(workload, version=0, splits=(), hash_header="")
