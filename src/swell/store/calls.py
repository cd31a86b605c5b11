"""How does the durable queue stand in a database? A row for each call, its input and its result in rows of their own.

What a write answers is filled in by the writing thread and committed before its caller goes on: so readings here need
not wait for anything, as others of the store do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

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
    Count,
    Depth,
    Done,
    Failed,
    Forget,
    GroupEnd,
    Keeping,
    Members,
    Outcome,
    Queued,
    Retry,
    Standing,
    State,
    Work,
    check,
)
from swell.model.retrying import Retrying
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

    def add(self, works: Sequence[Work]) -> list[str]:
        """Accept calls; on disk before it returns."""
        for work in works:
            check(work.call)
        return self._answered(partial(_add, tuple(works)), len(works))

    def lease(self, workload: str, most: int, now: float, token: int, replica: str, pool: str) -> list[Work]:
        """Hand out what is due; committed, and not synced, before it returns."""
        to = {"leased_at": now, "token": token, "replica": replica, "pool": pool}
        return self._answered(partial(_lease, workload, most, now, to), most, synced=False)

    def finish(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Record what attempts came to; on disk before it returns."""
        return self._answered(partial(_finish, tuple(outcomes)), len(outcomes))

    def change(self, changes: Sequence[Change]) -> list[Call | None]:
        """Cancel calls, retry dead letters, forget what was had; on disk before it returns."""
        return self._answered(partial(_change, tuple(changes)), len(changes))

    def sweep(self, now: float, most: int) -> list[str]:
        """Forget calls that have expired; on disk before it returns."""
        return self._answered(partial(_sweep, now, most), most)

    def standing(self) -> Standing:
        """What there is to go on with at a start."""
        queued = {}
        for workload, state, calls in self._read(sql.CALL_COUNTS, ""):
            # None where it was handed out meanwhile.
            first = self.depth(workload, float("-inf"), 0).next_at if state == "queued" else None
            if first is not None:
                queued[workload] = Queued(calls, first)
        return Standing(queued, tuple(_call(row) for row in self._read(sql.LEASED_CALLS)))

    def depth(self, workload: str, now: float, most: int) -> Depth:
        """What the queue of a workload asks for."""
        due, nexts = 0, []
        counted: list[tuple[int, int]] = []
        for priority in _priorities(self._read, workload):
            if due < most:
                found = self._read(sql.COUNT_DUE, workload, priority, now, most - due)[0][0]
                counted += [(priority, found)] if found else []
                due += found
            nexts += [at for (at,) in self._read(sql.NEXT_DUE, workload, priority, now)]
        return Depth(due, min(nexts, default=None), tuple(counted))

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

    def input(self, id: str) -> Body | None:
        """Its input."""
        rows = self._read(sql.CALL_INPUT, id)
        return Body(*rows[0]) if rows else None

    def result(self, id: str) -> Body | None:
        """Its result, or of a dead letter the error."""
        rows = self._read(sql.CALL_RESULT, id)
        return Body(*rows[0]) if rows else None

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

    def counts(self, prefix: str) -> list[Count]:
        """By workload and state."""
        return [Count(*row) for row in self._read(sql.CALL_COUNTS, prefix)]


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
        *(call.cpu_us, call.run_us, call.members, call.expires_at),
    )


def _call(row: Sequence[Any]) -> Call:
    id, workload, method, accepted_at, due_at, accept, key, priority, idempotency_key, group = row[:10]
    state, attempts, token, replica, pool, leased_at, error_code, error_message, ended_at = row[18:27]
    cpu_us, run_us, members = row[27:]
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


def _add(works: Sequence[Work], ids: list[str], connection: Connection) -> None:
    for work in works:
        call = work.call
        added = connection.execute(sql.ADD_CALL, _values(call)).fetchall()
        if added:
            body = work.input
            connection.execute(sql.ADD_INPUT, (added[0][0], body.content_type, body.data, body.digest))
            ids.append(call.id)
        else:
            same = (call.id, call.workload, call.method, call.key, call.idempotency_key)
            kept = connection.execute(sql.KEPT_CALL, same)
            ids.append(kept.fetchone()[0])


def _lease(workload: str, most: int, now: float, to: dict[str, Any], works: list[Work], connection: Connection) -> None:
    """`to`: fields of the calls that say who has them now."""
    read = _reading(connection)
    found: list[Row] = []
    for priority in _priorities(read, workload):
        found += read(sql.DUE_CALLS, workload, priority, now, most - len(found))
        if len(found) == most:
            break
    values = (to["token"], to["replica"], to["pool"], to["leased_at"])
    connection.executemany(sql.LEASE_CALL, [(*values, seq) for seq, *_ in found])
    for seq, *row in found:
        call = _call(row)
        leased = replace(call, state="leased", attempts=call.attempts + 1, **to)
        works.append(Work(leased, Body(*read(sql.INPUT_OF, seq)[0])))


def _finish(outcomes: Sequence[Outcome], recorded: list[bool], connection: Connection) -> None:
    for outcome in outcomes:
        used = (outcome.cpu_us, outcome.run_us, outcome.id, outcome.token)
        match outcome:
            case Done(at=at, result=result):
                rows = connection.execute(sql.CALL_DONE, (at, "", "", *used)).fetchall()
                bodies = [(seq, result.content_type, result.data, result.digest) for (seq,) in rows]
                connection.executemany(sql.DROP_INPUT, rows)
            case Failed(at=at, error=error):
                rows = connection.execute(sql.CALL_FAILED, (at, error.code, error.message, *used)).fetchall()
                bodies = [(seq, outcome.content_type, outcome.body, "") for (seq,) in rows]
            case Cancelled(at=at, error=error):
                rows = connection.execute(sql.CALL_CANCELLED, (at, error.code, error.message, *used)).fetchall()
                bodies = []
                connection.executemany(sql.DROP_INPUT, rows)
            case Again(due_at=due_at, error=error):
                told = (error.code, error.message) if error is not None else (None, None)
                rows = connection.execute(sql.CALL_AGAIN, (due_at, *told, *used, not outcome.counts)).fetchall()
                bodies = []
        connection.executemany(sql.ADD_RESULT, bodies)
        if not rows:
            connection.execute(sql.ADD_USED, used)
        recorded.append(bool(rows))


def _change(changes: Sequence[Change], after: list[Call | None], connection: Connection) -> None:
    read = _reading(connection)
    for change in changes:
        match change:
            case Cancel(id=id, at=at, error=error):
                rows = read(sql.CANCEL_CALL, at, error.code, error.message, id)
                connection.executemany(sql.DROP_INPUT, [row[:1] for row in rows])
            case Retry(id=id, at=at):
                rows = read(sql.RETRY_CALL, at, id)
                connection.executemany(sql.DROP_RESULT, [row[:1] for row in rows])
            case Forget(group=group, key=key, number=number):
                _drop(read(sql.HAD_CALLS, group, number, key, BATCH_MAX), connection)
                rows = []
        after.append(_call(rows[0][1:]) if rows else None)


def _sweep(now: float, most: int, swept: list[str], connection: Connection) -> None:
    gone = _reading(connection)(sql.EXPIRED_CALLS, now, most)
    _drop([(seq,) for seq, _ in gone], connection)
    swept.extend(id for _, id in gone)


def _drop(gone: Sequence[Row], connection: Connection) -> None:
    for drop in (sql.DROP_CALL, sql.DROP_INPUT, sql.DROP_RESULT):
        connection.executemany(drop, gone)
    connection.execute(sql.TRIM_CALL_COUNTS)
