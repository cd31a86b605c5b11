"""After a start failed: when is the next one tried, and are callers refused until then or do they wait?"""

from __future__ import annotations

from swell.model.ends import in_words
from swell.model.failures import Failures
from swell.model.policy import Policy
from swell.model.workload import Revision

HOPELESS = frozenset({"bad_entry", "bad_bundle"})
"""What is wrong with the revision itself: no other try of it can end otherwise."""


def restart_at(failures: Failures | None, policy: Policy) -> float:
    """When a pool whose starts failed may be started again; 0 = at once."""
    if failures is None:
        return 0.0
    delay_s = policy.restart_backoff_s * 2.0 ** min(failures.count - 1, 30)
    return failures.at + min(delay_s, policy.restart_backoff_max_s)


def closed(failures: Failures, revision: Revision, policy: Policy, trying: bool) -> bool:
    """Are callers refused until the next try? Once it failed too often, took too long or its whole start-up time, or
    cannot mend itself; but not while it is tried (`trying`)."""
    if trying:
        return False
    waited_s = min(policy.failing_wait_s, revision.startup_timeout_s)
    return failures.count >= policy.failing_max or failures.took_s >= waited_s or failures.reason in HOPELESS


def failed(failures: Failures) -> str:
    """How often, and why, a pool's start failed."""
    times = "once" if failures.count == 1 else f"{failures.count} times in a row"
    return f"its start failed {times}: {in_words(failures.reason)}"
