"""Which services are in each other's way? What is allowed, works only in turns, and is most likely not meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from swell.model.workload import App, shown


def shared(app: App, apps: Iterable[App]) -> list[str]:
    """Ports of an app's workloads that others want, too, be they its own or of other apps; a sentence each. Pure."""
    others = [each for other in apps if other.key != app.key for each in _wanted(other)]
    own = list(_wanted(app))
    notes = []
    for place, (port, key) in enumerate(own):
        rivals = [shown(rival) for wants, rival in (*own[:place], *others) if wants == port]
        if rivals:
            verb = "wants" if len(rivals) == 1 else "want"
            notes.append(
                f"{shown(key)}: port {port} is held by one replica per node, and {', '.join(rivals)} {verb} it too; "
                "whoever is called waits for the other to be idle"
            )
    return notes


def _wanted(app: App) -> Iterator[tuple[int, str]]:
    """(port, key of the workload that has to own it)."""
    revisions = {revision.id: revision for revision in app.revisions}
    for workload in app.workloads:
        for port in revisions[workload.revision].needs.ports:
            yield port, workload.key
