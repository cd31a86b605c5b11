"""How many queued calls were accepted since control began, and what came of attempts? Counted as it is recorded."""

from __future__ import annotations

from collections import Counter

from swell.control.rounds import Round, Written
from swell.model.call import Again, Cancelled, Done, Failed, Outcome
from swell.model.metrics import CALLS_DUE, CALLS_LEASED, CALLS_TOTAL, Sample

_EVENTS: dict[type[Outcome], str] = {Done: "done", Failed: "failed", Again: "again", Cancelled: "cancelled"}


class CallTallies:
    """Of all workloads together."""

    def __init__(self) -> None:
        self._events: Counter[str] = Counter()

    def wrote(self, made: Round, written: Written) -> None:
        """A round is on disk."""
        accepted = (work.call.id == id for work, id in zip(made.works, written.ids, strict=True))
        self._events["accepted"] += sum(accepted)
        for outcome, recorded in zip(made.outcomes, written.recorded, strict=True):
            if recorded:
                self._events[_EVENTS[type(outcome)]] += 1
        states = (call.state for call in written.changed if call is not None)
        self._events.update("cancelled" if state == "cancelled" else "retried" for state in states)

    def samples(self, due: int, leased: int) -> tuple[Sample, ...]:
        """As they are now."""
        events = (Sample(CALLS_TOTAL, (event,), count) for event, count in sorted(self._events.items()) if count)
        return (Sample(CALLS_DUE, (), due), Sample(CALLS_LEASED, (), leased), *events)
