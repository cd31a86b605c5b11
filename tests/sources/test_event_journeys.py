"""Is a function called once for each message of a real source, whatever is killed or goes away meanwhile?"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from places import CREDENTIALS, Bucket, Folder, Nats, Place, Postgres, RedisPlace, Sqlite, place

from private_swell import Failed, PrivateSwell, unstarted_swell, wait_until

HEAD = """
import json, pathlib, swell

app = swell.App("sources")

def took(event, name):
    data = json.loads(event.data) if isinstance(event.data, bytes) else event.data
    data = json.loads(pathlib.Path(data["path"]).read_text()) if "path" in data else data
    data = {{"n": int(pathlib.Path(data["key"]).stem)}} if "key" in data else data
    with open(pathlib.Path({folder!r}) / name, "a") as file:
        file.write(f"{{data['n']}} {{event.type}}\\n")
    return event.id
"""
FUNCTION = """
@app.function(trigger=swell.{kind}(**{given}), max_containers=1)
def {name}(event: swell.Event) -> str:
    return took(event, {name!r})
"""
KINDS = (Folder, Sqlite, Bucket, Nats, RedisPlace, Postgres)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateSwell]:
    with unstarted_swell({**os.environ, **CREDENTIALS}) as swell:
        swell.run("up", "-d")
        yield swell


@pytest.fixture
def places() -> Iterator[dict[str, Place]]:
    with ExitStack() as stack:
        made = {kind.__name__.lower(): stack.enter_context(place(kind)) for kind in KINDS}
        for each in made.values():
            asyncio.run(each.begin())
        yield made


def asked(swell: PrivateSwell, path: str) -> Any:
    """What a path answers; asked again while control is away."""
    answers: list[Any] = []

    def answered() -> bool:
        with suppress(Failed):
            answers.append(swell.get(path))
        return bool(answers)

    wait_until(path, answered, pause_s=0.1)
    return answers[-1]


def test_each_message_is_one_call(server: PrivateSwell, places: dict[str, Place], tmp_path: Path) -> None:
    program = HEAD.format(folder=str(tmp_path))
    for name, somewhere in places.items():
        config = somewhere.config()
        given = msgspec.structs.asdict(config)
        program += FUNCTION.format(kind=type(config).__name__, given=given, name=name)
    (tmp_path / "sources.py").write_text(program)

    def rows() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = asked(server, "/api/triggers?app=sources")
        return found

    def calls() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = asked(server, "/api/calls?app=sources&limit=1000")
        return found

    def made() -> Counter[str]:
        return Counter(each["function"] for each in calls())

    def all_ran() -> bool:
        found = calls()
        assert not [each for each in found if each["state"] == "failed"]
        return all(each["state"] == "done" for each in found)

    def publish(*numbers: int) -> None:
        for somewhere in places.values():
            asyncio.run(somewhere.publish(numbers))

    publish(0, 1, 2)
    server.run("deploy", str(tmp_path / "sources.py"))
    wait_until("the first are there", lambda: made() == Counter(dict.fromkeys(places, 3)), pause_s=0.2)
    # Killed while messages come: before some are in the queue, and before the source is told of others.
    killed = server.server("control")
    publish(3, 4, 5)
    os.kill(killed, signal.SIGKILL)
    publish(6, 7)
    wait_until("the next control", lambda: server.servers("control") not in ([], [killed]))
    wait_until("all are there", lambda: min(made().values()) >= 8, pause_s=0.2)
    # They read their files, which are away next.
    wait_until("these ran", all_ran, pause_s=0.2)
    for somewhere in places.values():
        asyncio.run(somewhere.stop())
    # What goes on listening to clients that are there may not be seen to have gone.
    down = {*places} - {"postgres"}
    wait_until("they are seen to be away", lambda: down <= {r["name"] for r in rows() if r["why"]}, pause_s=0.2)
    for somewhere in places.values():
        asyncio.run(somewhere.start())
    publish(8, 9)
    wait_until("the last are there", lambda: min(made().values()) >= 10, pause_s=0.2)
    wait_until("all ran", all_ran, pause_s=0.2)
    assert made() == Counter(dict.fromkeys(places, 10))
    wait_until("they are up", lambda: all(row["up"] for row in rows()), pause_s=0.2)
    for name in places:
        lines = [line.split() for line in (tmp_path / name).read_text().splitlines()]
        assert {int(number) for number, _ in lines} == {*range(10)}
        found = json.loads(server.run("trigger", "history", f"sources/{name}", "-n", "1000", "--json"))
        assert len({each["call"] for each in found}) == len(found) == 10
    server.run("app", "stop", "sources")
    wait_until("nothing is read any more", lambda: asked(server, "/api/triggers") == [], pause_s=0.2)


OWN = """
import asyncio, pathlib, swell

app = swell.App("own")
INBOX = pathlib.Path({inbox!r})

@app.cls(timeout=4)
class Mail(swell.Source):
    async def events(self):
        while True:
            for letter in sorted(INBOX.iterdir()):
                yield swell.Event(id=letter.name, source="/mail", type="letter", data={{"n": int(letter.name)}})
            await asyncio.sleep(0.05)

    async def ack(self, event):
        (INBOX / event.id).unlink()

@app.function(trigger=Mail)
def read(event: swell.Event) -> int:
    return event.data["n"]
"""


def test_what_a_class_finds_is_one_call_each_whatever_is_killed(server: PrivateSwell, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (tmp_path / "own.py").write_text(OWN.format(inbox=str(inbox)))

    def put(*numbers: int) -> None:
        for number in numbers:
            (tmp_path / "aside").write_text("")
            (tmp_path / "aside").rename(inbox / str(number))

    def calls(function: str) -> list[dict[str, Any]]:
        rows = asked(server, "/api/calls?app=own&limit=1000")
        return [each for each in rows if each["function"] == function]

    def row() -> dict[str, Any]:
        (found,) = asked(server, "/api/triggers?app=own")
        return dict(found)

    def finder() -> list[int]:
        rows = [
            each for each in server.serving() if each["workload"] == "default/own/Mail" and each["phase"] == "ready"
        ]
        return [each["pid"] for each in rows]

    put(*range(5))
    server.run("deploy", str(tmp_path / "own.py"))
    wait_until("the first are read", lambda: len(calls("read")) == 5, pause_s=0.2)
    wait_until("it is up", lambda: row()["up"], pause_s=0.2)
    os.kill(finder()[0], signal.SIGKILL)
    put(*range(5, 10))
    control = server.server("control")
    os.kill(control, signal.SIGKILL)
    put(*range(10, 15))
    wait_until("the next control", lambda: server.servers("control") not in ([], [control]))
    wait_until("all are read", lambda: len(calls("read")) == 15, pause_s=0.2)
    wait_until("all are acknowledged", lambda: not [*inbox.iterdir()])
    # Its time is up again and again, and nobody calls that an error.
    ended = {each["id"] for each in calls("Mail.deliver") if each["state"] == "done"}
    done = lambda: {each["id"] for each in calls("Mail.deliver") if each["state"] == "done"} - ended  # noqa: E731
    wait_until("it was begun anew", done, pause_s=0.2)
    put(15)
    wait_until("it is read", lambda: len(calls("read")) == 16, pause_s=0.2)
    wait_until("all ran", lambda: {each["state"] for each in calls("read")} == {"done"}, pause_s=0.2)
    history = json.loads(server.run("trigger", "history", "own/read", "-n", "1000", "--json"))
    assert sorted(each["call"] for each in history) == sorted(each["id"] for each in calls("read"))
    open_states = ("queued", "leased")
    assert len([each for each in calls("Mail.deliver") if each["state"] in open_states]) <= 1
    server.run("trigger", "pause", "own/read")
    assert not [each for each in calls("Mail.deliver") if each["state"] in open_states]
    put(16)
    server.run("trigger", "resume", "own/read")
    wait_until("it is read then", lambda: len(calls("read")) == 17, pause_s=0.2)
    server.run("app", "stop", "own")

    def is_over() -> bool:
        return not [each for each in calls("Mail.deliver") if each["state"] in open_states]

    wait_until("nothing is looked for any more", is_over, pause_s=0.2)
