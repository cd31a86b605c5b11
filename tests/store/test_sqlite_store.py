"""What does the database do when the process, the disk or the file fails?"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from swell.model.call import Body, Call, Work
from swell.model.errors import SwellError
from swell.model.events import AppDeployed, NodeSeen
from swell.model.node import Node
from swell.model.request import PoolCount, RequestRecord, Usage
from swell.model.workload import App, Version
from swell.store import schema, sqlite, writer
from swell.store.schema import Migration
from swell.store.sqlite import SqliteStore

WAIT_S = 60.0
SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "control.db"


def seen(name: str) -> NodeSeen:
    return NodeSeen(time.time(), Node(name, 1.0, 1))


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process that runs `code` with the sources on its path."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"},
    )


# -- the process ------------------------------------------------------------------------------------

APPENDER = """
    import sys, time
    from pathlib import Path
    from swell.model.events import NodeSeen
    from swell.model.node import Node
    from swell.store.sqlite import SqliteStore
    store = SqliteStore(Path(sys.argv[1]))
    print("epoch", store.world.open_epoch(), flush=True)
    n = 0
    while True:
        store.world.append([NodeSeen(time.time(), Node(f"soft{n}", 1.0, 1))])
        store.world.append([NodeSeen(time.time(), Node(f"sure{n}", 1.0, 1))], durable=True)
        print("sure", n, flush=True)
        n += 1
"""


@pytest.mark.slow
def test_what_was_acknowledged_before_a_kill_is_there(path: Path) -> None:
    for round in range(1, 6):
        process = child(APPENDER, path)
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(10 * round)]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.readlines()
        process.wait()
        process.stdout.close()
        epoch, last = int(acknowledged[0].split()[1]), int(acknowledged[-1].split()[1])
        store = SqliteStore(path)
        names = [event.node.id for _, event in store.world.events() if isinstance(event, NodeSeen)]
        start = max(n for n, name in enumerate(names) if name == "soft0")
        # In order, without a hole, at least up to the last acknowledged one.
        expected = [f"{kind}{n}" for n in range(last + 1) for kind in ("soft", "sure")]
        assert names[start : start + len(expected)] == expected
        assert len(names) - start <= len(expected) + 2
        assert store.world.open_epoch() == epoch + 1 == 2 * round
        store.close()


def test_many_who_wait_share_commits_and_all_is_written(path: Path) -> None:
    store = SqliteStore(path)
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: store.world.append([seen(f"n{n}")], durable=True), range(200)))
    rows = list(store.world.events())
    assert [seq for seq, _ in rows] == list(range(1, 201))
    assert {event.node.id for _, event in rows if isinstance(event, NodeSeen)} == {f"n{n}" for n in range(200)}
    # While one commit is under way, the others of the sixteen wait for the next.
    assert sum(store.write_seconds.counts) < 100
    store.close()


def test_epochs_of_threads_that_race_differ(path: Path) -> None:
    store = SqliteStore(path)
    with ThreadPoolExecutor(8) as threads:
        epochs = list(threads.map(lambda _: store.world.open_epoch(), range(50)))
    assert sorted(epochs) == list(range(1, 51))
    store.close()


def test_a_closed_store_says_so(path: Path) -> None:
    store = SqliteStore(path)
    store.close()
    store.close()
    with pytest.raises(SwellError, match="closed"):
        store.world.append([seen("n")])
    with pytest.raises(SwellError, match="closed"):
        store.world.open_epoch()


def test_the_file_is_readable_by_its_owner_only(path: Path) -> None:
    store = SqliteStore(path)
    store.world.append([seen("n")], durable=True)
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes[path.name] == 0o600
    assert set(modes.values()) == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    store.close()


# -- the disk -----------------------------------------------------------------------------------------

FILLER = """
    import os, resource, sys, time
    from pathlib import Path
    from swell.model.errors import SwellError
    from swell.model.events import NodeSeen
    from swell.model.node import Node
    from swell.store.sqlite import SqliteStore

    def room(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def event(name):
        return NodeSeen(time.time(), Node(name, 1.0, 1, labels=(("filler", "x" * 10_000),)))

    store = SqliteStore(Path(sys.argv[1]))
    store.world.append([event("first")], durable=True)
    room(200_000)
    code = ""
    while not code:
        try:
            store.world.append([event("filler")], durable=True)
        except SwellError as error:
            code = error.code
            assert sys.argv[1] in error.message, error.message
    print(code, flush=True)
    store.world.append([event("waits 1")])
    store.world.append([event("waits 2")])
    try:
        store.world.append([event("refused")], durable=True)
    except SwellError:
        pass
    print("trouble" if sys.argv[1] in store.trouble else repr(store.trouble), flush=True)
    room(resource.RLIM_INFINITY)
    store.world.append([event("last")], durable=True)
    print(repr(store.trouble), flush=True)
    store.close()
"""


def test_a_full_disk_is_told_and_what_nobody_waits_for_is_written_later_in_order(path: Path) -> None:
    process = child(FILLER, path)
    output, _ = process.communicate(timeout=WAIT_S)
    code, *rest = output.splitlines()
    assert process.returncode == 0
    assert code in ("state_full", "state_failed")
    assert rest == ["trouble", "''"]
    store = SqliteStore(path)
    names = [event.node.id for _, event in store.world.events() if isinstance(event, NodeSeen)]
    assert names[0] == "first"
    assert names[-3:] == ["waits 1", "waits 2", "last"]
    assert set(names[1:-3]) <= {"filler"}
    store.close()


def locked(path: Path) -> sqlite3.Connection:
    """Another program that holds the database."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


@pytest.mark.slow
def test_a_database_that_is_locked_is_told_and_used_again_later(path: Path) -> None:
    store = SqliteStore(path)
    store.world.append([seen("a")], durable=True)
    other = locked(path)
    store.world.append([seen("b")])
    with pytest.raises(SwellError, match="locked by another process") as caught:
        store.world.append([seen("c")], durable=True)
    assert str(path) in caught.value.message
    assert "locked" in store.trouble
    with pytest.raises(SwellError, match="locked"):
        SqliteStore(path)
    other.close()
    store.world.append([seen("d")], durable=True)
    assert store.trouble == ""
    assert [e.node.id for _, e in store.world.events() if isinstance(e, NodeSeen)] == ["a", "b", "d"]
    store.close()


def test_after_a_flush_what_was_appended_before_is_on_disk(path: Path) -> None:
    store = SqliteStore(path)
    other = sqlite3.connect(path)
    for count in (1, 2, 3):
        store.world.append([seen("a")])
        store.world.flush()
        assert other.execute("SELECT count(*) FROM events").fetchone() == (count,)
    other.close()
    store.close()


def test_a_flush_tells_that_what_was_appended_before_is_not_on_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_S", 0.05)
    store = SqliteStore(path)
    other = locked(path)
    store.world.append([seen("a")])
    with pytest.raises(SwellError, match="locked by another process"):
        store.world.flush()
    other.close()
    store.world.flush()
    assert len(list(store.world.events())) == 1
    store.close()


@pytest.mark.slow
def test_what_cannot_be_written_is_bounded_and_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "ROWS_WAITING_MAX", 10)
    store = SqliteStore(path)
    other = locked(path)
    for n in range(25):
        store.world.append([seen(f"n{n}")])
    assert store.trouble.endswith("15 rows were lost.")
    with pytest.raises(SwellError) as caught:
        store.close()
    assert caught.value.code == "state_lost"
    assert "10 rows" in caught.value.message
    other.close()


@pytest.mark.slow
def test_a_large_batch_that_waits_costs_no_rows_that_do_not(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "ROWS_WAITING_MAX", 10)
    monkeypatch.setattr(sqlite, "BUSY_S", WAIT_S)
    store = SqliteStore(path)
    other = locked(path)
    works = [Work(Call(f"fc-{n}", "default/a/f", "f", 0.0, 0.0), Body("x", b"1")) for n in range(11)]
    with ThreadPoolExecutor(1) as threads:
        adding = threads.submit(store.calls.add, works)
        with pytest.raises(TimeoutError):
            adding.result(0.1)
        store.world.append([seen("a")])
        assert store.trouble == ""
        other.close()
        assert len(adding.result(WAIT_S)) == 11
    assert len(list(store.world.events())) == 1
    store.close()


def test_a_row_that_cannot_be_held_spoils_no_other(path: Path) -> None:
    store = SqliteStore(path)
    gate = threading.Barrier(2)
    with store.transaction():
        store.world.append([seen("a")])
    with ThreadPoolExecutor(1) as threads:
        # Waits in one commit with what follows, as far as the writer has not begun yet.
        waiting = threads.submit(lambda: (gate.wait(), store.world.append([seen("b")], durable=True)))
        gate.wait()
        store.usage.add_counts([PoolCount("p", time.time(), 1 << 70, 0, 0, 0.0)])
        store.usage.add_counts([PoolCount("q", time.time(), 1, 0, 0, 0.0)])
        waiting.result(WAIT_S)
    assert [count.pool for count in store.usage.counts(0, time.time() + 60)] == ["q"]
    assert len(list(store.world.events())) == 2
    assert store.trouble == "1 rows were lost."
    with pytest.raises(SwellError) as caught, store.transaction():
        store.usage.add_counts([PoolCount("r", 1.0, 1 << 70, 0, 0, 0.0)])
    assert caught.value.code == "row_refused"
    store.close()


# -- the file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look at" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_a_damaged_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(SwellError) as caught:
        SqliteStore(path)
    assert caught.value.code == "state_damaged"
    assert str(path) in caught.value.message
    assert path.read_bytes() == content


def test_damage_found_while_reading_is_told(path: Path) -> None:
    store = SqliteStore(path)
    for n in range(200):
        store.world.append([AppDeployed(1.0, App("default", f"a{n}" + "x" * 500, (), ()))])
    store.close()
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(SwellError) as caught:
        list(SqliteStore(path).world.events())
    assert caught.value.code == "state_damaged"


def test_a_row_of_another_build_is_told(path: Path) -> None:
    SqliteStore(path).close()
    other = sqlite3.connect(path)
    other.execute("INSERT INTO events (at, body) VALUES (1.0, ?)", (b"\x81\xa4type\xa7unheard",))
    other.commit()
    other.close()
    store = SqliteStore(path)
    with pytest.raises(SwellError, match="cannot read"):
        list(store.world.events())
    store.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


OPENER = """
    import os, sys
    from pathlib import Path
    from swell.model.errors import SwellError
    from swell.store.sqlite import SqliteStore
    if os.geteuid() == 0:
        os.setuid(65_534)
    try:
        SqliteStore(Path(sys.argv[1]))
    except SwellError as error:
        print(error.code, sys.argv[1] in error.message, "SWELL_HOME" in error.message)
"""


@pytest.mark.parametrize("mode", [None, 0o444, 0o666])
def test_a_state_directory_that_cannot_be_written_is_told(open_folder: Path, mode: int | None) -> None:
    path = open_folder / "control.db"
    if mode is not None:
        SqliteStore(path).close()
        path.chmod(mode)
    open_folder.chmod(0o555)
    process = child(OPENER, path)
    output, _ = process.communicate(timeout=WAIT_S)
    open_folder.chmod(0o755)
    assert output.split() == ["state_not_writable", "True", "True"]


def test_a_state_directory_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SwellError) as caught:
        SqliteStore(tmp_path / "file" / "control.db")
    assert caught.value.code == "state_not_writable"


# -- the schema ---------------------------------------------------------------------------------------

OLD = [Migration(1, "first", "CREATE TABLE one (a INTEGER);\n")]
NEW = [*OLD, Migration(2, "second", "ALTER TABLE one ADD COLUMN b TEXT DEFAULT 'x';\nCREATE INDEX b ON one (b);\n")]


def migrated(path: Path, known: list[Migration]) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        schema.migrate(connection, str(path), known)
    except BaseException:
        connection.close()
        raise
    return connection


def test_an_older_database_is_brought_forward_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    old = migrated(path, OLD)
    old.execute("INSERT INTO one VALUES (7)")
    old.close()
    new = migrated(path, NEW)
    assert new.execute("SELECT a, b FROM one").fetchall() == [(7, "x")]
    assert [row[0] for row in new.execute("SELECT number FROM migrations")] == [1, 2]
    new.close()
    migrated(path, NEW).close()


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    migrated(path, NEW).close()
    before = path.read_bytes()
    with pytest.raises(SwellError, match="newer Swell") as caught:
        migrated(path, OLD)
    assert caught.value.code == "state_newer"
    assert str(path) in caught.value.message
    assert path.read_bytes() == before


def test_a_changed_step_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    migrated(path, OLD).close()
    with pytest.raises(SwellError) as caught:
        migrated(path, [Migration(1, "first", "CREATE TABLE one (a TEXT);\n")])
    assert caught.value.code == "state_other"


def test_a_step_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    migrated(path, OLD).close()
    with pytest.raises(sqlite3.OperationalError):
        migrated(path, [*OLD, Migration(2, "bad", "CREATE TABLE two (a);\nCREATE TABLE one (a);\n")])
    left = migrated(path, OLD)
    assert left.execute("SELECT name FROM sqlite_master WHERE name = 'two'").fetchall() == []
    left.close()


def test_a_database_of_another_program_is_refused(path: Path) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (a)")
    other.close()
    with pytest.raises(SwellError) as caught:
        SqliteStore(path)
    assert caught.value.code == "state_foreign"


def test_the_real_steps_are_numbered_without_a_hole() -> None:
    assert [step.number for step in schema.migrations()] == list(range(1, len(schema.migrations()) + 1))


def test_use_that_was_kept_by_the_minute_alone_is_there_by_the_hour_too(path: Path) -> None:
    path.parent.mkdir()
    old = migrated(path, schema.migrations()[:1])
    now = time.time()
    minutes = [int(now // 60) - ago for ago in (1, 70, 200, 3000)]
    old.executemany(
        "INSERT INTO usage VALUES (?, 'p', 'serving', ?, 1.0, 0.5, 64.0, 0.25)", [(m, m * 60.0) for m in minutes]
    )
    old.executemany("INSERT INTO counts VALUES (?, 'p', ?, 10, 1, 2, 0.5, 0.125)", [(m, m * 60.0) for m in minutes])
    old.close()
    store = SqliteStore(path)
    newest = minutes[0] * 60.0
    assert store.usage.usage(0, now) == [Usage("", "p", "serving", newest, 4.0, 2.0, 256.0, 1.0)]
    assert store.usage.counts(0, now) == [PoolCount("p", newest, 40, 4, 8, 2.0)]
    store.close()


def test_what_was_deployed_before_there_were_versions_is_the_first(path: Path) -> None:
    path.parent.mkdir()
    old = migrated(path, schema.migrations()[:2])
    app = App("default", "a", (), ())
    old.execute("INSERT INTO apps VALUES ('default/a', 1, 5.0, ?)", (msgspec.msgpack.encode(app),))
    old.close()
    store = SqliteStore(path)
    assert store.world.versions("default/a") == [Version(1, 5.0, "deploy", "", app)]
    assert store.world.newest_versions() == {"default/a": 1}
    store.close()


def test_a_read_meets_a_store_in_use_by_many_threads(path: Path) -> None:
    store = SqliteStore(path)

    def work(n: int) -> bool:
        record = RequestRecord(f"q{n}", "p", "f", time.time(), 200, 1.0)
        store.usage.add_requests([record])
        return store.usage.request(f"q{n}") == record

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(150)))
    store.close()
