"""What does an app become when the scaling of one of its workloads is changed, without a deploy?"""

from __future__ import annotations

import msgspec

from swell.model.errors import SwellError
from swell.model.unknown import unknown_workload
from swell.model.workload import App, Scaling, shown
from swell.wire.api import Rescale


def rescaled(app: App, name: str, asked: Rescale) -> App:
    """The app with what is asked in place of what its workload has. SwellError where that cannot be."""
    known = {workload.name: workload for workload in app.workloads}
    if name not in known:
        raise unknown_workload(app, name)
    changed = merged(known[name].scaling, asked)
    if changed.min_replicas > changed.max_replicas:
        raise SwellError(
            "bad_argument",
            f"{shown(app.key)}/{known[name].written} would have min_containers={changed.min_replicas} above "
            f"max_containers={changed.max_replicas}: change both.",
            status=422,
        )
    after = msgspec.structs.replace(known[name], scaling=changed)
    return msgspec.structs.replace(app, workloads=tuple(after if w.name == name else w for w in app.workloads))


def merged(scaling: Scaling, asked: Rescale) -> Scaling:
    """What is asked, and else what there is."""
    given = {field: value for field, value in msgspec.structs.asdict(asked).items() if value is not None}
    return msgspec.structs.replace(scaling, **given)
