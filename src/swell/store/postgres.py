"""How does control's state outlive it? In a PostgreSQL database that is this server's alone.

The tables, and what is written and read, are those of SQLite (`tables`): the one writing thread, the group commit and
the transactions over several ports, too. What is otherwise is here: a connection may break, and the database be away
for a while. What was being committed then is looked up once it is back.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import asyncpg

from swell.model.errors import SwellError
from swell.model.kv import BOUNDS, Bounds
from swell.model.urls import shown
from swell.store import postgres_statements as words
from swell.store import schema
from swell.store import statements as sql
from swell.store.postgres_session import Session
from swell.store.retention import Keep
from swell.store.snapshot import EPOCHS_APART
from swell.store.tables import TableStore

log = logging.getLogger("swell.store")

CONNECT_S = 5.0
"""For a connection."""
ANSWER_S = 30.0
"""For any answer; a server that gives none is as good as away."""
CLOSE_S = 3.0
TAKEN_S = 10
"""How long another server may have the database: one that was killed is gone as soon as its connection is."""
AGAIN_S = 0.5
"""Where it could not be reached, it is not tried again before."""
DOUBT_S = 5.0
"""How long it is tried to learn what became of a commit whose answer did not come; its callers wait for that."""
SETTINGS = {
    "application_name": "swell",
    "timezone": "UTC",
    # Whatever the server has as its default: what is answered is on disk.
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
}
KEEPALIVES = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
"""A machine that vanished has its database taken from it after this long."""
_OF_ROW = ("22", "23", "42")
"""Kinds of errors that this row is to blame for."""
_REFUSED = ("28", "3D", "42501")
"""That no waiting mends: user, password, rights, the database's name."""

Answer = TypeVar("Answer")


class PostgresStore(TableStore):
    """The `Store` port over one database of a PostgreSQL server."""

    def __init__(
        self,
        url: str,
        keep: Keep | None = None,
        now: Callable[[], float] = time.time,
        bounds: Bounds = BOUNDS,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        """`moved` is called, from any thread, when nothing more can be written here: another server has the database,
        or it is another database. The rest as of `SqliteStore`."""
        super().__init__(PostgresDatabase(url, moved), keep, now, bounds)


class PostgresDatabase:
    """The `Database` port over a server's database: connected at once, and anew whenever that was lost."""

    errors: tuple[type[Exception], ...] = (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
        SwellError,
    )

    def __init__(self, url: str, moved: Callable[[], None] = lambda: None) -> None:
        self.name = shown(url)
        self._url = url
        self._moved = moved
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="postgres", daemon=True)
        self._connecting = threading.Lock()
        self._looking = threading.Lock()
        self._session: Session | None = None
        self._begun: Session | None = None
        """The one whose transaction is open."""
        self._reading: Any = None
        self._place = ""
        """Which database it is, as it was opened."""
        self._times = 0
        """How often it was opened, this time included; 0 before that."""
        self._doubt = ""
        """The transaction of which it is not known whether it was committed."""
        self._failed: tuple[float, Exception] = (0.0, OSError())
        self._over: SwellError | None = None
        """Why nothing is done here any more."""
        self._thread.start()
        try:
            self._connect()
        except self.errors as error:
            self._end()
            raise self.fault(error) from error
        except BaseException:
            self._end()
            raise

    # -- the port ----------------------------------------------------------------------------

    @property
    def writing(self) -> Session:
        """Where the transaction is."""
        if self._begun is None:
            raise ConnectionError("no transaction is open")
        return self._begun

    def begin(self, synced: bool) -> bool:
        """A transaction, on a new connection where the last one was lost."""
        session, _ = self._connect()
        settled = self._settled(session)
        session.say("BEGIN", *(() if synced else (words.SYNC_LATER,)))
        self._begun = session
        return settled

    def commit(self) -> None:
        """On disk, as it was begun. Where no answer comes, it is looked up; raises where that is no, or not known."""
        session = self.writing
        transaction = str(session.ask(words.THIS_COMMIT))
        try:
            status = session.told("COMMIT")
        except self.errors as error:
            if not _lost(error):
                raise
            self._lose(session)
            self._doubt = transaction
            if not self._settled_soon():
                raise
        else:
            if status != "COMMIT":
                raise ConnectionError(f"it was not committed, but: {status}")
        self._begun = None

    def rollback(self) -> None:
        """Give the transaction up, and the connection where that cannot be said there."""
        session, self._begun = self._begun, None
        if session is not None:
            try:
                session.abandon()
            except self.errors:
                self._lose(session)

    def look(self, statement: str, values: Sequence[Any]) -> list[Any]:
        """All rows of a query, of what is committed now."""
        try:
            with self._looking:
                _, reading = self._connect()
                try:
                    found = self._run(reading.fetch(words.said(statement), *values))
                except self.errors as error:
                    if _lost(error):
                        self._closed(reading, at_once=True)
                    raise
        except self.errors as error:
            raise self.fault(error) from error
        return [tuple(row) for row in found]

    def of_row(self, error: Exception) -> bool:
        """It is this row: neither the database nor the way to it."""
        if not isinstance(error, self.errors) or isinstance(error, SwellError):
            return True
        state = _state(error)
        return state.startswith(_OF_ROW) and state not in _REFUSED

    def fault(self, error: Exception) -> SwellError:
        """The database's own error as one that names the way out."""
        if isinstance(error, SwellError):
            return error
        said, state = f"{error}" or type(error).__name__, _state(error)
        if state.startswith("53") and state != "53300":
            what = f"There is no space left for the database {self.name} ({said}). Free some on its server; "
            return SwellError("state_full", f"{what}a server that runs goes on by itself.", status=507)
        if state.startswith(_REFUSED) or state == "25006":
            what = (
                f"The database {self.name} cannot be written to ({said}). Look at SWELL_STORE, and at the rights there"
            )
            return SwellError("state_not_writable", f"{what} of its user.", status=500)
        if _lost(error) or state == "53300":
            what = f"The database {self.name} cannot be reached ({said}). What was being written may be there all the"
            return SwellError("state_unreachable", f"{what} same; it goes on once the database is back.", status=503)
        return SwellError("state_failed", f"The database {self.name} could not be used: {said}.", status=500)

    def close_writing(self) -> None:
        """By the writing thread, at its end."""
        if self._session is not None:
            self._closed(self._session.connection)

    def close_reading(self) -> None:
        """Once nobody looks."""
        self._over = self._over or SwellError("state_closed", f"The database {self.name} is closed.", status=503)
        with self._looking:
            self._end()

    # -- connections -------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Do it on the loop, and wait."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _connect(self) -> tuple[Session, Any]:
        """The connection that writes and the one that reads, made where they are not there.

        Nobody reads before what the former one wrote is settled: only then the new one has the lock.
        """
        with self._connecting:
            if self._over is not None:
                raise self._over
            if self._session is None or self._session.connection.is_closed():
                self._drop()
                failed_at, failure = self._failed
                if time.monotonic() < failed_at + AGAIN_S:
                    raise failure
                try:
                    self._session = self._opened()
                except self.errors as error:
                    self._failed = time.monotonic(), error
                    raise
            if self._reading is None or self._reading.is_closed():
                self._reading = self._run(self._link(default_transaction_read_only="on"))
            return self._session, self._reading

    async def _link(self, **more: str) -> Any:
        settings = SETTINGS | KEEPALIVES | more
        try:
            connection: Any = await asyncpg.connect(
                self._url, timeout=CONNECT_S, command_timeout=ANSWER_S, server_settings=settings
            )
        except ValueError:
            # Not its words: what they quote may be of the password.
            said = "it is no address as postgresql://USER:PASSWORD@HOST:5432/DATABASE is, with %2F for a slash in it"
            raise SwellError("bad_setting", f"SWELL_STORE cannot be used: {said}.") from None
        # Of sums of whole numbers, which PostgreSQL has exact.
        await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=int, format="text")
        return connection

    def _opened(self) -> Session:
        """The connection that writes; the database is this server's from here on."""
        session = Session(self._run, self._run(self._link()))
        try:
            self._take(session)
            if not self._times:
                self._check_encoding(session)
                other = "SWELL_STORE to another database"
                schema.migrate(session, self.name, schema.migrations("sql_postgres"), other)
                self._settle_in(session)
            elif (session.ask(words.PLACE), *session.execute(words.OPENED).fetchone()) != self._known():
                said = f"Another server has opened the database {self.name} meanwhile, or it is another one now."
                self._over = SwellError("state_locked", f"{said} This control ends.", status=503)
                log.error("%s", self._over.message)
                self._moved()
                raise self._over
        except BaseException:
            self._closed(session.connection)
            raise
        return session

    def _take(self, session: Session) -> None:
        session.told(words.LOCK_WAIT.format(TAKEN_S))
        try:
            session.ask(words.OURS)
        except asyncpg.LockNotAvailableError:
            said = f"The database {self.name} is another Swell server's now, and each needs one of its own: stop that "
            raise SwellError("state_locked", f"{said}one, or set SWELL_STORE to another.", status=503) from None
        session.told("RESET lock_timeout")

    def _check_encoding(self, session: Session) -> None:
        encoding = session.ask(words.ENCODING)
        if encoding != "UTF8":
            said = f"The database {self.name} is encoded in {encoding}, which not all texts can be: make it with UTF8."
            raise SwellError("state_foreign", said)

    def _settle_in(self, session: Session) -> None:
        """It is opened once more. What was numbered by epochs in a copy of it, or lost with a server, is older."""
        place = session.ask(words.PLACE)
        before, _ = session.execute(words.OPENED).fetchone()
        session.say("BEGIN")
        if before not in ("", place):
            session.execute(sql.NEXT_EPOCHS, (EPOCHS_APART,))
        times = session.ask(words.OPEN, place)
        session.told("COMMIT")
        self._place, self._times = place, times
        if session.ask(words.NOT_SYNCED):
            log.warning("%s runs with fsync off: when its machine fails, what was accepted may be lost", self.name)

    def _known(self) -> tuple[str, str, int]:
        return self._place, self._place, self._times

    def _settled(self, session: Session) -> bool:
        """Was that committed of which it was not known? It is from now on."""
        if not self._doubt:
            return False
        committed = bool(session.ask(words.WAS_COMMITTED, self._doubt) == "committed")
        self._doubt = ""
        return committed

    def _settled_soon(self) -> bool:
        """The same, as soon as there is a connection; False, too, where there is none for long: then it waits."""
        until = time.monotonic() + DOUBT_S
        while self._over is None and time.monotonic() < until:
            try:
                return self._settled(self._connect()[0])
            except self.errors:
                time.sleep(AGAIN_S / 5)
        return False

    def _lose(self, session: Session) -> None:
        """Give a connection up: whoever comes next has a new one."""
        with self._connecting:
            self._closed(session.connection, at_once=True)
            if self._session is session:
                self._drop()

    def _drop(self) -> None:
        for connection in (self._session and self._session.connection, self._reading):
            if connection is not None:
                self._closed(connection, at_once=True)
        self._session = self._reading = None

    def _closed(self, connection: Any, at_once: bool = False) -> None:
        async def close() -> None:
            try:
                if not at_once:
                    await connection.close(timeout=CLOSE_S)
            finally:
                connection.terminate()

        with suppress(*self.errors):
            self._run(close())

    def _end(self) -> None:
        """Nothing runs after it."""
        if self._thread.is_alive():
            with self._connecting:
                self._drop()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _state(error: Exception) -> str:
    """The server's own number of an error; empty where it said none."""
    return str(getattr(error, "sqlstate", None) or "")


def _lost(error: Exception) -> bool:
    """Nothing more comes of the connection; of what was being done nothing is known."""
    state = _state(error)
    return state.startswith(("08", "57", "58", "XX")) if state else not isinstance(error, SwellError)
