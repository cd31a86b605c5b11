"""Does a server whose state is in PostgreSQL keep what it accepted, whatever dies, and its password to itself?"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import postgres
import pytest
from census import supervisor
from shell import ended, launch, refusal
from test_backup import answers, restored
from test_queued_calls import BACK_S, END_S, PROGRAM, SLOTS, Caller

from private_swell import Answer, PrivateSwell, exchange, unstarted_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CALLS = 60
CLIENTS = 4
PASSWORD = "geheim"


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The folder of the socket of a server."""
    with postgres.server() as folder:
        yield folder


@pytest.fixture
def later(tmp_path: Path, database: str) -> Iterator[tuple[PrivateSwell, Path]]:
    """A server with its state there, functions, and the file in which they tell what they do."""
    script, file = tmp_path / "later.py", tmp_path / "told"
    file.touch()
    script.write_text(PROGRAM.format(file=str(file), slots=SLOTS))
    with unstarted_swell() as swell:
        # Nobody asks for the password here; whether it is handed on is seen all the same.
        swell.environ["SWELL_STORE"] = f"postgresql://swell:{PASSWORD}@/postgres?host={database}"
        swell.environ["SWELL_RESTARTS_WITHIN_S"] = "1"
        said = swell.run("up", "-d", "--set", "orphan_s=60")
        assert f"postgresql://swell@/postgres?host={database}" in said
        assert PASSWORD not in said
        swell.run("deploy", str(script))
        yield swell, file
        swell.run("down")


def test_what_was_accepted_has_one_result_whatever_dies(later: tuple[PrivateSwell, Path], database: str) -> None:
    swell, file = later
    caller = Caller(swell)

    def ran() -> int:
        return len(file.read_text().splitlines())

    with ThreadPoolExecutor(CLIENTS) as clients:
        accepting = [clients.submit(caller.spawn, "double", x) for x in range(CALLS)]
        for victim in ("control", "database", "everything"):
            wait_until("some more ran", lambda before=ran(): ran() > before, wait_s=BACK_S)
            if victim == "database":
                # What runs goes on without the one that was killed, whose successor would wait for the database.
                wait_until("control answers", lambda: answers(swell), wait_s=BACK_S)
                postgres.stop(database)
                refused = wait_for_refusal(caller)
                assert refused.status == 503, refused.body
                assert PASSWORD not in refused.body.decode()
                # What runs is answered without it.
                with swell.connect() as client:
                    assert client.call("later/double", [1000]).value == 2000
                postgres.start(database)
            else:
                pids = [supervisor(swell)] if victim == "everything" else []
                pids += [swell.server(each) for each in (("control", "gateway", "runner") if pids else ("control",))]
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                if victim == "everything":
                    swell.run("up", "-d", "--set", "orphan_s=60")
        ids = [each.result(END_S) for each in accepting]
        assert len(set(ids)) == CALLS
        results = list(clients.map(caller.result, ids))
    assert [(answer.status, answer.value) for answer in results] == [(200, 2 * x) for x in range(CALLS)]
    states = postgres.ask(postgres.url(database), "SELECT state FROM calls")
    assert {row["state"] for row in states} == {"done"}
    for process in swell.processes():
        assert PASSWORD not in process.command
    assert PASSWORD not in "".join(path.read_text() for path in (swell.home / "logs").rglob("*.log"))
    assert not (swell.home / "control.db").exists()
    backed_up_and_restored(swell, database, file.parent, ids[:3])
    words = ("up", "-d", "--store", f"postgresql://swell:{PASSWORD}@/postgres?host={database}")
    code, said = ended(launch(swell, *words))
    assert (code, PASSWORD in said, "SWELL_STORE" in said) == (2, False, True)
    store = swell.environ.pop("SWELL_STORE")
    for words in (("up", "-d"), ("backup", str(file.with_name("copy")))):
        assert "SWELL_STORE" in refusal(swell, *words), "the files are not those of a new state in control.db"
    swell.environ["SWELL_STORE"] = store
    swell.run("up", "-d")
    assert caller.result(ids[0]).value == 0


def backed_up_and_restored(swell: PrivateSwell, database: str, folder: Path, ids: list[str]) -> None:
    """Of a server that runs, into another database; and of the same one, which is then stopped, into a directory."""
    copies = [folder / "while-it-runs", folder / "while-it-does-not"]
    swell.run("backup", str(copies[0]))
    swell.run("down")
    swell.run("backup", str(copies[1]))
    postgres.ask(postgres.url(database), "CREATE DATABASE second")
    second = f"postgresql://swell:{PASSWORD}@/second?host={database}"
    with restored(copies[0], SWELL_STORE=second) as other:
        assert "postgresql://swell@/second" in other.words  # type: ignore[attr-defined]
        assert PASSWORD not in other.words  # type: ignore[attr-defined]
        assert [Caller(other).result(id).value for id in ids] == [0, 2, 4]
        with other.connect() as client:
            assert client.call("later/double", [1000]).value == 2000
        assert not (other.home / "control.db").exists()
    with restored(copies[1], started=False) as other:
        assert (other.home / "control.db").exists()
    assert "a server ran" in refusal(swell, "restore", str(copies[0]), "--home", str(folder / "again"))


def wait_for_refusal(caller: Caller) -> Answer:
    """The first answer to a call that is not accepted."""
    found: list[Answer] = []

    def refused() -> bool:
        connection = HTTPConnection("127.0.0.1", caller.swell.port, timeout=60.0)
        headers = {"Authorization": f"Bearer {caller.key}", "Content-Type": "application/json", "Swell-Async": "true"}
        found.append(exchange(connection, "POST", "/call/later/third_time", json.dumps([1]).encode(), headers))
        connection.close()
        return found[-1].status != 202

    wait_until("it is refused", refused, wait_s=BACK_S)
    return found[-1]
