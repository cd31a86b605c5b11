"""How many queued calls wait, and how many were accepted since control began? What came of attempts? Counted as it is
recorded: and so no more of one workload wait than may.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from swell.control.leases import Leases
from swell.control.rounds import New, Round, Written, fail
from swell.model.call import Again, Cancelled, Done, Failed, Outcome, Queued
from swell.model.errors import SwellError
from swell.model.metrics import CALLS_DUE, CALLS_LEASED, CALLS_TOTAL, Sample
from swell.model.workload import shown

_EVENTS: dict[type[Outcome], str] = {Done: "done", Failed: "failed", Again: "again", Cancelled: "cancelled"}


class CallTallies:
    """What waits by workload, the rest of all together."""

    def __init__(self, leases: Leases, queued_max: int) -> None:
        """`queued_max`: calls of one workload that may wait, due or not."""
        self.queued: Counter[str] = Counter()
        """Calls that wait, by workload."""
        self._leases = leases
        self._queued_max = queued_max
        self._events: Counter[str] = Counter()

    def stand_up(self, queued: Mapping[str, Queued]) -> None:
        """So many wait."""
        self.queued = Counter({workload: each.calls for workload, each in queued.items()})

    def admitted(self, news: Iterable[New]) -> Iterator[New]:
        """Those of them that there is room for. Who asks for others is told."""
        coming: Counter[str] = Counter()
        for new in news:
            workload = new.works[0].call.workload
            if self.queued[workload] + coming[workload] + len(new.works) <= self._queued_max:
                coming[workload] += len(new.works)
                yield new
                continue
            words = (
                f"{self.queued[workload]} calls of {shown(workload)[:200]} wait already, and {self._queued_max} may "
                "(queued_calls_max). Try again when some are done; cancel what is not wanted any more (swell calls "
                "list, cancel); or have the server's operator allow more."
            )
            fail((new,), (), SwellError("too_many_queued", words, status=429))

    def wrote(self, made: Round, written: Written) -> None:
        """A round is on disk, and the leases that ended in it are known still."""
        self._count_queued(made, written)
        accepted = (work.call.id == id for work, id in zip(made.works, written.ids, strict=True))
        self._events["accepted"] += sum(accepted)
        for outcome, recorded in zip(made.outcomes, written.recorded, strict=True):
            if recorded:
                self._events[_EVENTS[type(outcome)]] += 1
        states = (call.state for call in written.changed if call is not None)
        self._events.update("cancelled" if state == "cancelled" else "retried" for state in states)

    def _count_queued(self, made: Round, written: Written) -> None:
        queued = self.queued
        queued.update(
            work.call.workload for work, id in zip(made.works, written.ids, strict=True) if work.call.id == id
        )
        for outcome, recorded in zip(made.outcomes, written.recorded, strict=True):
            call = self._leases.get(outcome.id, outcome.token)
            if recorded and isinstance(outcome, Again) and call is not None:
                queued[call.workload] += 1
        for call in written.changed:
            if call is not None and call.state == "queued":
                queued[call.workload] += 1
            elif call is not None and not call.replica:
                # It was cancelled while it waited.
                queued[call.workload] -= 1
        for hand, works in zip(made.hands, written.leased, strict=True):
            queued[hand.workload] -= len(works)
        for workload in {hand.workload for hand in made.hands}:
            if not queued[workload]:
                del queued[workload]

    def samples(self, due: int, leased: int) -> tuple[Sample, ...]:
        """As they are now."""
        events = (Sample(CALLS_TOTAL, (event,), count) for event, count in sorted(self._events.items()) if count)
        return (Sample(CALLS_DUE, (), due), Sample(CALLS_LEASED, (), leased), *events)
