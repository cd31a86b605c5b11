"""How is there a connection to PostgreSQL again whenever it was lost? One thread makes it, and nobody else does.

Others wait for that as long as they like, and are told at once while it fails. A new connection is used only once it is
known that the database is the same one, that it has all that was committed, and what became of a commit whose answer
did not come: each transaction leaves a number of its own behind, by which that is seen.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import asyncpg

from swell.model.errors import SwellError
from swell.model.urls import shown
from swell.store import postgres_faults as faults
from swell.store import postgres_statements as words
from swell.store import schema
from swell.store import statements as sql
from swell.store.postgres_session import Session
from swell.store.snapshot import EPOCHS_APART

log = logging.getLogger("swell.store")

CONNECT_S = 5.0
"""For a connection."""
ANSWER_S = 30.0
"""For any answer; a server that gives none is as good as away."""
CLOSE_S = 3.0
TAKEN_S = 10
"""How long it is waited at once where another server has the database: one that was killed is rid of it as soon as its
connection is."""
AGAIN_S = 0.5
"""Between two attempts to connect."""
MARKS_KEPT = 1000
"""Every so many transactions the marks of older ones go."""
SETTINGS = {
    "application_name": "swell",
    "timezone": "UTC",
    # Whatever the server has as its default: what is answered is on disk, and nothing is called off.
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}
KEEPALIVES = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    # There are no keepalives while an answer is on its way.
    "tcp_user_timeout": "20000",
}
"""A machine that vanished has its database taken from it after this long: 20 to 25 s."""

Answer = TypeVar("Answer")


async def connected(url: str, lost: Callable[[Any], None] = lambda _connection: None) -> Any:
    """A connection to the server at that address that takes writes. `lost` is told when it is over."""
    try:
        connection: Any = await asyncpg.connect(
            url,
            timeout=CONNECT_S,
            command_timeout=ANSWER_S,
            server_settings=SETTINGS | KEEPALIVES,
            # A standby would let itself be read, and not be written to.
            target_session_attrs="primary",
        )
    except ValueError:
        # Not its words: what they quote may be of the password.
        said = "it is no address as postgresql://USER:PASSWORD@HOST:5432/DATABASE is, with %2F for a slash in it"
        raise SwellError("bad_setting", f"SWELL_STORE cannot be used: {said}.") from None
    except asyncpg.exceptions.TargetServerAttributeNotMatched:
        raise ConnectionError("only a standby answers there, and nothing can be written to one") from None
    connection.add_termination_listener(lost)
    try:
        # Of sums of whole numbers, which PostgreSQL has exact.
        await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=int, format="text")
    except BaseException:
        connection.terminate()
        raise
    return connection


def take(session: Session, name: str) -> None:
    """The database is this session's alone, for as long as that lasts. SwellError state_locked."""
    session.told(words.LOCK_WAIT.format(TAKEN_S))
    try:
        session.ask(words.OURS)
    except asyncpg.LockNotAvailableError:
        said = f"The database {name} is another Swell server's now, and each needs one of its own: stop that "
        raise SwellError("state_locked", f"{said}one, or set SWELL_STORE to another.", status=503) from None
    session.told("RESET lock_timeout")


def bring_forward(session: Session, name: str) -> None:
    """The database has the present tables, or is refused."""
    encoding = session.ask(words.ENCODING)
    if encoding != "UTF8":
        said = f"The database {name} is encoded in {encoding}, which not all texts can be: make it with UTF8."
        raise SwellError("state_foreign", said)
    schema.migrate(session, name, schema.migrations("sql_postgres"), "SWELL_STORE to another database")


class Commit:
    """A transaction. What became of it is not known until its commit is answered or looked up."""

    __slots__ = ("made", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.made: bool | None = None


class Link:
    """A connection that writes, with which the database is this server's, and one that reads."""

    def __init__(self, url: str, moved: Callable[[], None]) -> None:
        """Connected; raises SwellError where that cannot be. `moved` is called, from a thread, when whoever writes here
        has to begin anew with what is there."""
        self.name = shown(url)
        self.url = url
        self._moved = moved
        self._loop = _new_loop()
        self._running = threading.Thread(target=self._loop.run_forever, name="postgres", daemon=True)
        self._keeping = threading.Thread(target=self._keep, name="postgres-link", daemon=True)
        self._changed = threading.Condition()
        """Guards what follows; nobody waits for the database while it is held."""
        self._session: Session | None = None
        self._reading: Any = None
        self._failed: SwellError | None = None
        """Why the newest attempt since a connection was lost came to nothing."""
        self._over: SwellError | None = None
        """Why nothing is done here any more."""
        self._ended = False
        """No connection is made any more."""
        self.place = ""
        """Which database it is, as it was opened."""
        self._times = 0
        """How often it was opened, this time included; 0 before that."""
        self._numbers = itertools.count(1)
        self._newest = 0
        """The newest transaction that is known to have been committed."""
        self._commit: Commit | None = None
        """The newest one that was to be."""
        self._running.start()
        try:
            self._connect()
        except faults.ERRORS as error:
            self.end()
            raise faults.of(self.name, error) from error
        except BaseException:
            self.end()
            raise
        self._keeping.start()

    # -- what there is -------------------------------------------------------------------------

    def writing(self, wait_s: float) -> Session:
        """The connection that writes. Where it was lost: once there is another, or the first attempt to have one came
        to nothing, or so much time has passed; raises then."""
        with self._changed:
            self._changed.wait_for(lambda: self._session is not None or self._why is not None, wait_s)
            if self._session is None or self._over is not None:
                raise self._refusal()
            return self._session

    def reading(self, wait_s: float = 0.0) -> Any:
        """The connection that reads; likewise."""
        with self._changed:
            self._changed.wait_for(lambda: self._reading is not None or self._why is not None, wait_s)
            if self._reading is None or self._over is not None:
                raise self._refusal()
            return self._reading

    def lose(self, connection: Any) -> None:
        """Give a connection up, and have another. What reads goes with what writes: nobody reads before it is settled
        what that one wrote last."""
        with self._changed:
            lost = [connection]
            if self._session is not None and self._session.connection is connection:
                lost.append(self._reading)
                self._session = self._reading = self._failed = None
            elif self._reading is connection:
                self._reading = self._failed = None
            self._changed.notify_all()
        for each in lost:
            if each is not None:
                self._loop.call_soon_threadsafe(each.terminate)

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Do it on the connections' loop, and wait. Raises nothing but `faults.ERRORS`: a connection that is about to
        break may raise anything."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except faults.ERRORS:
            raise
        except Exception as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error

    def release(self) -> None:
        """Nothing more is written: the database may be another server's."""
        with self._changed:
            self._ended = True
            session, self._session = self._session, None
            self._changed.notify_all()
        if session is not None:
            self._close(session.connection)

    def end(self) -> None:
        """Nothing is done any more."""
        with self._changed:
            self._ended = True
            self._over = self._over or SwellError("state_closed", f"The database {self.name} is closed.", status=503)
            connections = [self._session and self._session.connection, self._reading]
            self._session = self._reading = None
            self._changed.notify_all()
        while self._keeping.is_alive():
            # Whatever it waits for.
            self._loop.call_soon_threadsafe(self._call_off)
            self._keeping.join(0.1)
        for connection in connections:
            if connection is not None:
                self._close(connection, at_once=True)
        if self._running.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._running.join()
            self._loop.close()

    # -- what is committed -----------------------------------------------------------------------

    def begun(self) -> tuple[Commit, tuple[str, ...]]:
        """The next transaction, and what is said in it by which it is known later."""
        commit = Commit(next(self._numbers))
        said = [words.MARK.format(commit.number)]
        if commit.number % MARKS_KEPT == 0:
            said.append(words.DROP_MARKS.format(self._newest))
        return commit, tuple(said)

    def commits(self, session: Session, commit: Commit) -> None:
        """From here on it may be made, whatever is heard of it. Raises where the connection was lost before that."""
        with self._changed:
            if self._session is not session:
                raise ConnectionError("the connection was lost")
            self._commit = commit

    def answered(self, commit: Commit, made: bool) -> None:
        """The database said so."""
        with self._changed:
            self._settle(commit, made)

    def settled(self, commit: Commit, wait_s: float) -> bool:
        """Was it made, as is seen by the next connection? False, too, where there is none for so long."""
        with self._changed:
            self._changed.wait_for(lambda: commit.made is not None or self._over is not None, wait_s)
            return bool(commit.made)

    def _settle(self, commit: Commit, made: bool) -> None:
        commit.made = made
        if made:
            self._newest = max(self._newest, commit.number)
        self._changed.notify_all()

    # -- the thread that connects ----------------------------------------------------------------

    def _keep(self) -> None:
        while self._wanted():
            try:
                self._connect()
            except Exception as error:
                if not isinstance(error, faults.ERRORS):
                    log.exception("a connection to %s could not be made", self.name)
                with self._changed:
                    self._failed = faults.of(self.name, error)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._ended, AGAIN_S)

    def _wanted(self) -> bool:
        """Waits until there is a connection to be made; False: never more."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._over or None in (self._session, self._reading))
            return not self._ended and self._over is None

    def _connect(self) -> None:
        """Make what is not there, as far as it is not lost meanwhile."""
        before = self._session
        session = before or self._opened()
        fresh = [] if before else [session.connection]
        try:
            fresh.append(self._opened_to_read())
            with self._changed:
                if self._session is not before or self._ended:
                    # What writes was lost meanwhile: all is made anew.
                    return
                if any(each.is_closed() for each in fresh):
                    raise ConnectionError("it was lost again at once")
                self._session, self._reading, self._failed = session, fresh[-1], None
                fresh.clear()
                self._changed.notify_all()
        finally:
            for each in fresh:
                self._close(each, at_once=True)

    def _opened_to_read(self) -> Any:
        connection = self.run(connected(self.url, self.lose))
        try:
            self.run(connection.execute(words.ONLY_READ))
            if self.run(connection.fetchval(words.PLACE)) != self.place:
                raise ConnectionError("the connection that reads leads to another database than the one that writes")
        except BaseException:
            self._close(connection, at_once=True)
            raise
        return connection

    def _opened(self) -> Session:
        """The connection that writes; the database is this server's from here on."""
        session = Session(self.run, self.run(connected(self.url, self.lose)))
        try:
            self._take(session)
            if self._times:
                self._come_back(session)
            else:
                bring_forward(session, self.name)
                self._settle_in(session)
        except BaseException:
            self._close(session.connection, at_once=True)
            raise
        return session

    def _take(self, session: Session) -> None:
        try:
            take(session, self.name)
        except SwellError:
            if not self._times:
                raise
            said = "it is held still: by the former connection of this server, or by another server"
            raise ConnectionError(said) from None

    def _settle_in(self, session: Session) -> None:
        """It is opened once more. What was numbered by epochs in a copy of it, or lost with a server, is older."""
        place = session.ask(words.PLACE)
        before, _ = session.execute(words.OPENED).fetchone()
        session.say("BEGIN")
        if before not in ("", place):
            session.execute(sql.NEXT_EPOCHS, (EPOCHS_APART,))
        session.say(words.DROP_ALL_MARKS)
        times = session.ask(words.OPEN, place)
        session.told("COMMIT")
        self.place, self._times = place, times
        if session.ask(words.NOT_SYNCED):
            log.warning("%s runs with fsync off: when its machine fails, what was accepted may be lost", self.name)

    def _come_back(self, session: Session) -> None:
        """It must be the same database, in which nobody else was. What became of the newest commit is settled."""
        here = (session.ask(words.PLACE), *session.execute(words.OPENED).fetchone())
        if here != (self.place, self.place, self._times):
            said = f"Another server has opened the database {self.name} meanwhile, or it is another one now."
            with self._changed:
                self._over = SwellError("state_locked", f"{said} This control ends.", status=503)
                self._changed.notify_all()
            log.error("%s", self._over.message)
            self._begin_anew()
            raise self._over
        # What is there when a synced commit was answered is as safe as that: also where the one in question had only
        # given up to wait for a standby.
        mark, commit = next(self._numbers), self._commit
        session.told("BEGIN", words.MARK.format(mark), "COMMIT")
        asked = (self._newest, commit.number if commit is not None else 0)
        there = {number for (number,) in session.execute(words.MARKS, asked)}
        with self._changed:
            newest, self._newest = self._newest, mark
            if commit is not None and commit.made is None:
                self._settle(commit, commit.number in there)
        if newest and newest not in there:
            log.error("%s has lost what was written last: control begins anew with what is there", self.name)
            self._begin_anew()
            raise ConnectionError("it has lost what was written last, and control begins anew with what is there")

    def _begin_anew(self) -> None:
        # Whoever is told may have ended.
        with suppress(RuntimeError):
            self._moved()

    # -- helpers -----------------------------------------------------------------------------------

    @property
    def _why(self) -> SwellError | None:
        return self._over or self._failed

    def _refusal(self) -> SwellError:
        """Why there is no connection, as a new error: one that is raised in several threads would tell of all."""
        why = self._why or faults.of(self.name, ConnectionError("it is being connected to again"))
        return SwellError(why.code, why.message, status=why.status)

    def _close(self, connection: Any, at_once: bool = False) -> None:
        async def close() -> None:
            try:
                if not at_once:
                    # The library's own timeout does not count in all that it waits for.
                    await asyncio.wait_for(connection.close(), CLOSE_S)
            finally:
                connection.terminate()

        with suppress(*faults.ERRORS):
            self.run(close())

    def _call_off(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
