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
from swell.model.call import Call, CallError, Head
from swell.model.environment import Environment
from swell.model.errors import SwellError
from swell.model.events import AppDeployed
from swell.model.key import ApiKey, scope_of
from swell.model.kv import Collection
from swell.model.request import RequestRecord
from swell.model.schedule import Cron
from swell.model.subscription import HttpEvents, Subscription
from swell.model.volume import Volume
from swell.model.workload import App, Entry, Method, Options, Revision, Variant, Workload
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
WAITS, DONE, DEAD = (f"fc-{number:026}" for number in (1, 2, 3))
GROUP = f"fg-{1:026}"
VARIANT = Variant(options=Options(memory_mib=512))
HEAD = Head(404, (("x-mine", "yes"),))


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
    check_calls(store, number)
    check_kv(store, number)
    check_triggers(store, number)
    assert store.world.open_epoch() == epoch + 1


def check_calls(store: SqliteStore, number: int) -> None:
    """One that waits, one that is done, and a dead letter, of a group the last two."""
    records = store.call_records
    states = [(call.id, call.state, call.key) for call in records.newest("default/old/f", None, 10)]
    kept = [(DEAD, "failed", "k"), (DONE, "done", "k"), (WAITS, "queued", "")]
    assert states == (kept if number >= 8 else [])
    waiting = {workload: queued.calls for workload, queued in store.calls.standing().queued.items()}
    assert waiting == ({"default/old/f": 1} if number >= 8 else {})
    ends = records.ended(GROUP, 0, 10)
    assert [(end.number, end.call.id) for end in ends] == ([(1, DONE), (2, DEAD)] if number >= 8 else [])
    if number < 8:
        return
    (done, dead), waits = ends, records.get(WAITS)
    assert (done.result.content_type, done.result.data) == ("application/json", b"42")  # type: ignore[union-attr]
    assert dead.call.error == CallError("exception", "it raised")
    assert records.input(WAITS).data == records.input(DEAD).data == b"{}"  # type: ignore[union-attr]
    owned = number >= 16
    assert waits == Call(WAITS, "default/old/f", "f", AT, AT + 60, priority=3, idempotency_key="once", owned=owned)
    assert records.owned() == (["default/old/f"] if owned else [])
    assert records.variants(["default/old/f"]) == ({"default/old/f": VARIANT} if owned else {})
    assert records.result(DONE).head == (HEAD if number >= 17 else None)  # type: ignore[union-attr]
    (leased,) = store.calls.lease("default/old/f", 10, AT + 60, 1, "r", "p")
    assert leased.call.id == WAITS


def check_kv(store: SqliteStore, number: int) -> None:
    """A dict and a queue with something in them."""
    assert [each.key for each in store.kv.all()] == (
        [("dict", "default", "old"), ("queue", "default", "old")] if number >= 9 else []
    )
    if number >= 9:
        assert store.kv.sizes() == {"di-0123456789abcdef": 1, "qu-0123456789abcdef": 1}
        assert store.dicts.get("di-0123456789abcdef", b"key", AT + 1) == b"value"
        assert store.queues.take("qu-0123456789abcdef", "", 5, AT + 1) == [b"item"]


def check_triggers(store: SqliteStore, number: int) -> None:
    """A schedule that fired, and a function that is called for events."""
    schedules = [(each.key, each.schedule, each.fired_to, each.incarnation) for each in store.triggers.all()]
    named = "i" if number >= 13 else ""
    assert schedules == ([("default/old/f", Cron("0 9 * * *"), AT, named)] if number >= 12 else [])
    fired = [(each.id, each.how, each.call) for each in store.triggers.history("default/old/f", 10)]
    assert fired == ([("due", "schedule", WAITS)] if number >= 12 else [])
    events = [(each.key, each.subscription, each.watermark) for each in store.triggers.for_events()]
    assert events == ([("default/old/f:http", Subscription(HttpEvents()), "behind")] if number >= 14 else [])


def test_there_is_one_of_each_schema_of_a_release() -> None:
    assert [int(dump.stem) for dump in DUMPS] == list(range(1, len(DUMPS) + 1))
    # Those after that are of no release yet, and may be written in another way.
    assert len(DUMPS) >= 17


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
        case 8:
            yield from calls()
        case 9:
            for kind, id in (("dict", "di-0123456789abcdef"), ("queue", "qu-0123456789abcdef")):
                made = (id, kind, id[:2] == "qu", body(Collection(kind, "default", "old", id, AT)))  # type: ignore[arg-type]
                yield "INSERT INTO collections VALUES (?, ?, 'default', 'old', ?, ?)", made
            yield "INSERT INTO dict_entries VALUES (1, 'di-0123456789abcdef', X'6B6579', 1e11, X'76616C7565')", ()
            yield "INSERT INTO queue_partitions VALUES ('qu-0123456789abcdef', '', 1, 1e11)", ()
            yield "INSERT INTO queue_items VALUES (1, 'qu-0123456789abcdef', '', X'6974656D')", ()
        case 12:
            cron = "INSERT INTO triggers VALUES ('default/old/f', ?, ?, ?, NULL, ?, 1)"
            yield cron, (body(Cron("0 9 * * *")), AT, AT, AT)
            firing = "INSERT INTO firings VALUES ('default/old/f', 1, 'due', ?, ?, 'schedule', ?, NULL)"
            yield firing, (AT, AT, WAITS)
        case 13:
            yield "UPDATE triggers SET incarnation = 'i'", ()
        case 14:
            columns = "key, schedule, began_at, fired_to, subscription, watermark"
            statement = f"INSERT INTO triggers ({columns}) VALUES ('default/old/f:http', '', ?, 0, ?, 'behind')"
            yield statement, (AT, body(Subscription(HttpEvents())))
        case 16:
            yield "UPDATE calls SET owned = 1 WHERE id = ?", (WAITS,)
            yield "INSERT INTO call_variants VALUES ('default/old/f', ?)", (body(VARIANT),)
        case 17:
            yield "INSERT INTO call_heads VALUES (2, ?)", (body(HEAD),)


def calls() -> Iterable[tuple[str, tuple[Any, ...]]]:
    """Three: one that waits, one that is done, and a dead letter."""
    row = """INSERT INTO calls VALUES (?, ?, 'default/old/f', 'f', ?, ?, '', ?, ?, ?, ?, 0, 2.0, 1.0, 60.0, 0.1, 300.0,
        604800.0, 2592000.0, 'queued', 0, 0, '', '', NULL, '', '', NULL, NULL, 0, 0, NULL)"""
    yield row, (1, WAITS, AT, AT + 60, "", 3, "once", "")
    end = """UPDATE calls SET state = ?, attempts = 1, token = 1, replica = 'r', pool = 'p', leased_at = ?,
        error_code = ?, error_message = ?, ended_at = ?, expires_at = 1e11 WHERE seq = ?"""
    for seq, id, state, error in ((2, DONE, "done", ("", "")), (3, DEAD, "failed", ("exception", "it raised"))):
        yield row, (seq, id, AT, AT, "k", 0, f"{GROUP} {seq}", GROUP)
        yield end, (state, AT, *error, AT, seq)
    for seq in (1, 3):
        yield "INSERT INTO call_inputs VALUES (?, 'application/json', X'7B7D', '')", (seq,)
    yield "INSERT INTO call_results VALUES (2, 'application/json', X'3432', '')", ()
    yield "INSERT INTO call_results VALUES (3, 'application/json', X'7B7D', '')", ()


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
