"""Is what the durable queue has accepted on disk, whatever fails, and does a longer one cost no more?"""

from __future__ import annotations

import errno
import json
import platform
import random
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swell.model.call import Again, Body, Call, CallError, Cancel, Done, Work
from swell.store import statements as sql
from swell.store.calls import SqlCallRecords, SqlCalls
from swell.store.database import Op
from swell.store.sqlite import SqliteStore, Writing

WAIT_S = 60.0
SOURCE = Path(__file__).parents[2] / "src"
F = "default/a/f"
POOL = "default/a/f@rv-1"
OUT = Body("application/json", b"1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "control.db"


def work(id: str, workload: str = F, due_at: float = 0.0, priority: int = 0) -> Work:
    return Work(Call(id, workload, "f", 0.0, due_at, priority=priority), Body("application/json", id.encode()))


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process that runs `code` after what all of them have, with the sources on its path."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"},
    )


PRELUDE = """
    import ctypes, random, resource, struct, sys, threading, time
    from pathlib import Path
    from swell.model.call import *
    from swell.model.errors import SwellError
    from swell.store.sqlite import SqliteStore

    POOL = "default/a/f@rv-1"
    OUT = Body("application/json", b"1")

    def work(id, size=1):
        return Work(Call(id, "default/a/f", "f", 0.0, 0.0), Body("text/plain", b"x" * size))

    def refuse(secure_computing, error, *numbers):
        "From now on the kernel answers these system calls of every thread with an error."
        steps = [(0x20, 0, 0, 0), *((0x15, len(numbers) - at, 0, n) for at, n in enumerate(numbers))]
        steps += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050000 | error)]
        filter = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
        program = struct.pack("<HxxxxxxQ", len(steps), ctypes.addressof(filter))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.prctl(38, 1, 0, 0, 0) == 0
        assert libc.syscall(secure_computing, 1, 1, program) == 0, ctypes.get_errno()

    def refused(write, *arguments):
        try:
            return repr(write(*arguments))
        except SwellError as error:
            assert sys.argv[1] in error.message, error.message
            return f"{error.code} {error.status}"
"""

NUMBERS = {
    "x86_64": {"seccomp": 317, "pwrite64": 18, "fsync": 74, "fdatasync": 75},
    "aarch64": {"seccomp": 277, "pwrite64": 68, "fsync": 82, "fdatasync": 83},
}[platform.machine()]


# -- the disk ---------------------------------------------------------------------------------------

WITHOUT_SYNC = """
    store = SqliteStore(Path(sys.argv[1]))
    print(store.calls.add([work("fc-1"), work("fc-2"), work("fc-3")]))
    refuse(*map(int, sys.argv[2:]))
    print(len(store.calls.lease("default/a/f", 1, 1.0, 5, "r1-1", POOL)), store.call_records.get("fc-1").state)
    print(refused(store.calls.add, [work("fc-4")]))
    print(refused(store.calls.finish, [Done("fc-1", 5, 1.0, OUT)]), store.call_records.get("fc-1").state)
    print(refused(store.calls.change, [Cancel("fc-2", 1.0, CallError("cancelled", ""))]))
    print(len(store.calls.lease("default/a/f", 1, 1.0, 6, "r1-1", POOL)), store.call_records.get("fc-2").state)
    print(store.calls.depth("default/a/f", 1.0, 9).due)
"""


def test_what_is_accepted_or_recorded_was_synced_and_a_lease_is_not_held_up_by_that(path: Path) -> None:
    """On a disk that syncs nothing all is refused that must be on disk, and a lease is handed out."""
    process = child(WITHOUT_SYNC, path, NUMBERS["seccomp"], errno.EIO, NUMBERS["fsync"], NUMBERS["fdatasync"])
    output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    refused = "state_failed 500"
    assert output.splitlines() == [
        "['fc-1', 'fc-2', 'fc-3']",
        "1 leased",
        refused,
        f"{refused} leased",
        refused,
        "1 leased",
        "1",
    ]


FULL = """
    store = SqliteStore(Path(sys.argv[1]))
    print(store.calls.add([work("fc-1"), work("fc-2")]))
    refuse(*map(int, sys.argv[2:]))
    for write, *arguments in (
        (store.calls.add, [work("fc-3")]),
        (store.calls.lease, "default/a/f", 1, 1.0, 5, "r1-1", POOL),
        (store.calls.sweep, 1.0, 9),
    ):
        print(refused(write, *arguments))
    print(store.calls.depth("default/a/f", 1.0, 9).due, store.trouble.startswith("There is no space left"))
"""


def test_a_full_disk_refuses_in_words_and_what_was_accepted_stays(path: Path) -> None:
    process = child(FULL, path, NUMBERS["seccomp"], errno.ENOSPC, NUMBERS["pwrite64"])
    output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    # A sweep that finds nothing writes nothing.
    assert output.splitlines() == ["['fc-1', 'fc-2']", *["state_full 507"] * 2, "[]", "2 False"]
    store = SqliteStore(path)
    assert [each.call.id for each in store.calls.lease(F, 9, 1.0, 6, "r2-1", POOL)] == ["fc-1", "fc-2"]
    store.close()


FILLER = """
    def room(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    store = SqliteStore(Path(sys.argv[1]))
    lock, accepted, stopped = threading.Lock(), [], threading.Event()

    def fill(thread):
        n = 0
        while not stopped.is_set():
            n += 1
            ids = [f"fc-{thread}-{n}-{i}" for i in range(3)]
            try:
                told = store.calls.add([work(id, 5_000) for id in ids])
            except SwellError as error:
                assert error.code in ("state_full", "state_failed"), error.code
                stopped.set()
            else:
                with lock:
                    accepted.extend(told)

    room(1_000_000)
    threads = [threading.Thread(target=fill, args=(n,)) for n in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    room(resource.RLIM_INFINITY)
    accepted += store.calls.add([work("fc-last")])
    print("\\n".join(accepted))
    store.close()
"""


def test_a_disk_that_fills_up_while_many_are_accepted_loses_none_of_them(path: Path) -> None:
    process = child(FILLER, path)
    output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    accepted = output.split()
    assert len(accepted) > 4
    store = SqliteStore(path)
    kept = {call.id for call in store.call_records.newest("", None, 10_000)}
    assert set(accepted) <= kept
    for id in accepted:
        body = store.call_records.input(id)
        assert body is not None
        assert len(body.data) == (1 if id == "fc-last" else 5_000)
    # All of one batch, or nothing of it.
    batches = [id.rpartition("-")[0] for id in kept - {"fc-last"}]
    assert {batches.count(batch) for batch in batches} == {3}
    store.close()


# -- the process --------------------------------------------------------------------------------------

WORKER = """
    import json
    store, run, seed = SqliteStore(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
    lock = threading.Lock()

    def say(*words):
        with lock:
            print(json.dumps(words), flush=True)

    def submit(thread):
        chance, n = random.Random(seed + thread), 0
        while True:
            ids = [f"fc-{run}-{thread}-{n + i}" for i in range(chance.randint(1, 4))]
            n += len(ids)
            say("accepted", store.calls.add([work(id) for id in ids]))

    def serve(thread):
        chance, n = random.Random(seed + thread), 0
        while True:
            n += 1
            token = fencing_token(int(run), n * 10 + thread)
            held = [each.call.id for each in store.calls.lease("default/a/f", 5, 1.0, token, f"r{run}-{thread}", POOL)]
            again = [id for id in held if chance.random() < 0.2]
            result = Body("text/plain", str(token).encode())
            outcomes = [Again(id, token, 1.0) if id in again else Done(id, token, 1.0, result) for id in held]
            told = store.calls.finish(outcomes)
            assert told == [True] * len(held), told
            say("done", [outcome.id for outcome in outcomes if isinstance(outcome, Done)], token)

    for n in (1, 2): threading.Thread(target=submit, args=(n,), daemon=True).start()
    for n in (3, 4): threading.Thread(target=serve, args=(n,), daemon=True).start()
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_nothing_and_records_nothing_twice(path: Path) -> None:
    seed = 20
    chance = random.Random(seed)
    accepted: set[str] = set()
    done: dict[str, int] = {}
    for run in range(1, 9):
        process = child(WORKER, path, run, seed)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(chance.randint(2, 150))]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.wait()
        process.stdout.close()
        # The last line may be cut.
        for word, *rest in (json.loads(line) for line in lines if line.endswith("\n")):
            if word == "accepted":
                accepted.update(rest[0])
            elif word == "done":
                assert not done.keys() & set(rest[0]), "recorded twice"
                done.update(dict.fromkeys(rest[0], rest[1]))
        store = SqliteStore(path)
        kept = {call.id: call for call in store.call_records.newest("", None, 1_000_000)}
        assert accepted <= kept.keys(), f"seed {seed}, run {run}"
        for id, token in done.items():
            assert (kept[id].state, kept[id].token) == ("done", token)
            assert store.call_records.result(id) == Body("text/plain", b"%d" % token)
        waiting = [call for call in kept.values() if call.state == "queued"]
        assert sum(queued.calls for queued in store.calls.standing().queued.values()) == len(waiting)
        # What a replica had that is gone is handed out once more.
        left = store.calls.standing().leased
        assert not done.keys() & {call.id for call in left}
        assert all(store.calls.finish([Again(call.id, call.token, 1.0) for call in left]))
        store.close()
    assert len(accepted) > 100
    assert len(done) > 100


# -- what it costs --------------------------------------------------------------------------------------

HOT = (
    *(sql.KEPT_CALL, sql.NEXT_PRIORITY, sql.DUE_CALLS, sql.COUNT_DUE, sql.NEXT_DUE, sql.LEASE_CALL, sql.INPUT_OF),
    sql.FIRST_IS_SUSPECT,
    *(sql.END_CALL, sql.CALL_AGAIN, sql.ADD_USED, sql.CANCEL_CALL, sql.RETRY_CALL),
    *(sql.CALL, sql.CALLS_OF_IDS, sql.CALL_INPUT, sql.CALL_RESULT, sql.CALL_ONCE),
    *(sql.EXPIRED_CALLS, sql.DROP_CALL, sql.DROP_INPUT, sql.DROP_RESULT, sql.HAD_CALLS),
)
LISTS = (sql.CALLS, sql.LEASED_CALLS, sql.ENDED_CALLS, sql.CALL_DIGESTS, sql.OPEN_MEMBERS, sql.OTHER_KIND)

NAMES = "page|known|kind|due|suspects|sized|inputs|results|members"
FOUND = re.compile(rf"SCAN (\(subquery-\d+\)|{NAMES}|CONSTANT ROW|asked VIRTUAL TABLE .*)$")


def plan(path: Path, statement: str) -> list[str]:
    numbered = [int(n) for n in re.findall(r"\?(\d)", statement)]
    values = (1,) * (max(numbered) if numbered else statement.count("?"))
    connection = sqlite3.connect(path)
    rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
    connection.close()
    return [row[3] for row in rows]


@pytest.mark.parametrize("statement", HOT + LISTS)
def test_no_query_of_calls_looks_through_a_table(path: Path, statement: str) -> None:
    SqliteStore(path).close()
    steps = plan(path, statement)
    assert any(step.startswith("SEARCH") for step in steps)
    # What another query found was found by an index; there are few kinds of calls; what is asked for is named.
    scans = [step for step in steps if step.startswith("SCAN") and not FOUND.match(step)]
    assert scans == []
    sorts = [step for step in steps if "TEMP B-TREE" in step]
    assert not sorts or statement in LISTS


@pytest.mark.parametrize("statement", [sql.DUE_CALLS, sql.COUNT_DUE])
def test_suspects_are_found_however_many_others_wait(path: Path, statement: str) -> None:
    SqliteStore(path).close()
    assert any("calls_suspect" in step for step in plan(path, statement))


class Metered:
    """A queue over a plain connection that counts what the database does: its steps, in hundreds."""

    def __init__(self, path: Path) -> None:
        SqliteStore(path).close()
        self.connection = sqlite3.connect(path, isolation_level=None, factory=Writing)
        self.steps = 0
        self.calls = SqlCalls(self._write, self.read)

    def read(self, statement: str, *values: object) -> list[Any]:
        return self.connection.execute(statement, values).fetchall()

    def _write(self, op: Op, synced: bool) -> None:
        self.connection.execute("BEGIN")
        op(self.connection)
        self.connection.execute("COMMIT")

    def cost(self, do: Callable[[], object]) -> int:
        def count() -> int:
            self.steps += 1
            return 0

        self.steps = 0
        self.connection.set_progress_handler(count, 10)
        do()
        self.connection.set_progress_handler(None, 0)
        return self.steps


def test_a_longer_queue_costs_no_more(path: Path) -> None:
    metered = Metered(path)
    calls, records, costs, added = metered.calls, SqlCallRecords(metered.read), [], 0
    for more in (300, 30_000):
        # Of three priorities; as many that are not due yet, of the highest; and another workload's.
        calls.add([work(f"fc-{added + n:06}", priority=n % 3) for n in range(more)])
        calls.add([work(f"fd-{added + n:06}", due_at=9e9, priority=5) for n in range(more)])
        calls.add([work(f"fe-{added + n:06}", "default/a/g") for n in range(more)])
        added += more
        got: list[Work] = []
        costs.append(
            [
                metered.cost(lambda: got.extend(calls.lease(F, 10, 1.0, added, "r1-1", POOL))),
                metered.cost(lambda: calls.depth(F, 1.0, 100)),
                metered.cost(lambda: calls.finish([Done(each.call.id, added, 1.0, OUT) for each in got])),
                metered.cost(lambda: calls.add([work(f"ff-{added}")])),
                metered.cost(lambda: metered.read(sql.LEASED_CALLS)),
                metered.cost(lambda: records.newest("default/", None, 10)),
            ]
        )
        assert len(got) == 10
        depth = calls.depth(F, 1.0, 100)
        assert (depth.due, depth.next_at, depth.priorities[0][0]) == (100, 9e9, 2)
    short, long = costs
    assert all(more <= less * 1.5 + 5 for less, more in zip(short, long, strict=True)), costs
    metered.connection.close()


def test_who_reads_of_a_group_in_which_nothing_more_ends_pays_for_what_is_open_alone(path: Path) -> None:
    metered = Metered(path)
    calls, records, costs, added = metered.calls, SqlCallRecords(metered.read), [], 0
    for more in (300, 20_000):
        # All of one group have ended; of the other 10 more have not, each time.
        ended = [replace(work(f"fc-{added + n:06}").call, group="gh"[n % 2]) for n in range(more)]
        calls.add([Work(call, OUT) for call in ended])
        calls.change([Cancel(call.id, 1.0, CallError("cancelled", "")) for call in ended])
        calls.add([Work(replace(work(f"fd-{added + n}").call, group="g"), OUT) for n in range(10)])
        added += more
        costs.append(
            [
                metered.cost(lambda: next(iter(records.kinds("g")))),
                metered.cost(lambda: next(iter(records.kinds("h")))),
                metered.cost(lambda: records.members("g", ended=False)),
                metered.cost(lambda: records.members("h", ended=False)),
                metered.cost(lambda: records.ended("g", 1_000_000, 99)),
            ]
        )
        assert [each.ended for each in records.members("g", ended=False)] == [0]
    short, long = costs
    assert all(more <= less * 2.5 + 5 for less, more in zip(short, long, strict=True)), costs
    metered.connection.close()


def test_a_batch_is_one_synced_write_and_a_lease_is_none(path: Path) -> None:
    store = SqliteStore(path)
    store.calls.add([work("fc-first")])
    deadline = time.monotonic() + WAIT_S
    # The database looks for what is too old after its first write.
    while sum(store.write_seconds.counts) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    before = sum(store.write_seconds.counts)
    store.calls.add([work(f"fc-{n}") for n in range(100)])
    assert sum(store.write_seconds.counts) == before + 1
    got = store.calls.lease(F, 101, 1.0, 5, "r1-1", POOL)
    assert sum(store.write_seconds.counts) == before + 1
    assert all(store.calls.finish([Done(each.call.id, 5, 1.0, OUT) for each in got]))
    assert sum(store.write_seconds.counts) == before + 2
    store.close()
