"""Does this pool deserve a template, and which templates give way when memory is short?

The fixed rule: a pool that was used within `template_idle_s` keeps one template per node, while all
templates of a node stay inside their share of its memory; beyond it the longest unused goes first, and
those whose author asked for a snapshot go last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from swell.model.demand import Demand
from swell.model.policy import Policy
from swell.model.replica import Phase, Replica
from swell.model.workload import Revision, Workload


def may_have_template(workload: Workload | None, revision: Revision, refused: str, policy: Policy) -> bool:
    """Could a template serve this pool at all?"""
    forkable = revision.template and not unforkable(revision, refused)
    return policy.templates and forkable and workload is not None


def unforkable(revision: Revision, refused: str) -> str:
    """Why replicas of this revision are not forked, in words; empty when they may be."""
    if refused:
        return f"its template is refused: {refused}"
    if revision.needs.cpu > 1 and not revision.snapshot:
        return (
            "it asks for more than one core, and the threads of a template are not in its forks "
            "(enable_memory_snapshot=True forks it all the same)"
        )
    if revision.needs.gpu and not revision.snapshot:
        return (
            "it asks for a GPU, which a template does not have: what is asked of it while the program is loaded would "
            "be answered wrongly (enable_memory_snapshot=True forks it all the same)"
        )
    return ""


def usable(templates: Sequence[Replica], node: str) -> Replica | None:
    """The pool's template on a node that replicas may be forked from (loaded, or still loading)."""
    for template in templates:
        if template.node == node and template.phase is not Phase.DRAINING and not template.fork_refused:
            return template
    return None


def idle_at(template: Replica, demand: Demand, policy: Policy) -> float:
    """When this template has been unused for too long. Its own loading counts as use."""
    used_at = max(demand.used_at, template.ready_at or template.planned_at)
    return used_at + policy.template_idle_s


def evict(
    templates: Sequence[Replica],
    excess_mib: float,
    memory_mib: Callable[[Replica], float],
    worth: Callable[[Replica], Any],
) -> list[Replica] | None:
    """Templates to stop so that `excess_mib` comes free, the least worth first and none in vain; None when all would
    not do.

    `templates` are those of one node that no replica waits for. One that is not loaded yet is never
    evicted: it would be paid for and never used.
    """
    going: list[Replica] = []
    for template in sorted((t for t in templates if t.phase is Phase.READY), key=lambda t: (worth(t), t.id)):
        if excess_mib <= 0:
            break
        going.append(template)
        excess_mib -= memory_mib(template)
    if excess_mib > 0:
        return None
    for template in reversed(tuple(going)):
        if excess_mib + memory_mib(template) <= 0:
            going.remove(template)
            excess_mib += memory_mib(template)
    return going
