"""What is the durable queue where nothing need survive? The same rules over dictionaries."""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from msgspec.structs import replace

from swell.model.call import (
    BATCH_MAX,
    PAGE_BYTES,
    Again,
    Body,
    Call,
    Cancel,
    Cancelled,
    Change,
    Depth,
    Done,
    Failed,
    Forget,
    GroupEnd,
    Members,
    Outcome,
    Queued,
    Remove,
    Retry,
    Standing,
    State,
    Work,
    check,
)
from swell.model.call_ports import NO_VARIANTS
from swell.model.workload import Variant

Answer = TypeVar("Answer")


class MemoryCalls:
    """The `Calls` port. Any thread may ask."""

    def __init__(self, write: Callable[[Callable[[], None]], None], lock: threading.RLock) -> None:
        """`lock` is held while what is given to `write` runs."""
        self.lock = lock
        self.kept: dict[str, Call] = {}
        self.inputs: dict[str, Body] = {}
        self.results: dict[str, Body] = {}
        self.variants: dict[str, Variant] = {}
        """Of workloads, by key."""
        self.ends: dict[str, int] = {}
        """Numbers of the ends of calls that are of a group, by id."""
        self._numbered = 0
        self._write = write
        self._by_key: dict[tuple[str, str, str, str], str] = {}
        """Ids by workload, method, API key and idempotency key."""

    def add(self, works: Sequence[Work], variants: Mapping[str, Variant] = NO_VARIANTS) -> list[str]:
        """Accept calls."""
        for work in works:
            check(work.call)
        return self._answered(partial(self._add, tuple(works), dict(variants)))

    def lease(
        self, workload: str, most: int, now: float, token: int, replica: str, pool: str, idle: bool = True
    ) -> list[Work]:
        """Hand out what is due."""
        to = {"leased_at": now, "token": token, "replica": replica, "pool": pool}
        return self._answered(partial(self._lease, workload, most, now, idle, to))

    def finish(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Record what attempts came to."""
        kept = tuple(outcomes)
        return self._answered(lambda recorded: recorded.extend(map(self._finish, kept)))

    def change(self, changes: Sequence[Change]) -> list[Call | None]:
        """Cancel calls, retry dead letters, forget some."""
        kept = tuple(changes)
        return self._answered(lambda after: after.extend(map(self._change, kept)))

    def sweep(self, now: float, most: int) -> list[str]:
        """Forget calls that have expired."""
        return self._answered(partial(self._sweep, now, most))

    def standing(self) -> Standing:
        """What there is to go on with at a start."""
        queued: dict[str, Queued] = {}
        with self.lock:
            waiting, leased = self._in("queued"), self._in("leased")
        for call in waiting:
            before = queued.get(call.workload, Queued(0, call.due_at))
            queued[call.workload] = Queued(before.calls + 1, min(before.due_at, call.due_at))
        return Standing(queued, tuple(sorted(leased, key=lambda call: call.id)))

    def depth(self, workload: str, now: float, most: int) -> Depth:
        """What the queue of a workload asks for."""
        with self.lock:
            waiting = [call for call in self._in("queued") if call.workload == workload]
        due = heapq.nsmallest(max(most, 0), (call for call in waiting if call.due_at <= now), key=_turn)
        next_at = min((call.due_at for call in waiting if call.due_at > now), default=None)
        counted = Counter(call.priority for call in due)
        suspects = Counter(call.priority for call in waiting if call.due_at <= now and call.is_suspect)
        # As many of a priority as of all were asked for of it.
        found, left = 0, max(most, 0)
        for priority, count in counted.items():
            found += min(suspects[priority], left)
            left -= count
        return Depth(len(due), next_at, tuple(counted.items()), found, bool(found) and due[0].is_suspect)

    def of_key(self, workload: str, method: str, key: str, idempotency_key: str) -> Call | None:
        """The one with that idempotency key; under the lock."""
        return self.kept.get(self._by_key.get((workload, method, key, idempotency_key), ""))

    def _answered(self, op: Callable[[list[Answer]], None]) -> list[Answer]:
        """What the op answers; it is filled in later inside a transaction."""
        answers: list[Answer] = []
        self._write(lambda: op(answers))
        return answers

    def _in(self, state: State) -> list[Call]:
        return [call for call in self.kept.values() if call.state == state]

    def _add(self, works: Sequence[Work], variants: dict[str, Variant], ids: list[str]) -> None:
        self.variants |= variants
        for work in works:
            call, by_key = work.call, _once(work.call)
            id = call.id if call.id in self.kept else self._by_key.get(by_key, "")
            if not id:
                id = call.id
                self.kept[id], self.inputs[id] = call, work.input
                if call.idempotency_key:
                    self._by_key[by_key] = id
            ids.append(id)

    def _lease(self, workload: str, most: int, now: float, idle: bool, to: dict[str, Any], works: list[Work]) -> None:
        due = [call for call in self._in("queued") if call.workload == workload and call.due_at <= now]
        first = min(due, key=_turn, default=None) if idle and most > 0 else None
        alone = [first] if first is not None and first.is_suspect else []
        others = (call for call in due if not call.is_suspect)
        for call in alone or heapq.nsmallest(most, others, key=_turn):
            leased = replace(call, state="leased", attempts=call.attempts + 1, **to)
            self.kept[call.id] = leased
            works.append(Work(leased, self.inputs[call.id]))

    def _finish(self, outcome: Outcome) -> bool:
        call = self.kept.get(outcome.id)
        if call is None or not call.token or call.token != outcome.token:
            return False
        call = replace(call, cpu_us=call.cpu_us + outcome.cpu_us, run_us=call.run_us + outcome.run_us)
        if call.state == "cancelled":
            self.kept[call.id] = replace(call, token=0)
        if call.state != "leased":
            return False
        match outcome:
            case Done(at=at, result=result):
                call = replace(call, state="done", ended_at=at, error=None)
                self.results[call.id] = result
            case Failed(at=at, error=error):
                call = replace(call, state="failed", ended_at=at, error=error)
                self.results[call.id] = Body(outcome.content_type, outcome.body)
            case Cancelled(at=at, error=error):
                call = replace(call, state="cancelled", ended_at=at, error=error, token=0)
            case Again(due_at=due_at, error=error):
                attempts = call.attempts - (not outcome.counts)
                call = replace(_unleased(call), due_at=due_at, attempts=attempts, error=error or call.error)
        self._put(call)
        return True

    def _change(self, change: Change) -> Call | None:
        if isinstance(change, Forget):
            had = [id for id, number in self.ends.items() if number <= change.number and self._is_of(id, change)]
            self._forget(had[:BATCH_MAX])
            return None
        call = self.kept.get(change.id)
        if isinstance(change, Remove):
            self._forget([change.id] if call is not None and call.ended_at is not None else [])
            return None
        match change:
            case Cancel(at=at, error=error):
                if call is None or call.state not in ("queued", "leased"):
                    return None
                call = replace(call, state="cancelled", ended_at=at, error=error)
            case Retry(at=at, input=input):
                if call is None or call.state != "failed":
                    return None
                if input is not None:
                    self.inputs[call.id] = input
                call = replace(_unleased(call), due_at=at, attempts=0, ended_at=None)
                del self.results[call.id]
        self._put(call)
        return call

    def _put(self, call: Call) -> None:
        """It ended, or is queued once more."""
        self.kept[call.id] = call
        if call.state in ("done", "cancelled"):
            # Nothing brings it back.
            self.inputs.pop(call.id, None)
        self.ends.pop(call.id, None)
        if call.ended_at is not None and call.group:
            self._numbered += 1
            self.ends[call.id] = self._numbered

    def _sweep(self, now: float, most: int, swept: list[str]) -> None:
        expired = [(call.expires_at, id) for id, call in self.kept.items() if call.expires_at is not None]
        gone = [id for at, id in sorted(expired) if at <= now][: max(most, 0)]
        self._forget(gone)
        workloads = {call.workload for call in self.kept.values()}
        self.variants = {key: variant for key, variant in self.variants.items() if key in workloads}
        swept.extend(gone)

    def _is_of(self, id: str, change: Forget) -> bool:
        return (self.kept[id].group, self.kept[id].key) == (change.group, change.key)

    def _forget(self, ids: Sequence[str]) -> None:
        for id in ids:
            call = self.kept.pop(id)
            self._by_key.pop(_once(call), None)
            self.ends.pop(id, None)
            self.inputs.pop(id, None)
            self.results.pop(id, None)


class MemoryCallRecords:
    """The `CallRecords` port."""

    def __init__(self, calls: MemoryCalls) -> None:
        self._calls = calls

    def get(self, id: str) -> Call | None:
        """One that is kept."""
        with self._calls.lock:
            return self._calls.kept.get(id)

    def get_many(self, ids: Sequence[str]) -> dict[str, Call]:
        """Those of them that are kept."""
        with self._calls.lock:
            return {id: self._calls.kept[id] for id in ids if id in self._calls.kept}

    def whose(self, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        """For which workloads they are, and with which API keys they came."""
        return {id: (call.workload, call.key) for id, call in self.get_many(ids).items()}

    def ends(self, ids: Sequence[str]) -> list[tuple[Call, Body | None]]:
        """Those of them that have ended, a page of them."""
        found: list[tuple[Call, Body | None]] = []
        size = 0
        with self._calls.lock:
            for id, call in sorted(self.get_many(ids).items()):
                if call.ended_at is not None and size < PAGE_BYTES:
                    result = self._calls.results.get(id)
                    found.append((call, replace(result, head=None) if result is not None else None))
                    size += len(result.data) if result is not None else 0
        return found

    def input(self, id: str) -> Body | None:
        """Its input."""
        with self._calls.lock:
            return self._calls.inputs.get(id)

    def result(self, id: str) -> Body | None:
        """Its result, or of a dead letter the error."""
        with self._calls.lock:
            return self._calls.results.get(id)

    def ended(self, group: str, after: int, most: int) -> list[GroupEnd]:
        """The calls of a group that have ended since."""
        calls, size = self._calls, 0
        found: list[GroupEnd] = []
        with calls.lock:
            for id, number in calls.ends.items():
                call, result = calls.kept[id], calls.results.get(id)
                if call.group == group and number > after and len(found) < most and size < PAGE_BYTES:
                    found.append(GroupEnd(number, call, replace(result, head=None) if result is not None else None))
                    size += len(result.data) if result is not None else 0
        return found

    def open(self, group: str, after: str, most: int) -> list[Call]:
        """The calls of a group that have not ended."""
        mine = (call for call in self._of(group) if call.ended_at is None and call.id > after)
        return heapq.nsmallest(most, mine, key=lambda call: call.id)

    def members(self, group: str, ended: bool = True) -> list[Members]:
        """All calls of a group, in numbers, or those that have not ended."""
        calls = [call for call in self._of(group) if ended or call.ended_at is None]
        found = Counter((call.workload, call.key, call.ended_at is None) for call in calls)
        kinds = sorted({(call.workload, call.key) for call in calls})
        return [Members(*kind, found[(*kind, True)], found[(*kind, False)]) for kind in kinds]

    def kinds(self, group: str) -> list[tuple[str, str, str]]:
        """The workloads, methods and API keys of its calls."""
        return list(dict.fromkeys((call.workload, call.method, call.key) for call in self._of(group)))

    def once(self, workload: str, method: str, key: str, idempotency_key: str) -> Call | None:
        """The one with that idempotency key."""
        with self._calls.lock:
            return self._calls.of_key(workload, method, key, idempotency_key)

    def variants(self, workloads: Sequence[str]) -> dict[str, Variant]:
        """What those of them are that are variants."""
        with self._calls.lock:
            return {key: self._calls.variants[key] for key in workloads if key in self._calls.variants}

    def owned(self) -> list[str]:
        """The workloads of programs' apps that calls wait for."""
        return sorted({call.workload for call in self._kept() if call.owned and call.state == "queued"})

    def digests(self) -> list[str]:
        """Of the blobs that kept calls name."""
        with self._calls.lock:
            bodies = [*self._calls.inputs.values(), *self._calls.results.values()]
        return sorted({body.digest for body in bodies} - {""})

    def newest(
        self,
        prefix: str,
        state: State | None,
        most: int,
        before: str = "",
        key: str | None = None,
        exact: bool = False,
        jobs: bool = False,
    ) -> list[Call]:
        """A page of calls, newest first."""
        named = (call for call in self._kept() if call.workload.startswith(prefix) and key in (None, call.key))
        calls = (call for call in named if not (exact and call.workload != prefix) and not (jobs and not call.members))
        page = (call for call in calls if state in (None, call.state) and (not before or call.id < before))
        return heapq.nlargest(most, page, key=lambda call: call.id)

    def _of(self, group: str) -> list[Call]:
        return [call for call in self._kept() if group and call.group == group]

    def _kept(self) -> list[Call]:
        with self._calls.lock:
            return list(self._calls.kept.values())


def _unleased(call: Call) -> Call:
    return replace(call, state="queued", token=0, replica="", pool="", leased_at=None)


def _turn(call: Call) -> tuple[int, float, str]:
    """The lower ones are handed out first."""
    return -call.priority, call.due_at, call.id


def _once(call: Call) -> tuple[str, str, str, str]:
    return call.workload, call.method, call.key, call.idempotency_key
