"""Which services are in each other's way? What is allowed, works only in turns, and is most likely not meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from swell.model.variant import is_variant
from swell.model.workload import App, shown


def shared(app: App, apps: Iterable[App]) -> list[str]:
    """Ports of an app's workloads that others want, too, be they its own or of other apps; a sentence each. Pure."""
    others = [each for other in apps if other.key != app.key for each in _wanted(other)]
    own = list(_wanted(app))
    notes = list(_by_parameters(app))
    for place, (port, key) in enumerate(own):
        rivals = [shown(rival) for wants, rival in (*own[:place], *others) if wants == port]
        if rivals:
            verb = "wants" if len(rivals) == 1 else "want"
            notes.append(
                f"{shown(key)}: port {port} is held by one replica per node, and {', '.join(rivals)} {verb} it too; "
                "whoever is called waits for the other to be idle"
            )
    return notes


def _by_parameters(app: App) -> Iterator[str]:
    """Of what has replicas of its own for each set of its parameters, all of which want its port."""
    revisions = {revision.id: revision for revision in app.revisions}
    for workload in app.workloads:
        revision = revisions[workload.revision]
        if revision.entry.parameters and not is_variant(workload.name):
            for port in revision.needs.ports:
                yield (
                    f"{shown(workload.key)}: port {port} is held by one replica per node, and each set of its "
                    "parameters wants it: whoever is called waits for the other to be idle. @asgi_app and @wsgi_app "
                    "need no port, and serve all sets at once"
                )


def _wanted(app: App) -> Iterator[tuple[int, str]]:
    """(port, key of the workload that has to own it)."""
    revisions = {revision.id: revision for revision in app.revisions}
    for workload in app.workloads:
        # The variants of one are in its own way, and are told of as such.
        for port in () if is_variant(workload.name) else revisions[workload.revision].needs.ports:
            yield port, workload.key
