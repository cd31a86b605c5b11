"""Which template is forked now, which fork has to wait, and which template is never forked again?

The first fork of a template is a probe of it. One that hangs in the fork itself (a lock that nobody holds any
more) does not say that it is alive, and one that cannot bear it dies before it is ready; the template is then
refused for good. What was to be forked is started fresh instead, so the caller only waits longer. A fork that
said it is alive runs the user's start-up hooks, and may take as long as any other start.

A template that failed to load is no reason to load the same once more: what waited for it failed with it.
"""

from __future__ import annotations

from typing import Protocol

from swell.model.errors import SwellError
from swell.model.replica import Phase
from swell.runtime.runner.children import Child, Ending, ForkProbe
from swell.runtime.runner.ending import Endings

OUTSTANDING_MAX = 16
"""Forks ordered of one template and not yet confirmed: it forks one after the other anyway."""
REST_MAX_S = 3.0
"""How long a fork waits at most for the program's threads to rest: more than what a load leaves behind takes to settle
on a busy machine (threads of onnxruntime spin for 30 ms of CPU)."""
REST_SHARE = 0.75
"""Of the time within which a template has to come back from a fork, for it to say that they did not."""


class Starter(Protocol):
    """What the fleet does for `Forks`."""

    children: dict[str, Child]
    """Everything that is not over, by id."""

    def fork(self, template: Child, child: Child) -> None:
        """Order the fork. Raises OSError or SwellError when that cannot be."""
        ...

    def fresh(self, child: Child, why: str) -> None:
        """Start it by exec instead."""
        ...

    def refused(self, template: Child) -> None:
        """The template's `fork_refused` was set."""
        ...


class Forks:
    """The queue in front of every template."""

    def __init__(self, starter: Starter, endings: Endings, probe_s: float) -> None:
        self.starter = starter
        self.endings = endings
        self.probe_s = probe_s
        self.rest_s = min(REST_MAX_S, REST_SHARE * probe_s)
        """How long a template waits for its threads to rest."""

    def request(self, child: Child) -> None:
        """Fork `child` from its template, as soon as that can be, or start it fresh."""
        template = self._template(child)
        if template is None or _unusable(template):
            why = _unusable(template) if template is not None else f"template {child.template} is not there"
            self.starter.fresh(child, why)
            return
        template.waiting.append(child)
        self.flush(template)

    def flush(self, template: Child) -> None:
        """Order what can be ordered now."""
        why = _unusable(template)
        if why:
            waiting, template.waiting = template.waiting, []
            for child in waiting:
                self.starter.fresh(child, why)
            return
        while template.waiting and self._free(template):
            self._fork(template, template.waiting.pop(0))

    def confirmed(self, template: Child, replica: str) -> None:
        """The template said that it forked."""
        self._answered(template)
        template.forking.discard(replica)
        child = self.starter.children.get(replica)
        if child is not None and child.template == template.id and "probe" in child.timers:
            # It may have waited for threads to rest: the time in which it has to come to life begins now.
            self._probe(template, child)
        self.flush(template)

    def unforked(self, template: Child, replica: str, why: str) -> None:
        """The template said that it must not be forked."""
        self._answered(template)
        template.forking.discard(replica)
        child = self.starter.children.get(replica)
        # It may have been given up meanwhile, and be a fresh process.
        if child is not None and child.forked and child.template == template.id:
            self._refuse(template, child, why)

    def alive(self, child: Child) -> None:
        """A fork came out of it whole: others may follow, and only its start-up's own limit holds from here on."""
        child.cancel_timer("probe")
        template = self._template(child)
        if template is not None and template.probe is ForkProbe.RUNNING:
            template.probe = ForkProbe.ALIVE
            self.flush(template)

    def settled(self, child: Child, killed_by: int | None = None) -> None:
        """A fork became ready, failed in the user's own code, or is over (`killed_by` a signal)."""
        template = self._template(child)
        if template is None:
            return
        template.forking.discard(child.id)
        if child in template.waiting:
            template.waiting.remove(child)
        probing = child.timers.get("probe") is not None
        child.cancel_timer("probe")
        if child.forked:
            self._learn(template, child, probing, killed_by)
        self.flush(template)

    def _learn(self, template: Child, child: Child, probing: bool, killed_by: int | None) -> None:
        """What the start of a fork, or its end, says about its template."""
        if child.ready_monotonic_s is not None or child.failed is not None:
            template.probe = ForkProbe.PASSED
        elif killed_by is not None and (template.probe is not ForkProbe.PASSED or template.fork_refused):
            self._refuse(template, child, f"a fork was ended by signal {killed_by} before any was ready")
        elif probing:
            # Cut short from outside, it has shown nothing: the next one is the probe.
            template.probe = ForkProbe.UNTRIED if child.ending or child.stop else ForkProbe.PASSED

    def over(self, template: Child, failed: Ending | None) -> None:
        """A template is over; `failed`: how, if it was never ready and nobody had ordered its end.

        What waited for it failed with it then. Otherwise it starts fresh, as does what was lost between order and fork.
        """
        if failed is not None:
            waiting, template.waiting = template.waiting, []
            for child in waiting:
                self.endings.failed_with(child, template, failed)
        lost = [c for c in map(self.starter.children.get, template.forking) if c is not None and c.pid is None]
        template.forking.clear()
        self.flush(template)
        for child in lost:
            self.endings.again(child, _unusable(template))

    def _template(self, child: Child) -> Child | None:
        return self.starter.children.get(child.template or "")

    def _free(self, template: Child) -> bool:
        if template.phase is not Phase.READY or template.link is None or template.probe is ForkProbe.RUNNING:
            return False
        return len(template.forking) < OUTSTANDING_MAX

    def _fork(self, template: Child, child: Child) -> None:
        template.forking.add(child.id)
        try:
            self.starter.fork(template, child)
        except (OSError, SwellError) as error:
            template.forking.discard(child.id)
            self.endings.again(child, f"template {template.id} could not be told to fork: {error}")
            return
        template.unanswered += 1
        if template.unanswered == 1:
            self._expect(template)
        if template.probe is ForkProbe.UNTRIED:
            template.probe = ForkProbe.RUNNING
            self._probe(template, child)

    def _answered(self, template: Child) -> None:
        """It goes on to what it was ordered next: that may have waited for others, and has all its time from now on."""
        template.unanswered = max(0, template.unanswered - 1)
        template.cancel_timer("answer")
        if template.unanswered:
            self._expect(template)

    def _expect(self, template: Child) -> None:
        template.after(self.probe_s, "answer", lambda: self._unanswered(template))

    def _probe(self, template: Child, child: Child) -> None:
        child.after(self.probe_s, "probe", lambda: self._overdue(template, child))

    def _unanswered(self, template: Child) -> None:
        """It hangs in fork() itself, and so does all that waits for it: `over` will start that fresh."""
        template.probe = ForkProbe.PASSED
        template.fork_refused = f"it did not come back from a fork within {self.probe_s:g} s"
        self.starter.refused(template)
        self.endings.end(template, "crashed", f"it hung when it was to fork: {template.fork_refused}")

    def _overdue(self, template: Child, child: Child) -> None:
        child.cancel_timer("probe")
        self._refuse(template, child, f"its first fork did not come to life within {self.probe_s:g} s")

    def _refuse(self, template: Child, child: Child, why: str) -> None:
        """Never fork it again; `child`, which did not survive it, starts fresh."""
        template.probe = ForkProbe.PASSED
        if not template.fork_refused:
            template.fork_refused = why
            self.starter.refused(template)
        self.endings.again(child, _unusable(template))
        self.flush(template)


def _unusable(template: Child) -> str:
    """Why a template cannot be forked, now or ever; empty when it can, or soon will."""
    if template.fork_refused:
        return f"template {template.id} is refused: {template.fork_refused}"
    if template.phase not in (Phase.STARTING, Phase.READY):
        return f"template {template.id} is over"
    return ""
