"""What is an app once its traffic goes to several of its versions? Composed of what each of them was deployed as."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from swell.model.errors import SwellError
from swell.model.traffic import Traffic
from swell.model.workload import App, Split, Workload, model_name, only_wanted

GREEN = "green"
"""The tag of a version that is made ready beside the one that takes the traffic."""
LABEL_MAX = 63
"""Characters of a name in a host."""


def alone(app: App) -> App:
    """The app without what is reached beside its own revisions."""
    workloads = tuple(msgspec.structs.replace(each, splits=(), hash_header="") for each in app.workloads)
    return only_wanted(msgspec.structs.replace(app, workloads=workloads, previous=()))


def split(live: App, traffic: Traffic, versions: Mapping[int, App]) -> App:
    """`live` with the traffic that is asked for; `versions` has every one that is named, as it was deployed."""
    names = [workload.name for workload in live.workloads]
    if traffic.function and traffic.function not in names:
        raise SwellError(
            "unknown_function",
            f"App {live.name!r} has no function or class {traffic.function!r}. It has {', '.join(names)}.",
            status=404,
        )
    workloads = []
    for workload in live.workloads:
        asked = not traffic.function or workload.name == traffic.function
        workloads.append(_split(workload, traffic, versions) if asked else workload)
    revisions = (*live.revisions, *(each for app in versions.values() for each in app.revisions))
    composed = msgspec.structs.replace(live, workloads=tuple(workloads), revisions=revisions, previous=())
    _check_labels(composed)
    return only_wanted(composed)


def unsplit(live: App, traffic: Traffic) -> list[str]:
    """Which splits end for want of shares, a phrase each: what is asked for is the whole of it."""
    if traffic.shares:
        return []
    return [
        f"{each.name} is split no more, since no shares were named: v{each.version} has all of its traffic, and had "
        f"{100 - sum(other.percent for other in each.splits):g}%"
        for each in live.workloads
        if traffic.function in ("", each.name) and any(other.percent for other in each.splits)
    ]


def _split(workload: Workload, traffic: Traffic, versions: Mapping[int, App]) -> Workload:
    """One workload; a version that does not have it gets none of its traffic."""
    of = {number: _named(app, workload.name) for number, app in versions.items()}
    of[workload.version] = workload
    there = {number: each for number, each in of.items() if each is not None}
    shares = {number: percent for number, percent in traffic.shares if number in there}
    main = there[_main(workload.version, shares)]
    splits = [
        Split(there[number].revision, number, percent=percent)
        for number, percent in shares.items()
        if number != main.version and not (percent and there[number].revision == main.revision)
    ]
    splits += [
        Split(there[each.version].revision, each.version, header=(each.name.lower(), each.value))
        for each in traffic.headers
        if each.version in there
    ]
    splits += [
        Split(there[each.version].revision, each.version, tag=each.tag)
        for each in traffic.tags
        if each.version in there
    ]
    return msgspec.structs.replace(main, splits=tuple(splits), hash_header=traffic.hash_header.lower())


def _main(now: int, shares: Mapping[int, float]) -> int:
    """The version that takes what no other does: as now, if it has a share still, else the largest."""
    if not any(shares.values()) or shares.get(now):
        return now
    return max(shares, key=lambda number: (shares[number], number))


def _named(app: App, name: str) -> Workload | None:
    return next((workload for workload in app.workloads if workload.name == name), None)


def staged(live: App, released: App) -> App:
    """`live` with what is to follow it made ready beside it: without traffic, and reached by its tag."""
    workloads = []
    for workload in alone(live).workloads:
        after = _named(released, workload.name)
        if after is not None:
            warm = after.revision != workload.revision
            green = Split(after.revision, after.version, tag=GREEN, warm=warm)
            workload = msgspec.structs.replace(workload, splits=(green,))
        workloads.append(workload)
    revisions = (*live.revisions, *released.revisions)
    composed = msgspec.structs.replace(live, workloads=tuple(workloads), revisions=revisions, previous=())
    _check_labels(composed)
    return only_wanted(composed)


def green(app: App) -> int:
    """The version that is made ready beside what takes the traffic; 0 where none is."""
    return max((each.version for each in _splits(app) if each.tag == GREEN), default=0)


def newer(app: App) -> list[int]:
    """Versions after the one that takes the traffic which have a share, a header or a tag."""
    return sorted({each.version for each in _splits(app) if each.version > app.version})


def _splits(app: App) -> Iterator[Split]:
    return (each for workload in app.workloads for each in workload.splits)


def labels(app: App) -> set[str]:
    """The web labels that an app's endpoints have, with those of its tags."""
    entries = {revision.id: revision.entry for revision in app.revisions}
    found = set()
    for workload in app.workloads:
        for tag, revision in [("", workload.revision), *((each.tag, each.revision) for each in workload.splits)]:
            own = (method.web.label for method in entries[revision].methods if method.web is not None)
            found |= {f"{tag}--{label}" if tag else label for label in own}
    return found


def models(app: App) -> dict[str, set[str]]:
    """The names that the Open Inference Protocol has for an app's methods, each with the methods that would have it."""
    entries = {revision.id: revision.entry for revision in app.revisions}
    found: dict[str, set[str]] = {}
    for workload in app.workloads:
        for entry in (entries[revision] for revision in workload.wants):
            is_class = entry.kind == "cls"
            for method in entry.methods:
                if method.tensors is not None:
                    name = model_name(app.namespace, app.name, workload.name, method.name, is_class)
                    own = f"{workload.name}.{method.name}" if is_class else workload.name
                    found.setdefault(name, set()).add(own)
    return found


def _check_labels(app: App) -> None:
    long = next((label for label in labels(app) if len(label) > LABEL_MAX), None)
    if long is not None:
        raise SwellError(
            "bad_traffic",
            f"The traffic cannot be split so: {long} is longer than the {LABEL_MAX} characters that a host's name may "
            "have. Use a shorter tag, or give the endpoint a shorter label=.",
            status=422,
        )
