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
    """The version of that number; of 0 the newest before the one that takes the traffic."""
    now = current(app)
    before = [version for version in versions if version.number < now]
    if not number and before:
        return before[-1]
    found = next((version for version in versions if version.number == number), None)
    if found is not None:
        return found
    kept = ", ".join(f"v{version.number}" for version in versions) or "none"
    missing = f"v{number} is not" if number else f"No version before v{now} is"
    raise SwellError(
        "unknown_version",
        f"{missing} kept of app {shown(app.key)}. There are: {kept}. `swell app history {shown(app.key)}` lists them.",
        status=404,
    )


def named(app: App, versions: Sequence[Version], numbers: Collection[int]) -> dict[int, App]:
    """The versions of these numbers, as they were deployed; the one that takes the traffic as it is where that is not
    kept: it was deployed before there were versions."""
    gone = {current(app)} - {version.number for version in versions}
    return {
        number: numbered(app if number in gone else chosen(app, versions, number).app, number)
        for number in sorted(numbers)
    }


def rows(app: App, versions: Sequence[Version]) -> list[VersionRow]:
    """The history of an app, the newest first."""
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
                current=version.number == current(app),
                changes=tuple(changes(before, version.app)) if known else (),
            )
        )
        before = version.app
    return told[::-1]


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
