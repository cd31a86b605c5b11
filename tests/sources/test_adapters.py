"""What does each source bring that others have not, and what does it do with what is odd?"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from feeding import WAIT_S, at, feed, taken, told
from places import Broker, Folder, Nats, Postgres, RedisPlace, Sqlite
from redis.asyncio import Redis

from swell.model.errors import UnimplementedError
from swell.model.retrying import Retrying
from swell.model.source import Files, Message, NatsStream, Rows
from swell.model.subscription import HttpEvents, Subscription
from swell.model.workload import App, Workload
from swell.sources import check_libraries, files, made, postgres, sqlite
from swell.sources.feed import Feed


def written(name: bytes) -> Path:
    path = Path(os.fsdecode(name))
    path.write_text("4")
    return path


@at(Folder)
def test_files_that_are_odd(somewhere: Folder) -> None:
    async def run() -> None:
        await somewhere.begin()
        inbox = somewhere.inbox
        old = somewhere.folder / "old.json"
        old.write_text("1")
        os.utime(old, (1, 1))
        (inbox / "link.json").symlink_to(old)
        (inbox / ".hidden.json").write_text("2")
        (inbox / "other.csv").write_text("3")
        async with feed(somewhere) as came:
            old.rename(inbox / "old.json")
            (moved,) = await taken(came, 1)
            assert moved.subject == "old.json", "written long ago, and moved here now"
            odd = written(os.fsencode(inbox) + b"/deep/a\\\xff.json")
            (named,) = await taken(came, 1)
            assert json.loads(named.body)["uri"] == odd.as_uri()
            (inbox / "old.json").write_text("56")
            (again,) = await taken(came, 1)
            assert (again.subject, json.loads(again.body)["size"]) == ("old.json", 2)
            assert again.id != moved.id
            with pytest.raises(ValueError, match="in the order"):
                came.acknowledge([again])
            came.acknowledge([moved, named, again])
        async with feed(somewhere, named.watermark) as came:
            assert [each.id for each in await taken(came, 1)] == [again.id]

    asyncio.run(run())


@at(Folder)
def test_a_file_that_is_written_to_is_not_whole(somewhere: Folder) -> None:
    async def run() -> None:
        await somewhere.begin()
        async with feed(somewhere) as came:
            file = somewhere.inbox / "slow.json"
            for size in range(1, 30):
                file.write_text("x" * size)
                await asyncio.sleep(0.01)
            (message,) = await taken(came, 1)
            # A machine that stalls may take it for whole in between; then it comes once more.
            while json.loads(message.body)["size"] < 29:
                (message,) = await taken(came, 1)

    asyncio.run(run())


def delivered(config: Files, many: int, at_once: int = 100) -> list[str]:
    """The paths of so many files, acknowledged as they come."""

    async def run() -> list[str]:
        found: list[str] = []
        async with Feed("files", made(config), "", at_once) as came:
            while len(found) < many:
                some = await taken(came, 1)
                came.acknowledge(some)
                found += [each.subject for each in some]
        return found

    return asyncio.run(run())


@at(Folder)
def test_a_folder_that_is_moved_in_brings_its_files_however_old_they_are(somewhere: Folder) -> None:
    async def run() -> None:
        await somewhere.begin()
        batch = somewhere.folder / f"batch{somewhere.examples}"
        (batch / "part").mkdir(parents=True)
        for name in ("a.json", "part/b.json"):
            (batch / name).write_text("1")
        await asyncio.sleep(0.02)
        (somewhere.inbox / "newer.json").write_text("2")
        async with feed(somewhere) as came:
            (newer,) = await taken(came, 1)
            assert newer.subject == "newer.json"
            batch.rename(somewhere.inbox / "batch")
            late = await taken(came, 2)
            assert [each.subject for each in late] == ["batch/a.json", "batch/part/b.json"]
            assert {each.watermark for each in late} == {newer.watermark}, "it goes no way back"
            (somewhere.inbox / "batch" / "c.json").write_text("3")
            assert [each.subject for each in await taken(came, 1)] == ["batch/c.json"], "and each comes once"

    asyncio.run(run())


def test_folders_that_nothing_is_wanted_of_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir
    seen: list[str] = []

    def looked(path: Path) -> Any:
        if Path(path).is_relative_to(tmp_path):
            seen.append(Path(path).relative_to(tmp_path).as_posix())
        return scan(path)

    monkeypatch.setattr(os, "scandir", looked)
    for name in ("x/y/z", "lost+found", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("a.json", "x/y/b.json", "x/y/z/c.json", ".hidden/d.json"):
        (tmp_path / name).write_text("1")
    assert delivered(Files(str(tmp_path), ("*.json",), settle_s=0.05), 1) == ["a.json"]
    assert {*seen} == {"."}
    seen.clear()
    delivered(Files(str(tmp_path), ("x/*/*.json", "*.json"), settle_s=0.05), 2)
    assert {*seen} == {".", "x", "x/y"}


def test_a_folder_that_may_not_be_read_is_passed_over_until_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shut, scan = [True], os.scandir

    def looked(path: Path) -> Any:
        if Path(path).name == "shut" and shut:
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", looked)
    (tmp_path / "shut").mkdir()
    (tmp_path / "shut" / "old.json").write_text("1")

    async def run() -> None:
        await asyncio.sleep(0.02)
        (tmp_path / "a.json").write_text("1")
        async with Feed("files", made(Files(str(tmp_path), settle_s=0.05, rescan_s=0.05))) as came:
            assert [each.subject for each in await taken(came, 1)] == ["a.json"]
            shut.clear()
            assert [each.subject for each in await taken(came, 1)] == ["shut/old.json"]

    asyncio.run(run())
    told = [each for each in caplog.messages if "is not looked through" in each]
    assert told == [f"shut/ of {tmp_path} is not looked through: it may not be read"]


def test_many_files_are_not_looked_for_each_time_some_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = files._Folder._look
    looks: list[int] = []

    def looked(folder: Any) -> Any:
        looks.append(1)
        return look(folder)

    monkeypatch.setattr(files._Folder, "_look", looked)
    names = {f"{n}.json" for n in range(100)}
    for name in names:
        (tmp_path / name).write_text("1")
    found = delivered(Files(str(tmp_path), settle_s=0.05), 100, at_once=1)
    assert {*found} == names
    assert len(found) == 100
    assert len(looks) < 50


def test_a_file_that_changes_once_it_was_seen_waits_until_it_is_whole_again(tmp_path: Path) -> None:
    async def run() -> None:
        for n in range(3):
            (tmp_path / f"{n}.json").write_text("1")
            await asyncio.sleep(0.02)
        source = made(Files(str(tmp_path), settle_s=0.05))
        async with asyncio.timeout(WAIT_S), source.connect("") as folder:
            found: list[Message] = []
            while not found:
                found += await folder.take(1)
            (tmp_path / "1.json").write_text("22")
            (tmp_path / "2.json").unlink()
            while len(found) < 2:
                found += await folder.take(1)
            assert [(each.subject, json.loads(each.body)["size"]) for each in found] == [("0.json", 1), ("1.json", 2)]

    asyncio.run(run())


def test_what_tells_of_changes_may_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(files, "watch", lambda *_, **__: go.wait())
    monkeypatch.setattr(files, "PARTING_S", 0.05)
    (tmp_path / "a.json").write_text("1")
    try:
        config = Files(str(tmp_path), settle_s=0.05, rescan_s=0.05)
        assert delivered(config, 1) == ["a.json"]
    finally:
        go.set()


@at(Sqlite)
def test_rows_as_json_and_a_query_that_is_none(somewhere: Sqlite) -> None:
    async def run() -> None:
        await somewhere.begin()
        await somewhere.publish([7])
        url = somewhere.config().url
        query = "SELECT id, n, x'ff' AS raw, 'ä' AS name, NULL AS none, 0.5 AS part FROM orders;"
        async with Feed("rows", made(Rows(url, query, "id", every_s=0.05, settle_s=0.0))) as came:
            (row,) = await taken(came, 1)
            told_of = {"id": 1, "n": 7, "raw": {"base64": "/w=="}, "name": "ä", "none": None, "part": 0.5}
            assert json.loads(row.body) == told_of
            assert (row.id, row.subject, row.watermark) == ("[1,1]", "1", "[1,1]")
        await somewhere.publish([8])
        query = "SELECT id, n, CAST(iif(n = 7, x'61ff', x'61') AS TEXT) AS said FROM orders"
        async with Feed("rows", made(Rows(url, query, "id", every_s=0.05, settle_s=0.0))) as came:
            found = [json.loads(each.body)["said"] for each in await taken(came, 2)]
            assert found == [{"base64": "Yf8="}, "a"], "what is no text stops nothing"
        async with Feed("rows", made(Rows(url, query, "said"))) as came:
            assert "a watermark or key is a number or text" in await told(came, lambda state: state.failures > 0)
        for wrong, words in (
            ("SELECT absent AS id FROM orders", "no such column"),
            ("DELETE FROM orders", "syntax error"),
        ):
            async with Feed("rows", made(Rows(url, wrong, "id"))) as came:
                assert words in await told(came, lambda state: state.failures > 0)

    asyncio.run(run())


@at(Sqlite)
def test_a_row_that_comes_later_in_a_whole_second_is_not_lost(
    somewhere: Sqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(id: int) -> None:
        with closing(sqlite3.connect(somewhere.file)) as connection, connection:
            connection.execute("INSERT INTO orders (id, n) VALUES (?, 1700000000)", (id,))

    sleep = asyncio.sleep

    async def slept(seconds: float) -> None:
        """While what was seen settles."""
        if seconds > 0.5:
            write(3)
        else:
            await sleep(seconds)

    async def run() -> None:
        await somewhere.begin()
        write(5)
        config = Rows(somewhere.config().url, "SELECT id, n FROM orders", "n", "id", every_s=0.05)
        async with made(config).connect("") as rows:
            assert [json.loads(each.body)["id"] for each in await rows.take(100)] == [3, 5]

    monkeypatch.setattr(asyncio, "sleep", slept)
    asyncio.run(run())


@at(Sqlite)
def test_rows_that_are_large_come_a_few_at_a_time(somewhere: Sqlite, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        await somewhere.begin()
        await somewhere.publish([*range(10)])
        url = somewhere.config().url
        config = Rows(url, "SELECT id, zeroblob(500) AS raw FROM orders", "id", every_s=0.05, settle_s=0.0)
        async with made(config).connect("") as rows:
            found = [len(await rows.take(100)) for _ in range(5)]
            assert (found, await rows.take(100)) == ([2] * 5, [])
            await somewhere.publish([10])
            assert [each.subject for each in await rows.take(100)] == ["11"]

    monkeypatch.setattr(sqlite, "PORTION_BYTES", 1000)
    asyncio.run(run())


@at(Sqlite)
def test_a_query_that_never_ends_is_broken_off(somewhere: Sqlite, monkeypatch: pytest.MonkeyPatch) -> None:
    def asking() -> int:
        return sum(each.name == "swell-sqlite" for each in threading.enumerate())

    async def run() -> None:
        await somewhere.begin()
        endless = "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT max(n) AS id FROM c"
        config = Rows(somewhere.config().url, endless, "id")
        async with Feed("rows", made(config), reconnecting=Retrying(initial_delay_s=0.01, max_delay_s=0.01)) as came:
            assert "no answer for 0.05 s" in await told(came, lambda state: state.failures > 3)
            # One that has just answered, and the next.
            assert asking() <= 2
        until = time.monotonic() + WAIT_S
        while asking():
            assert time.monotonic() < until
            await asyncio.to_thread(time.sleep, 0.01)

    monkeypatch.setattr(sqlite, "ANSWER_S", 0.05)
    asyncio.run(run())


@pytest.mark.slow
@at(Postgres)
def test_rows_that_are_large_come_a_few_at_a_time_of_a_server(
    somewhere: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        await somewhere.begin()
        await somewhere.publish([*range(25)])
        async with somewhere.source().connect("") as rows:
            found: list[int] = []
            async with asyncio.timeout(WAIT_S):
                while len(found) < 25:
                    some = await rows.take(100)
                    assert len(some) <= 1
                    found += [somewhere.number(each) for each in some]
            assert found == [*range(25)]

    monkeypatch.setattr(postgres, "PORTION_BYTES", 1)
    asyncio.run(run())


@pytest.mark.slow
@at(Postgres)
def test_a_transaction_that_ends_late_is_waited_for(somewhere: Postgres) -> None:
    async def run() -> None:
        await somewhere.begin()
        late: Any = await asyncpg.connect(somewhere.url)
        transaction = late.transaction()
        await transaction.start()
        await late.execute(f"INSERT INTO {somewhere.table} (n) VALUES (0)")
        await somewhere.publish([1])
        async with feed(somewhere) as came:
            await told(came, lambda state: state.up)
            # What is after it is seen by now, or in a moment: it may not be delivered first.
            await asyncio.sleep(0.2)
            await transaction.commit()
            rows = await taken(came, 2)
            assert [somewhere.number(each) for each in rows] == [0, 1]
            assert json.loads(rows[0].body)["at"].endswith("+00:00")
        await late.close()

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.timeout(400)
@at(RedisPlace)
def test_what_a_dead_consumer_had_is_taken_over(somewhere: RedisPlace) -> None:
    async def run() -> None:
        await somewhere.begin()
        stream = somewhere.stream
        async with Redis.from_url(somewhere.url) as client:
            await client.xgroup_create(stream, "swell", "0", mkstream=True)
            await somewhere.publish([0, 1, 2])
            await client.xreadgroup("swell", "dead", {stream: ">"}, count=2)
            await client.xreadgroup("swell", "swell", {stream: ">"}, count=1)
            # Trimmed away before anybody had read it: of its own, and of the dead one's.
            (first, *_), (last, *_) = (await client.xrange(stream))[0], (await client.xrange(stream))[2]
            await client.xdel(stream, first, last)
            async with feed(somewhere) as came:
                (entry,) = await taken(came, 1)
                assert somewhere.number(entry) == 1
                came.acknowledge([entry])
                await came.settled()
                await somewhere.publish([3])
                assert [somewhere.number(each) for each in await taken(came, 1)] == [3]
            # And a stream that is flushed away begins anew.
            async with feed(somewhere) as came:
                await taken(came, 1)
                await client.flushall()
                await somewhere.publish([4])
                assert [somewhere.number(each) for each in await taken(came, 1)] == [4]

    asyncio.run(run())


@at(Nats)
def test_messages_as_they_are_and_a_consumer_of_others(somewhere: Nats) -> None:
    async def run() -> None:
        await somewhere.begin()
        name = somewhere.stream
        async with somewhere.client() as stream:
            await stream.publish(f"{name}.a", b"", headers={"Content-Type": "text/plain"})
            await stream.publish(f"{name}.b", b"\xff")
        async with feed(somewhere) as came:
            first, second = await taken(came, 2)
            assert (first.subject, first.body, first.content_type) == (f"{name}.a", b"", "text/plain")
            assert (second.subject, second.body) == (f"{name}.b", b"\xff")
            assert first.id.startswith(f"{name}:1:")
        for config, words in (
            (NatsStream(somewhere.url, name, "swell", f"{name}.a"), "give this source one of its own"),
            (NatsStream(somewhere.url, "nobody", "swell"), "stream not found"),
        ):
            async with Feed("orders", made(config)) as came:
                assert words in await told(came, lambda state: state.failures > 0)

    asyncio.run(run())


@at(Broker)
def test_what_was_acknowledged_while_it_was_away_is_not_brought_again(somewhere: Broker) -> None:
    async def run() -> None:
        await somewhere.begin()
        await somewhere.publish([0, 1])
        async with feed(somewhere) as came:
            first, second = await taken(came, 2)
            await somewhere.stop()
            await told(came, lambda state: state.failures > 0)
            came.acknowledge([second])
            somewhere.fault("acknowledge")
            await somewhere.publish([2])
            await somewhere.start()
            # Both were handed out once more by now, and one of them is still to be told of.
            assert [somewhere.number(each) for each in await taken(came, 1)] == [2]
            await came.settled()
            assert somewhere.acknowledged == {second.id}
            came.acknowledge([first])
            await came.settled()
            await somewhere.publish([3])
            assert [somewhere.number(each) for each in await taken(came, 1)] == [3]

    asyncio.run(run())


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    monkeypatch.delitem(sys.modules, "swell.sources.files", raising=False)
    with pytest.raises(UnimplementedError, match=r"pip install 'swell\[files\]'"):
        made(Files("/data"))


def test_an_app_that_reads_what_there_is_no_library_for_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nats", None)
    monkeypatch.delitem(sys.modules, "swell.sources.nats", raising=False)
    subscriptions = (None, Subscription(HttpEvents()), Subscription(Rows("sqlite:///x.db", "SELECT 1", "id")))
    there = [Workload("default", "a", f"f{n}", "rv-0", subscription=each) for n, each in enumerate(subscriptions)]
    check_libraries(App("default", "a", tuple(there), ()))
    reads = Workload("default", "a", "g", "rv-0", subscription=Subscription(NatsStream("nats://x", "S", "c")))
    with pytest.raises(UnimplementedError, match=r"needs nats, .*pip install 'swell\[nats\]'"):
        check_libraries(App("default", "a", (*there, reads), ()))
