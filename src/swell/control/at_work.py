"""Of which earlier versions may something be at work still, as a control that begins finds them?

A call that was handed out names what it runs. Where that was deployed anew meanwhile, its replicas would be nobody's to
a control that knows of what is deployed alone, and would be stopped.
"""

from __future__ import annotations

from swell.model.ports import Store
from swell.model.workload import Revision, app_of, revision_of


def at_work(store: Store) -> tuple[Revision, ...]:
    """The revisions that calls were handed out for and that are deployed no more, as far as their versions are kept."""
    deployed = {revision.id for app in store.world.apps() for revision in app.revisions}
    others = [call.pool for call in store.calls.standing().leased if revision_of(call.pool) not in deployed]
    named = {revision_of(pool) for pool in others}
    found: dict[str, Revision] = {}
    for key in dict.fromkeys("/".join(app_of(pool)) for pool in others):
        for version in store.world.versions(key):
            found |= {revision.id: revision for revision in version.app.revisions if revision.id in named}
    return tuple(found.values())
