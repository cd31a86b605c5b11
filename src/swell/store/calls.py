"""How does the durable queue stand in a database? A row for each call, its input and its result in rows of their own.

What a write answers is filled in by the writing thread and committed before its caller goes on: so readings here need
not wait for anything, as others of the store do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from swell.model.call import (
    BATCH_MAX,
    PAGE_BYTES,
    Again,
    Body,
    Call,
    CallError,
    Cancel,
    Cancelled,
    Change,
    Depth,
    Done,
    Failed,
    Forget,
    GroupEnd,
    Head,
    Keeping,
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
from swell.model.retrying import Retrying
from swell.model.workload import Variant
from swell.store import statements as sql
from swell.store.database import Connection, Op

DIGESTS_PER_READ = 1000
"""Rows of one read of what blobs are named; a long reading never holds the database open in between."""
LAST_CHARACTER = chr(0x10FFFF)
"""Whatever begins as a text does is not after that text with this behind it."""
LAST_ID = LAST_CHARACTER
"""After every id."""
LAST_PRIORITY = 2**63 - 1
"""Above every priority."""

_variant = msgspec.msgpack.Decoder(Variant)
_head = msgspec.msgpack.Decoder(Head)

Row = tuple[Any, ...]
Answer = TypeVar("Answer")


class Read(Protocol):
    """All rows of a query, of what is committed."""

    def __call__(self, statement: str, *values: object) -> list[Any]: ...


class Write(Protocol):
    """Runs an op in the writing thread and waits until it is committed; `synced`: until it is on disk."""

    def __call__(self, op: Op, synced: bool) -> None: ...


class SqlCalls:
    """The `Calls` port."""

    def __init__(self, write: Write, read: Read) -> None:
        self._write = write
        self._read = read

    def add(self, works: Sequence[Work], variants: Mapping[str, Variant] = NO_VARIANTS) -> list[str]:
        """Accept calls; on disk before it returns."""
        for work in works:
            check(work.call)
        return self._answered(partial(_add, tuple(works), dict(variants)), len(works))

    def lease(
        self, workload: str, most: int, now: float, token: int, replica: str, pool: str, idle: bool = True
    ) -> list[Work]:
        """Hand out what is due; committed, and not synced, before it returns."""
        to = {"leased_at": now, "token": token, "replica": replica, "pool": pool}
        return self._answered(partial(_lease, workload, most, now, idle, to), most, synced=False)

    def finish(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Record what attempts came to; on disk before it returns."""
        return self._answered(partial(_finish, tuple(outcomes)), len(outcomes))

    def change(self, changes: Sequence[Change]) -> list[Call | None]:
        """Cancel calls, retry dead letters, forget some; on disk before it returns."""
        return self._answered(partial(_change, tuple(changes)), len(changes))

    def sweep(self, now: float, most: int) -> list[str]:
        """Forget calls that have expired; on disk before it returns."""
        return self._answered(partial(_sweep, now, most), most)

    def standing(self) -> Standing:
        """What there is to go on with at a start."""
        queued = {workload: Queued(calls, first) for workload, calls, first in self._read(sql.QUEUED_CALLS)}
        return Standing(queued, tuple(_call(row) for row in self._read(sql.LEASED_CALLS)))

    def depth(self, workload: str, now: float, most: int) -> Depth:
        """What the queue of a workload asks for."""
        due, suspects, nexts = 0, 0, []
        counted: list[tuple[int, int]] = []
        for priority in _priorities(self._read, workload):
            if due < most:
                ((found, of_them),) = self._read(sql.COUNT_DUE, workload, priority, now, most - due)
                counted += [(priority, found)] if found else []
                due, suspects = due + found, suspects + of_them
            nexts += [at for (at,) in self._read(sql.NEXT_DUE, workload, priority, now)]
        first = self._read(sql.FIRST_IS_SUSPECT, workload, counted[0][0], now) if suspects else []
        return Depth(due, min(nexts, default=None), tuple(counted), suspects, any(row[0] for row in first))

    def _answered(self, op: Callable[[list[Answer], Connection], None], rows: int, synced: bool = True) -> list[Answer]:
        """What the op answers; it is filled in later inside a transaction."""
        answers: list[Answer] = []

        def write(connection: Connection) -> int:
            op(answers, connection)
            return rows

        if rows > 0:
            self._write(write, synced)
        return answers


class SqlCallRecords:
    """The `CallRecords` port."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def get(self, id: str) -> Call | None:
        """One that is kept."""
        rows = self._read(sql.CALL, id)
        return _call(rows[0]) if rows else None

    def get_many(self, ids: Sequence[str]) -> dict[str, Call]:
        """Those of them that are kept."""
        rows = self._read(sql.CALLS_OF_IDS, json.dumps(list(ids)))
        return {row[0]: _call(row) for row in rows}

    def whose(self, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        """For which workloads they are, and with which API keys they came."""
        return {id: (workload, key) for id, workload, key in self._read(sql.WHOSE_CALLS, json.dumps(list(ids)))}

    def ends(self, ids: Sequence[str]) -> list[tuple[Call, Body | None]]:
        """Those of them that have ended, a page of them."""
        rows = self._read(sql.ENDS_OF_IDS, json.dumps(list(ids)), PAGE_BYTES)
        return [(_call(row[:-3]), Body(*row[-3:]) if row[-3] is not None else None) for row in rows]

    def input(self, id: str) -> Body | None:
        """Its input."""
        rows = self._read(sql.CALL_INPUT, id)
        return Body(*rows[0]) if rows else None

    def result(self, id: str) -> Body | None:
        """Its result, or of a dead letter the error."""
        rows = self._read(sql.CALL_RESULT, id)
        if not rows:
            return None
        content_type, data, digest, head = rows[0]
        return Body(content_type, data, digest, _head.decode(head) if head is not None else None)

    def ended(self, group: str, after: int, most: int) -> list[GroupEnd]:
        """The calls of a group that have ended since."""
        rows = self._read(sql.ENDED_CALLS, group, after, max(most, 0), PAGE_BYTES)
        return [GroupEnd(row[0], _call(row[1:-3]), Body(*row[-3:]) if row[-3] is not None else None) for row in rows]

    def open(self, group: str, after: str, most: int) -> list[Call]:
        """The calls of a group that have not ended."""
        return [_call(row) for row in self._read(sql.OPEN_CALLS, group, after, max(most, 0))]

    def members(self, group: str, ended: bool = True) -> list[Members]:
        """All calls of a group, in numbers, or those that have not ended."""
        return [Members(*row) for row in self._read(sql.MEMBERS if ended else sql.OPEN_MEMBERS, group)]

    def variants(self, workloads: Sequence[str]) -> dict[str, Variant]:
        """What those of them are that are variants."""
        return {key: _variant.decode(body) for key, body in self._read(sql.VARIANTS, json.dumps(list(workloads)))}

    def owned(self) -> list[str]:
        """The workloads of programs' apps that calls wait for."""
        found = [""]
        while rows := self._read(sql.NEXT_OWNED, found[-1]):
            found.append(rows[0][0])
        return found[1:]

    def once(self, workload: str, method: str, key: str, idempotency_key: str) -> Call | None:
        """The one with that idempotency key."""
        rows = self._read(sql.CALL_ONCE, workload, method, key, idempotency_key)
        return _call(rows[0]) if rows else None

    def kinds(self, group: str) -> Iterator[tuple[str, str, str]]:
        """The workloads, methods and API keys of its calls: each kind is looked up when it is asked for."""
        told: list[tuple[str, str, str]] = []
        while rows := self._read(sql.OTHER_KIND, group, json.dumps(told)):
            told += rows
            yield rows[0]

    def digests(self) -> Iterator[str]:
        """Of the blobs that kept calls name."""
        last = ""
        while rows := self._read(sql.CALL_DIGESTS, last, DIGESTS_PER_READ):
            yield from (digest for (digest,) in rows)
            last = rows[-1][0]

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
        last = prefix if exact else prefix + LAST_CHARACTER
        which = (prefix, state or "", before or LAST_ID, max(most, 0), key, last)
        return [_call(row) for row in self._read(sql.JOBS if jobs else sql.CALLS, *which)]


# -- rows -----------------------------------------------------------------------------------------


def _values(call: Call) -> Row:
    retrying, keeping = call.retrying, call.keeping
    error = ("", "") if call.error is None else (call.error.code, call.error.message)
    return (
        *(call.id, call.workload, call.method, call.accepted_at, call.due_at, call.accept, call.key, call.priority),
        *(call.idempotency_key, call.group),
        *(retrying.max_retries, retrying.backoff_coefficient, retrying.initial_delay_s, retrying.max_delay_s),
        *(call.jitter, call.timeout_s, keeping.result_s, keeping.dead_letter_s),
        *(call.state, call.attempts, call.token, call.replica, call.pool, call.leased_at, *error, call.ended_at),
        *(call.cpu_us, call.run_us, call.members, int(call.owned), call.expires_at),
    )


def _call(row: Sequence[Any]) -> Call:
    id, workload, method, accepted_at, due_at, accept, key, priority, idempotency_key, group = row[:10]
    state, attempts, token, replica, pool, leased_at, error_code, error_message, ended_at = row[18:27]
    cpu_us, run_us, members, owned = row[27:]
    return Call(
        id=id,
        workload=workload,
        method=method,
        accepted_at=accepted_at,
        due_at=due_at,
        accept=accept,
        key=key,
        priority=priority,
        idempotency_key=idempotency_key,
        group=group,
        retrying=Retrying(*row[10:14]),
        jitter=row[14],
        timeout_s=row[15],
        keeping=Keeping(*row[16:18]),
        state=state,
        attempts=attempts,
        token=token,
        replica=replica,
        pool=pool,
        leased_at=leased_at,
        error=CallError(error_code, error_message) if error_code else None,
        ended_at=ended_at,
        cpu_us=cpu_us,
        run_us=run_us,
        members=members,
        owned=bool(owned),
    )


# -- in the writing thread ------------------------------------------------------------------------


def _reading(connection: Connection) -> Read:
    return lambda statement, *values: connection.execute(statement, values).fetchall()


def _priorities(read: Read, workload: str) -> Iterator[int]:
    """Those that queued calls of a workload have, the highest first: each is looked up when it is asked for."""
    below = LAST_PRIORITY
    while found := read(sql.NEXT_PRIORITY, workload, below):
        ((priority,),) = found
        yield priority
        below = priority


def _add(works: Sequence[Work], variants: dict[str, Variant], ids: list[str], connection: Connection) -> None:
    connection.executemany(sql.ADD_VARIANT, [(key, msgspec.msgpack.encode(each)) for key, each in variants.items()])
    for run in _runs(works):
        added = connection.each(sql.ADD_CALL, [_values(work.call) for work in run])
        new = [(row[0], work.input) for work, row in zip(run, added, strict=True) if row]
        connection.executemany(sql.ADD_INPUT, [(seq, *_body(body)) for seq, body in new])
        known = [work.call for work, row in zip(run, added, strict=True) if not row]
        same = [(call.id, call.workload, call.method, call.key, call.idempotency_key) for call in known]
        kept = iter(connection.each(sql.KEPT_CALL, same))
        ids += [work.call.id if row else next(kept)[0] for work, row in zip(run, added, strict=True)]


def _runs(works: Sequence[Work]) -> Iterator[list[Work]]:
    """No id is twice in one of these: what was kept instead of a call can be asked for at the end."""
    run: dict[str, Work] = {}
    for work in works:
        if work.call.id in run:
            yield list(run.values())
            run = {}
        run[work.call.id] = work
    if run:
        yield list(run.values())


def _lease(
    workload: str, most: int, now: float, idle: bool, to: dict[str, Any], works: list[Work], connection: Connection
) -> None:
    """`to`: fields of the calls that say who has them now."""
    found = _handed_out(_reading(connection), workload, most, now, idle)
    values = (to["token"], to["replica"], to["pool"], to["leased_at"])
    connection.executemany(sql.LEASE_CALL, [(*values, seq) for seq, _ in found])
    inputs = connection.each(sql.INPUT_OF, [(seq,) for seq, _ in found])
    for (_, call), body in zip(found, inputs, strict=True):
        leased = replace(call, state="leased", attempts=call.attempts + 1, **to)
        works.append(Work(leased, Body(*body)))


def _handed_out(read: Read, workload: str, most: int, now: float, idle: bool) -> list[tuple[int, Call]]:
    """The first that are no suspects, with the numbers of their rows; or the very first, where that is one."""
    found: list[tuple[int, Call]] = []
    for priority in _priorities(read, workload):
        rows = read(sql.DUE_CALLS, workload, priority, now, most - len(found), int(idle and not found))
        due = sorted(((seq, _call(row)) for seq, *row in rows), key=lambda each: (each[1].due_at, each[1].id))
        if due and due[0][1].is_suspect:
            return due[:1]
        found += [each for each in due if not each[1].is_suspect]
        if len(found) == most:
            break
    return found


def _finish(outcomes: Sequence[Outcome], recorded: list[bool], connection: Connection) -> None:
    for _, alike in groupby(outcomes, lambda outcome: isinstance(outcome, Again)):
        them = list(alike)
        _end([each for each in them if not isinstance(each, Again)], recorded, connection)
        _queue([each for each in them if isinstance(each, Again)], recorded, connection)


def _end(outcomes: list[Done | Failed | Cancelled], recorded: list[bool], connection: Connection) -> None:
    rows = connection.each(sql.END_CALL, [_ended(outcome) for outcome in outcomes])
    ended = [(row[0], outcome) for row, outcome in zip(rows, outcomes, strict=True) if row]
    # Of a dead letter it stays, for a retry.
    connection.executemany(sql.DROP_INPUT, [(seq,) for seq, outcome in ended if not isinstance(outcome, Failed)])
    bodies = [(seq, _result(outcome)) for seq, outcome in ended if not isinstance(outcome, Cancelled)]
    connection.executemany(sql.ADD_RESULT, [(seq, *_body(body)) for seq, body in bodies])
    heads = [(seq, msgspec.msgpack.encode(body.head)) for seq, body in bodies if body.head is not None]
    connection.executemany(sql.ADD_HEAD, heads)
    _record(outcomes, rows, recorded, connection)


def _queue(outcomes: list[Again], recorded: list[bool], connection: Connection) -> None:
    values = []
    for outcome in outcomes:
        told = (outcome.error.code, outcome.error.message) if outcome.error is not None else (None, None)
        values.append((outcome.due_at, *told, *_used(outcome), not outcome.counts))
    _record(outcomes, connection.each(sql.CALL_AGAIN, values), recorded, connection)


def _record(
    outcomes: Sequence[Outcome], rows: Sequence[Row | None], recorded: list[bool], connection: Connection
) -> None:
    """What came of nothing was used all the same."""
    late = [_used(outcome) for outcome, row in zip(outcomes, rows, strict=True) if row is None]
    connection.executemany(sql.ADD_USED, late)
    recorded += [row is not None for row in rows]


def _ended(outcome: Done | Failed | Cancelled) -> Row:
    match outcome:
        case Done(at=at):
            return at, "", "", *_used(outcome), "done"
        case Failed(at=at, error=error):
            return at, error.code, error.message, *_used(outcome), "failed"
        case Cancelled(at=at, error=error):
            return at, error.code, error.message, *_used(outcome), "cancelled"


def _used(outcome: Outcome) -> Row:
    return outcome.cpu_us, outcome.run_us, outcome.id, outcome.token


def _result(outcome: Done | Failed) -> Body:
    return outcome.result if isinstance(outcome, Done) else Body(outcome.content_type, outcome.body)


def _body(body: Body) -> Row:
    return body.content_type, body.data, body.digest


def _change(changes: Sequence[Change], after: list[Call | None], connection: Connection) -> None:
    for _, alike in groupby(changes, type):
        after += [_call(row[1:]) if row else None for row in _changed(list(alike), connection)]


def _changed(changes: Sequence[Change], connection: Connection) -> list[Row | None]:
    """The rows after changes of one kind."""
    rows: list[Row | None] = []
    match changes[0]:
        case Cancel():
            rows = connection.each(sql.CANCEL_CALL, [_asked(change) for change in changes])
            connection.executemany(sql.DROP_INPUT, [row[:1] for row in rows if row])
        case Retry():
            rows = connection.each(sql.RETRY_CALL, [_asked(change) for change in changes])
            queued = [(row[:1], change) for row, change in zip(rows, changes, strict=True) if row]
            connection.executemany(sql.DROP_RESULT, [seq for seq, _ in queued])
            inputs = [(seq, change.input) for seq, change in queued if isinstance(change, Retry) and change.input]
            connection.executemany(sql.SET_INPUT, [(*_body(body), *seq) for seq, body in inputs])
        case Forget():
            for change in changes:
                _drop(connection.execute(sql.HAD_CALLS, _asked(change)).fetchall(), connection)
                rows.append(None)
        case Remove():
            gone = [row for row in connection.each(sql.REMOVE_CALL, [_asked(change) for change in changes]) if row]
            _drop(gone, connection)
            rows = [None] * len(changes)
    return rows


def _asked(change: Change) -> Row:
    match change:
        case Cancel(id=id, at=at, error=error):
            return at, error.code, error.message, id
        case Retry(id=id, at=at):
            return at, id
        case Forget(group=group, key=key, number=number):
            return group, number, key, BATCH_MAX
        case Remove(id=id):
            return (id,)


def _sweep(now: float, most: int, swept: list[str], connection: Connection) -> None:
    gone = _reading(connection)(sql.EXPIRED_CALLS, now, most)
    _drop([(seq,) for seq, _ in gone], connection)
    connection.execute(sql.TRIM_VARIANTS)
    swept.extend(id for _, id in gone)


def _drop(gone: Sequence[Row], connection: Connection) -> None:
    for drop in (sql.DROP_CALL, sql.DROP_INPUT, sql.DROP_RESULT, sql.DROP_HEAD):
        connection.executemany(drop, gone)
