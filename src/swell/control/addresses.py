"""Where do an app's functions and services answer?"""

from __future__ import annotations

from swell.model.workload import App, Entry, Method, Workload, shown


def urls(base_url: str, app: App) -> list[tuple[str, str]]:
    """(name, address) of all that an app offers."""
    entries = {revision.id: revision.entry for revision in app.revisions}
    offered = [(each, entries[each.revision]) for each in app.workloads]
    return [
        (_name(workload, entry, method), url(base_url, workload, entry, method))
        for workload, entry in offered
        for method in entry.methods
    ]


def url(base_url: str, workload: Workload, entry: Entry, method: Method) -> str:
    """The address of one method."""
    if method.web is not None:
        return f"{base_url}/web/{method.web.label}/"
    path = f"{workload.namespace}/{workload.app}/{_name(workload, entry, method)}"
    return f"{base_url}/call/{shown(path)}"


def _name(workload: Workload, entry: Entry, method: Method) -> str:
    return f"{workload.name}.{method.name}" if entry.kind == "cls" else workload.name
