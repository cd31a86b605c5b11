"""Which branches of decisions does no seed of the tests take, and why is that no gap?"""

from __future__ import annotations

from swell.sim.hits import Branch

ASKED = frozenset(
    "admit calls drain drive gangs granting pick place plan retry roll scale spare split warm".split()  # noqa: SIM905
)
"""Modules of `decide` that simulated clusters ask for all that they decide. Of the others some ask nothing of a cluster
(keys, schedules), are asked by people (`traffic`), find the way of one of many protocols (`route`), or name what must
never be (`check`): each has tests of its own."""

Way = tuple[str, str, bool]
"""Module, condition, and whether it holds."""

STOPPED = "no app is stopped: what is queued for one would wait for ever (decide/test_roll)"
PORTS = "no replica owns a port of its node (decide/test_place)"
HEADERS = "no version is chosen by a header (decide/test_traffic)"
ALL_GO = "that all which is idle would do is known before it is asked which of it goes (decide/test_place)"
DEPLOYED = "asked as an app is deployed, of which no cluster here waits for the answer (decide/test_place)"
FEW = "of so few and so small templates as a node has here either one is enough or all are needed (decide/test_warm)"

NEVER: dict[Way, str] = {
    ("calls", "call.state != 'leased' or (call.id, call.token) != (end.id, end.token)", True): (
        "control takes an end of a lease that stands, and no other (decide/test_calls)"
    ),
    ("calls", "end.code == CANCELLED", True): (
        "what is cancelled has ended before its runner says so (decide/test_calls)"
    ),
    ("place", "following is None", True): ALL_GO,
    ("place", "nodes", True): DEPLOYED,
    ("place", "nodes", False): DEPLOYED,
    ("place", "lacking is None", True): DEPLOYED,
    ("place", "lacking is None", False): DEPLOYED,
    ("plan", "workload is None and workload_of(pool) not in world.workloads", True): STOPPED,
    ("plan", "members", True): STOPPED,
    ("plan", "members", False): STOPPED,
    ("plan", "growth.full and (not rooms)", True): PORTS,
    ("plan", "held.needs.ports", True): PORTS,
    ("plan", "going is None", True): ALL_GO,
    ("plan", "each not in self.stopping", False): "what ends already is not listed among what may (decide/test_plan)",
    ("roll", "not world.nodes", True): "nodes are known before anything is deployed anew (decide/test_roll)",
    ("roll", "any((split.warm for split in splits))", True): "none is kept warm beside others (decide/test_traffic)",
    ("split", "choice.header is not None and header(choice.header[0]) == choice.header[1]", True): HEADERS,
    ("warm", "excess_mib <= 0", True): FEW,
    ("warm", "excess_mib + memory_mib(template) <= 0", True): FEW,
}
"""Each with the reason, and the test that takes it."""


def never(taken: dict[Branch, int]) -> set[Way]:
    """Those that were not: of equal conditions in one module where one was not."""
    return {(b.module, b.condition, b.into) for b, times in taken.items() if b.module in ASKED and not times}
