"""How long may a replica go on once it is to end?"""

from __future__ import annotations

from swell.model.policy import Policy
from swell.model.replica import Role
from swell.model.workload import Revision

STARTUP_GRACE_S = 0.0
"""A replica that never took an input has nothing to finish."""
GANG_BROKEN_GRACE_S = 5.0
"""What a member works on without the others is worth nothing: time to let go of what it holds, and no more."""


def drain_grace_s(revision: Revision | None, role: Role, policy: Policy) -> float:
    """What is in flight may use all the time that it has, and its exit hooks a little more."""
    if revision is None or role == "template":
        return STARTUP_GRACE_S
    return revision.longest_s + policy.stop_grace_s
