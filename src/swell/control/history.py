"""What is worth telling later about replicas: why each was started, what its start took, how it ended."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from swell.model.events import ReplicaSeen
from swell.model.plan import Plan, Start, Stop
from swell.model.replica import OVER, Phase, Role

REMEMBERED_MAX = 5000
"""Replicas remembered, the oldest forgotten first. About 1 KB each."""


class ReplicaHistory(msgspec.Struct):
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
    applied: tuple[str, ...] = ()
    """Limits and isolation that it really has."""


class History:
    """What is remembered, by replica id."""

    def __init__(self) -> None:
        self._replicas: OrderedDict[str, ReplicaHistory] = OrderedDict()
        self._waiting: dict[str, str] = {}
        """Pool → what it waits for."""

    def get(self, replica: str) -> ReplicaHistory | None:
        return self._replicas.get(replica)

    def planned(self, plan: Plan) -> None:
        for action in plan.actions:
            match action:
                case Start():
                    past = ReplicaHistory(
                        action.replica, action.pool, action.role, action.why, plan.at, template=action.template
                    )
                    past.waited = self._waiting.get(action.pool, "")
                    self._add(past)
                case Stop():
                    stopped = self._replicas.get(action.replica)
                    if stopped is not None:
                        stopped.stop_why = action.why
        for pool in plan.pools:
            self._waiting.pop(pool, None)
        for wait in plan.waits:
            self._waiting[wait.pool] = wait.why_not

    def seen(self, seen: ReplicaSeen) -> None:
        past = self._replicas.get(seen.replica)
        if past is None:
            if seen.phase in OVER:
                return
            why = "kept over a restart of control"
            begun = seen.ordered_at or seen.at
            past = ReplicaHistory(seen.replica, seen.pool, seen.role, why, begun, template=seen.template)
            self._add(past)
        past.timings_ms = seen.timings_ms or past.timings_ms
        past.stuck = seen.stuck
        past.applied = seen.applied or past.applied
        past.unforked = seen.unforked or past.unforked
        if seen.phase is Phase.READY and past.ready_at is None:
            past.ready_at = seen.at
        if seen.phase in OVER and past.ended_at is None:
            past.ended_at = seen.at
            past.reason, past.detail = seen.reason, seen.detail

    def _add(self, past: ReplicaHistory) -> None:
        self._replicas[past.replica] = past
        if len(self._replicas) > REMEMBERED_MAX:
            self._replicas.popitem(last=False)
