"""How do many small writes become few commits? One thread owns the writing connection.

Writes queue up; the thread takes everything that waits into one transaction and syncs it to disk.
Somebody waiting (a durable write, a read) makes it start at once, otherwise it first gathers for a
moment. When the disk fails, whoever waits gets the error; the rest is kept in order, up to a
bound, and tried again. Writes that must be seen and need not be on disk yet go first, in a commit
of their own that no sync holds up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress

from swell.model.errors import SwellError
from swell.model.metrics import WRITE_SECONDS, histogram
from swell.store import statements as sql
from swell.store.database import Database, Op

log = logging.getLogger("swell.store")

GATHER_S = 0.1
"""How long writes that nobody waits for may gather before they are committed."""
RETRY_S = 1.0
"""Time between attempts while the disk fails."""
ROWS_WAITING_MAX = 20_000
"""Rows that nobody waits for, kept in memory while they cannot be written; further ones are dropped and counted."""


class Group:
    """Writes that are on disk together or not at all. `done` is there when somebody waits; `synced`: for the disk."""

    __slots__ = ("done", "ops", "rows", "synced")

    def __init__(self, ops: Sequence[Op], rows: int, done: Future[int] | None, synced: bool = True) -> None:
        self.ops = ops
        self.rows = rows
        self.done = done
        self.synced = synced


class Writer:
    """The writing thread over the writing connection of a database, which it closes at the end."""

    def __init__(
        self, database: Database, chore: Op, chore_s: float, otherwise: Callable[[], None] = lambda: None
    ) -> None:
        """`chore` runs in a commit of its own after the first write and then, while there are any, each `chore_s`.
        `otherwise` is called, in the thread, when a write was made that somebody was told had failed."""
        self.trouble = ""
        """Why the last commit failed; empty when it did not."""
        self.dropped = 0
        """Rows lost so far because they could not be written."""
        self.write_seconds = histogram(WRITE_SECONDS)
        self._database = database
        self._chore = chore
        self._chore_s = chore_s
        self._otherwise = otherwise
        self._queue: deque[Group] = deque()
        self._doubted: Sequence[Group] = ()
        """Those of a commit that failed, as far as is known: they may be written all the same."""
        self._rows = 0
        self._committing = False
        self._urgent = False
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def put(self, ops: Sequence[Op], rows: int, kept: bool = False) -> None:
        """Write soon, without waiting. `kept`: they are not dropped, however many wait."""
        with self._changed:
            self._refuse_closed()
            if self._rows + rows > ROWS_WAITING_MAX and not kept:
                self.dropped += rows
                return
            self._add(Group(ops, rows, None))

    def do(self, ops: Sequence[Op], synced: bool = True) -> int:
        """Write now and wait until it is on disk. Returns the last op's number; raises when it failed.

        Not `synced`: until it is committed. Everybody sees it then, and it outlives this process; a power failure may
        take it back, up to the next write that is synced.
        """
        done: Future[int] = Future()
        with self._changed:
            self._refuse_closed()
            self._urgent = True
            # Who waits is a bound by itself: a large batch takes no room from those that do not.
            self._add(Group(ops, 0, done, synced))
        return done.result()

    def flush(self) -> None:
        """Wait until what was put before has been tried."""
        with self._changed:
            if not self._queue and not self._committing:
                return
        try:
            self.do(())
        except SwellError as error:
            log.debug("a flush met %s", error.code)

    def close(self) -> None:
        """Write what waits and end the thread. Raises if rows had to be given up."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify()
        self._thread.join()
        if self._rows:
            raise SwellError("state_lost", f"{self._rows} rows could not be written at the end. {self.trouble}")

    def _refuse_closed(self) -> None:
        if self._closing:
            raise SwellError("state_closed", f"The database {self._database.name} is closed.", status=503)

    def _add(self, group: Group) -> None:
        self._queue.append(group)
        self._rows += group.rows
        if group.done is not None or len(self._queue) == 1:
            # Otherwise the thread is awake or gathering already: it need not be disturbed.
            self._changed.notify()

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        chore_at = 0.0
        while batch := self._gather():
            for synced in (False, True):
                if part := [group for group in batch if group.synced is synced]:
                    self._commit(part, synced)
            if not self.trouble and time.monotonic() >= chore_at:
                self._commit([Group([self._chore], 0, None)], True)
                chore_at = time.monotonic() + self._chore_s
            with self._changed:
                self._committing = False
                if self._closing and self.trouble and not any(group.done for group in self._queue):
                    break
        self._database.close_writing()

    def _gather(self) -> list[Group]:
        """Everything that waits; empty when it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            pause_s = RETRY_S if self.trouble else GATHER_S
            self._changed.wait_for(lambda: self._urgent or self._closing, pause_s)
            batch = list(self._queue)
            self._queue.clear()
            self._urgent = False
            self._committing = bool(batch)
            return batch

    def _commit(self, batch: Sequence[Group], synced: bool) -> None:
        began, database = time.perf_counter(), self._database
        try:
            if database.begin(synced):
                self._found()
            answers = [self._apply(group) for group in batch]
            self._doubted = batch
            database.commit()
        except Exception as error:
            # Whatever it is: while this thread lives, those who wait are told.
            database.rollback()
            self._keep_for_later(batch, self._fault(error))
            return
        self._doubted = ()
        if synced:
            self.write_seconds.observe(time.perf_counter() - began)
        if self.trouble:
            log.warning("%s can be written again", database.name)
        self.trouble = ""
        for group, answer in zip(batch, answers, strict=True):
            self._settle(group, answer)

    def _found(self) -> None:
        """The commit that was told to have failed was made: it is not made again, and whoever was told is wrong."""
        told = any(group.done is not None and group.ops for group in self._doubted)
        for group in self._doubted:
            group.ops = ()
        if told:
            log.warning("%s has what was told not to be written", self._database.name)
            # Whoever hears it may have ended.
            with suppress(RuntimeError):
                self._otherwise()

    def _fault(self, error: Exception) -> SwellError:
        if isinstance(error, self._database.errors):
            return self._database.fault(error)
        log.exception("a commit failed by what no database raises")
        words = f"The database {self._database.name} could not be used: {type(error).__name__}: {error}."
        return SwellError("state_failed", words, status=500)

    def _apply(self, group: Group) -> int | SwellError:
        """Run one group's writes. One that cannot be written for its own content spoils nobody else's."""
        connection = self._database.writing
        connection.execute(sql.SAVEPOINT)
        answer: int | SwellError = 0
        try:
            for op in group.ops:
                answer = op(connection)
        except Exception as error:
            if not self._database.of_row(error):
                raise
            connection.execute(sql.ROLLBACK_TO)
            words = f"The database {self._database.name} cannot hold a row: {error}"
            # An op may look before it writes, and refuse.
            answer = error if isinstance(error, SwellError) else SwellError("row_refused", words, status=500)
        connection.execute(sql.RELEASE)
        return answer

    def _settle(self, group: Group, answer: int | SwellError) -> None:
        with self._changed:
            self._rows -= group.rows
            if isinstance(answer, SwellError) and group.done is None:
                self.dropped += group.rows
        if isinstance(answer, int):
            if group.done is not None:
                group.done.set_result(answer)
        elif group.done is not None:
            group.done.set_exception(answer)
        else:
            log.error("%s", answer.message)

    def _keep_for_later(self, batch: Sequence[Group], error: SwellError) -> None:
        """Those who wait are told; the others' writes go back to the head of the queue, in order."""
        if not self.trouble:
            log.error("%s", error.message)
        self.trouble = error.message
        with self._changed:
            self._queue.extendleft(reversed([group for group in batch if group.done is None and group.rows]))
        for group in batch:
            if group.done is not None:
                self._settle(group, error)
