"""What is worth telling later about replicas: why each was started, what its start took, how it ended."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from swell.model.events import ReplicaSeen
from swell.model.plan import Plan, Start, Stop
from swell.model.replica import OVER, Phase, Role

STORIES_MAX = 5000
"""Replicas remembered, the oldest forgotten first. About 1 KB each."""


class Story(msgspec.Struct):
    """One replica's life so far. Times in seconds since the epoch."""

    replica: str
    pool: str
    role: Role
    why: str
    planned_at: float
    template: str | None = None
    ready_at: float | None = None
    timings_ms: tuple[tuple[str, float], ...] = ()
    ended_at: float | None = None
    stop_why: str = ""
    reason: str = ""
    detail: str = ""
    stuck: int = 0
    unforked: str = ""
    """Why it is a fresh process although it was to be forked."""
    waited: str = ""
    """What its pool had to wait for before it could be started."""


class History:
    """Stories by replica id."""

    def __init__(self) -> None:
        self._stories: OrderedDict[str, Story] = OrderedDict()
        self._waiting: dict[str, str] = {}
        """Pool → what it waits for."""

    def get(self, replica: str) -> Story | None:
        return self._stories.get(replica)

    def planned(self, plan: Plan) -> None:
        for action in plan.actions:
            match action:
                case Start():
                    story = Story(
                        action.replica, action.pool, action.role, action.why, plan.at, template=action.template
                    )
                    story.waited = self._waiting.get(action.pool, "")
                    self._add(story)
                case Stop():
                    stopped = self._stories.get(action.replica)
                    if stopped is not None:
                        stopped.stop_why = action.why
        for pool in plan.pools:
            self._waiting.pop(pool, None)
        for wait in plan.waits:
            self._waiting[wait.pool] = wait.why_not

    def seen(self, seen: ReplicaSeen) -> None:
        story = self._stories.get(seen.replica)
        if story is None:
            if seen.phase in OVER:
                return
            why = "kept over a restart of control"
            begun = seen.ordered_at or seen.at
            story = Story(seen.replica, seen.pool, seen.role, why, begun, template=seen.template)
            self._add(story)
        story.timings_ms = seen.timings_ms or story.timings_ms
        story.stuck = seen.stuck
        story.unforked = seen.unforked or story.unforked
        if seen.phase is Phase.READY and story.ready_at is None:
            story.ready_at = seen.at
        if seen.phase in OVER and story.ended_at is None:
            story.ended_at = seen.at
            story.reason, story.detail = seen.reason, seen.detail

    def _add(self, story: Story) -> None:
        self._stories[story.replica] = story
        if len(self._stories) > STORIES_MAX:
            self._stories.popitem(last=False)
