"""Which template is forked now, which fork has to wait, and which template is never forked again?

The first fork of a template is its trial: code that hangs or dies when forked (a thread pool whose
threads are gone, a lock that nobody holds any more) does so before it is ready, and the template is
then refused for good. What was to be forked is started fresh instead, so the caller only waits longer.
"""

from __future__ import annotations

from typing import Protocol

from swell.model.replica import Phase
from swell.runtime.runner.children import Child, Trial

OUTSTANDING_MAX = 16
"""Forks ordered of one template and not yet confirmed: it forks one after the other anyway."""


class Starter(Protocol):
    """What the fleet does for `Forks`."""

    def find(self, replica: str) -> Child | None: ...

    def fork(self, template: Child, child: Child) -> None:
        """Order the fork. Raises OSError when the template cannot take it."""
        ...

    def fresh(self, child: Child, why: str) -> None:
        """Start it by exec instead."""
        ...

    def again(self, child: Child, why: str) -> None:
        """End its process, if it has one, and start it fresh under the same id."""
        ...

    def refused(self, template: Child) -> None:
        """The template's `fork_refused` was set."""
        ...

    def hung(self, template: Child) -> None:
        """End a template that does not come back from a fork."""
        ...


class Forks:
    """The queue in front of every template."""

    def __init__(self, starter: Starter, probe_s: float) -> None:
        self.starter = starter
        self.probe_s = probe_s

    def request(self, child: Child) -> None:
        """Fork `child` from its template, as soon as that can be, or start it fresh."""
        template = self.starter.find(child.template) if child.template else None
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

    def confirmed(self, child: Child) -> None:
        """The template said that it forked."""
        child.cancel_timer("confirm")
        template = self._template(child)
        if template is not None:
            template.forking.discard(child.id)
            self.flush(template)

    def settled(self, child: Child, killed_by: int | None = None) -> None:
        """A fork became ready, failed in the user's own code, or is over (`killed_by` a signal)."""
        template = self._template(child)
        if template is None:
            return
        template.forking.discard(child.id)
        if child in template.waiting:
            template.waiting.remove(child)
        if child.timers.get("trial") is not None:
            child.cancel_timer("trial")
            if killed_by is not None:
                self._refuse(template, child, f"its first fork was ended by signal {killed_by} before it was ready")
                return
            # Cut short from outside, it has shown nothing: the next one is the trial.
            template.trial = Trial.UNTRIED if child.ending or child.stop else Trial.PASSED
        self.flush(template)

    def over(self, template: Child) -> None:
        """A template is over. What waited for it, or was lost between order and fork, starts fresh."""
        lost = [c for c in map(self.starter.find, template.forking) if c is not None and c.pid is None]
        template.forking.clear()
        self.flush(template)
        for child in lost:
            self.starter.again(child, _unusable(template))

    def _template(self, child: Child) -> Child | None:
        return self.starter.find(child.template) if child.template else None

    def _free(self, template: Child) -> bool:
        if template.phase is not Phase.READY or template.link is None or template.trial is Trial.RUNNING:
            return False
        return len(template.forking) < OUTSTANDING_MAX

    def _fork(self, template: Child, child: Child) -> None:
        template.forking.add(child.id)
        try:
            self.starter.fork(template, child)
        except OSError as error:
            template.forking.discard(child.id)
            self.starter.again(child, f"template {template.id} could not be told to fork: {error}")
            return
        child.after(self.probe_s, "confirm", lambda: self._unconfirmed(template))
        if template.trial is Trial.UNTRIED:
            template.trial = Trial.RUNNING
            child.after(self.probe_s, "trial", lambda: self._overdue(template, child))

    def _unconfirmed(self, template: Child) -> None:
        """It hangs in fork() itself, and so does all that waits for it: `over` will start that fresh."""
        template.trial = Trial.PASSED
        template.fork_refused = f"it did not come back from a fork within {self.probe_s:g} s"
        self.starter.refused(template)
        self.starter.hung(template)

    def _overdue(self, template: Child, child: Child) -> None:
        child.cancel_timer("trial")
        self._refuse(template, child, f"its first fork was not ready within {self.probe_s:g} s")

    def _refuse(self, template: Child, child: Child, why: str) -> None:
        template.trial = Trial.PASSED
        template.fork_refused = why
        self.starter.refused(template)
        self.starter.again(child, f"template {template.id} is refused: {why}")
        self.flush(template)


def _unusable(template: Child) -> str:
    """Why a template cannot be forked, now or ever; empty when it can, or soon will."""
    if template.fork_refused:
        return f"template {template.id} is refused: {template.fork_refused}"
    if template.phase not in (Phase.STARTING, Phase.READY):
        return f"template {template.id} is over"
    return ""
