"""Is a state of each earlier schema brought forward, with all that was in it, wherever it comes from?

`schemas/{n}.sql` is what a Swell left whose schema was number n. `python tests/store/test_schemas.py` writes those that
are missing, by making the tables as they were then: the rows of those that there are were written by an earlier Swell.
"""

from __future__ import annotations

import io
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from swell import stopped
from swell.model.backup import DATABASE, FORMAT, MANIFEST, End, Manifest, Member
from swell.model.environment import Environment
from swell.model.errors import SwellError
from swell.model.events import AppDeployed
from swell.model.key import ApiKey, scope_of
from swell.model.request import RequestRecord
from swell.model.volume import Volume
from swell.model.workload import App, Entry, Method, Revision, Workload
from swell.store import schema
from swell.store.snapshot import EPOCHS_APART
from swell.store.sqlite import SqliteStore
from swell.wire.archive import CLOSING, Reader, document, header, padding
from swell.wire.paths import Home

DUMPS = sorted((Path(__file__).parent / "schemas").glob("*.sql"))
AT = 1_780_000_000.0
"""When all of it happened."""
EPOCH = 7
SOURCE = "sha256-" + "5" * 64


def load(dump: Path, database: Path) -> int:
    """The database as it was; returns the number of its schema."""
    database.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(database)
    connection.executescript(dump.read_text())
    connection.close()
    return int(dump.stem)


def number_of(database: Path) -> int:
    connection = sqlite3.connect(database)
    (found,) = connection.execute("SELECT max(number) FROM migrations").fetchone()
    connection.close()
    return int(found)


def check(store: SqliteStore, number: int, epoch: int = EPOCH) -> None:
    """All that was in it is there."""
    (app,) = store.world.apps()
    assert (app.namespace, app.name, app.revisions[0].bundle) == ("default", "old", SOURCE)
    assert [version.number for version in store.world.versions("default/old")] == [1]
    ((seq, event),) = list(store.world.events())
    assert (seq, event.at, event.app.name) == (1, AT, "old")  # type: ignore[union-attr]
    assert store.usage.request("q-1").status == 200  # type: ignore[union-attr]
    usage, counts = store.usage.usage(AT - 60, AT + 60), store.usage.counts(AT - 60, AT + 60)
    assert [(row.pool, row.role, row.wall_s, row.cpu_s) for row in usage] == [("p", "serving", 2.0, 1.5)]
    assert [(row.pool, row.requests, row.errors, row.busy_s) for row in counts] == [("p", 3, 1, 0.5)]
    assert [key.name for key in store.keys.all()] == (["ci"] if number >= 4 else [])
    assert [secret.keys for secret in store.secrets.versions()] == ([("A", "B")] if number >= 5 else [])
    assert [row.requests for row in store.usage.key_counts(AT - 60, AT + 60)] == ([2] if number >= 6 else [])
    assert [volume.name for volume in store.volumes.all()] == (["old"] if number >= 7 else [])
    assert store.world.open_epoch() == epoch + 1


def test_there_is_one_of_each_schema_of_a_release() -> None:
    assert [int(dump.stem) for dump in DUMPS] == list(range(1, len(DUMPS) + 1))
    # Those after that are of no release yet, and may be written in another way.
    assert len(DUMPS) >= 7


@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: dump.stem)
def test_it_is_brought_forward(dump: Path, tmp_path: Path) -> None:
    number = load(dump, tmp_path / DATABASE)
    store = SqliteStore(tmp_path / DATABASE, now=lambda: AT + 1)
    check(store, number)
    store.close()
    assert number_of(tmp_path / DATABASE) == schema.migrations()[-1].number


@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: dump.stem)
def test_one_that_is_stopped_is_backed_up_and_stays_as_it_is(dump: Path, tmp_path: Path) -> None:
    number = load(dump, tmp_path / "old" / DATABASE)
    before = (tmp_path / "old" / DATABASE).read_bytes()
    with stopped.backed_up(Home(tmp_path / "old"), False, time.time) as pieces:
        data = b"".join(pieces)
    assert (tmp_path / "old" / DATABASE).read_bytes() == before
    assert [path.name for path in (tmp_path / "old").iterdir()] == [DATABASE]
    done = restore(data, tmp_path / "new")
    assert (done.apps, done.forward) == (1, False), "the copy was brought forward"
    check_restored(tmp_path / "new", number)


@pytest.mark.parametrize("dump", DUMPS, ids=lambda dump: dump.stem)
def test_a_backup_that_an_earlier_swell_made_is_restored(dump: Path, tmp_path: Path) -> None:
    number = load(dump, tmp_path / "old" / DATABASE)
    body = (tmp_path / "old" / DATABASE).read_bytes()
    done = restore(backup_of(body, number), tmp_path / "new")
    assert done.forward is (number < schema.migrations()[-1].number)
    assert f"blobs/{SOURCE}" in done.lacking
    check_restored(tmp_path / "new", number)


def test_what_a_newer_swell_wrote_is_not_touched(tmp_path: Path) -> None:
    load(DUMPS[-1], tmp_path / DATABASE)
    SqliteStore(tmp_path / DATABASE).close()
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("INSERT INTO migrations VALUES (9999, 'later', 'x', 1.0)")
    connection.commit()
    connection.close()
    before = (tmp_path / DATABASE).read_bytes()
    refusals = [lambda: SqliteStore(tmp_path / DATABASE), lambda: backed_up(tmp_path)]
    refusals.append(lambda: restore(backup_of(before, schema.migrations()[-1].number), tmp_path / "new"))
    for refused in refusals:
        with pytest.raises(SwellError, match="was written by a newer Swell") as error:
            refused()
        assert error.value.code == "state_newer"
    assert (tmp_path / DATABASE).read_bytes() == before
    assert list((tmp_path / "new").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [DATABASE, "new"]


def backed_up(root: Path) -> None:
    with stopped.backed_up(Home(root), False, time.time):
        pass


def backup_of(body: bytes, number: int) -> bytes:
    """As it was made when the schema was number so much."""
    import hashlib

    member = Member(DATABASE, len(body), f"sha256-{hashlib.sha256(body).hexdigest()}")
    told = document(MANIFEST, Manifest(FORMAT, "0.0.1", number, AT, (member,)), AT)
    return (
        told + header(DATABASE, len(body), AT) + body + padding(len(body)) + document("end.json", End(), AT) + CLOSING
    )


def restore(data: bytes, root: Path) -> stopped.Restored:
    root.mkdir()
    return stopped.restore(Reader(io.BytesIO(data).read, "FILE"), Home(root), [])


def check_restored(root: Path, number: int) -> None:
    store = SqliteStore(root / DATABASE, now=lambda: AT + 1)
    check(store, number, EPOCHS_APART)
    store.close()


# -- writing them ------------------------------------------------------------------------------


def rows(number: int) -> Iterable[tuple[str, tuple[Any, ...]]]:
    """What a Swell wrote once it had the tables of that step."""
    body = msgspec.msgpack.encode
    revision = Revision(Environment("/usr/bin/python3", "3.11"), SOURCE, Entry("m", "f", "function", (Method("f"),)))
    app = App("default", "old", (Workload("default", "old", "f", revision.id),), (revision,))
    minute, hour = int(AT // 60), int(AT // 3600)
    match number:
        case 1:
            yield "UPDATE counters SET value = ?", (EPOCH,)
            yield "INSERT INTO events (at, body) VALUES (?, ?)", (AT, body(AppDeployed(AT, app)))
            yield "INSERT INTO apps VALUES (?, ?, ?, ?)", (app.key, 1, AT, body(app))
            yield "INSERT INTO usage VALUES (?, 'p', 'serving', ?, 2.0, 1.5, 64.0, 0.25)", (minute, AT)
            yield "INSERT INTO counts VALUES (?, 'p', ?, 3, 1, 1, 0.5, 0.1)", (minute, AT)
            record = RequestRecord("q-1", "p", "f", AT, 200, 12.5)
            yield "INSERT INTO requests VALUES (1, 'q-1', 'p', 0, ?, ?)", (AT, body(record))
        case 4:
            key = ApiKey("0123456789ab", "ci", b"digest", (scope_of("call:default/*"),), AT)
            yield "INSERT INTO keys VALUES (?, ?, ?)", (key.id, AT, body(key))
        case 5:
            yield "INSERT INTO secrets VALUES ('default', 'db', 3, ?, 'A B', ?)", (AT, b"\x01sealed")
        case 6:
            yield "INSERT INTO key_counts VALUES (?, 'k', 'p', ?, 2, 0, 0.5, 0.25)", (minute, AT)
            yield "INSERT INTO key_counts_hours VALUES (?, 'k', 'p', ?, 2, 0, 0.5, 0.25)", (hour, AT)
        case 7:
            volume = Volume("default", "old", "vo-0123456789abcdef", AT, version=1, at=AT)
            yield "INSERT INTO volumes VALUES (?, 'default', 'old', ?)", (volume.id, body(volume))


def write() -> None:
    known = schema.migrations()
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for count, migration in enumerate(known, 1):
        schema.migrate(connection, "memory", known[:count])
        for statement, values in rows(migration.number):
            connection.execute(statement, values)
        target = Path(__file__).parent / "schemas" / f"{migration.number:04}.sql"
        if not target.exists():
            target.write_text("\n".join(connection.iterdump()) + "\n")


if __name__ == "__main__":
    write()
