"""Is what an author saves live, does a mistake cost nothing, and is nothing left of `swell serve`?"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from private_swell import PrivateSwell, unstarted_swell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = """
from pathlib import Path
import swell

image = swell.Image.debian_slim().add_local_dir({folder!r}, "words")
app = swell.App("draft", image=image)


@app.function()
@swell.fastapi_endpoint(label="draft")
def page():
    print("asked")
    words = sorted(Path(__file__).parent.glob("words/*"))
    return {{"version": {version}, "words": [word.read_text() for word in words]}}


@app.cls()
class Box:
    @swell.method()
    def open(self) -> int:
        return {version}

    @swell.exit()
    def close(self):
        print("closed")
"""


class Draft:
    """A program that is served while it is written."""

    def __init__(self, swell: PrivateSwell, folder: Path) -> None:
        self.swell = swell
        self.file = folder / "draft.py"
        self.words = folder / "words"
        self.words.mkdir()
        (self.words / "a").write_text("first")
        self.save(1)
        self.process = subprocess.Popen(
            ["swell", "serve", str(self.file)],
            env={**swell.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.shown: list[str] = []
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        self.says("Ctrl-C ends it.")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.shown.append(line.rstrip("\n"))

    def save(self, version: int, also: str = "") -> None:
        """As editors do: written beside it, then put in its place."""
        beside = self.file.with_suffix(".new")
        beside.write_text(PROGRAM.format(version=version, folder=str(self.words)) + also)
        beside.replace(self.file)

    def says(self, text: str, times: int = 1) -> None:
        def holds() -> bool:
            return sum(text in line for line in self.shown) >= times

        wait_until(f"{text!r} is said {times} times", lambda: holds() or self.process.poll() is not None, wait_s=60)
        assert holds(), self.shown

    def page(self) -> object:
        connection = http.client.HTTPConnection("127.0.0.1", self.swell.port, timeout=60)
        connection.request("GET", "/web/draft-dev/")
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status == 200, body
        return json.loads(body)

    def end(self, number: signal.Signals) -> int:
        os.killpg(self.process.pid, number)
        code = self.process.wait(60)
        self._reading.join(60)
        return code


@contextmanager
def drafting(swell: PrivateSwell, folder: Path) -> Iterator[Draft]:
    draft = Draft(swell, folder)
    try:
        yield draft
    finally:
        if draft.process.poll() is None:
            draft.end(signal.SIGTERM)


def test_each_change_is_live_a_mistake_costs_nothing_and_nothing_is_left(tmp_path: Path) -> None:
    with unstarted_swell() as swell, drafting(swell, tmp_path) as draft:
        assert any(f"http://127.0.0.1:{swell.port}/web/draft-dev/" in line for line in draft.shown)
        assert draft.page() == {"version": 1, "words": ["first"]}
        draft.says("page | asked")

        draft.save(2)
        draft.says("Reloaded in", 1)
        assert draft.page() == {"version": 2, "words": ["first"]}

        (draft.words / "b").write_text("second")
        draft.says("Reloaded in", 2)
        assert draft.page() == {"version": 2, "words": ["first", "second"]}

        for mistake, said in (("def (", "SyntaxError"), ("1 / 0", "ZeroDivisionError"), ("exit(3)", "SystemExit")):
            before = len(draft.shown)
            draft.save(3, mistake + "\n")
            draft.says("What was there before still serves.", 1 + ["def (", "1 / 0", "exit(3)"].index(mistake))
            assert any(said in line for line in draft.shown[before:])
            assert any(line.startswith("Error: Importing") for line in draft.shown[before:])
            assert draft.page() == {"version": 2, "words": ["first", "second"]}

        draft.save(4)
        draft.says("Reloaded in", 3)
        assert draft.page() == {"version": 4, "words": ["first", "second"]}
        with swell.connect() as client:
            assert client.call("draft-dev/Box.open").value == 4
            assert [(app["name"], app["ephemeral"]) for app in client.get("/api/apps").value] == [("draft-dev", True)]

        assert draft.end(signal.SIGINT) == 130
        assert "Box | closed" in draft.shown
        wait_until("the server that was started for it is gone", lambda: not swell.processes())


def test_a_change_while_a_reload_is_under_way_is_taken_afterwards(own_swell: PrivateSwell, tmp_path: Path) -> None:
    with drafting(own_swell, tmp_path) as draft:
        # It is being imported until the file is there, of which it says so.
        waits = "import pathlib, time\n" + "\n".join(
            (
                f"if not pathlib.Path({str(tmp_path / 'on')!r}).exists():",
                "    print('importing', flush=True)",
                f"    while not pathlib.Path({str(tmp_path / 'on')!r}).exists(): time.sleep(0.02)\n",
            )
        )
        draft.save(2, waits)
        draft.says("importing")
        draft.save(3)
        (tmp_path / "on").touch()
        draft.says("changed meanwhile: reloading")
        draft.says("Reloaded in", 2)
        assert draft.page() == {"version": 3, "words": ["first"]}


def test_what_does_not_start_leaves_the_old_code_serving(own_swell: PrivateSwell, tmp_path: Path) -> None:
    with drafting(own_swell, tmp_path) as draft, own_swell.connect() as client:
        assert client.call("draft-dev/Box.open").value == 1
        broken = PROGRAM.format(version=2, folder=str(draft.words)).replace(
            "    @swell.exit()",
            "    @swell.enter()\n    def begin(self):\n        raise ValueError('no start')\n\n    @swell.exit()",
        )
        draft.file.write_text(broken)
        draft.says("Error: Box: the new code does not start")
        assert client.call("draft-dev/Box.open").value == 1
        draft.save(3)
        draft.says("Reloaded in")
        assert client.call("draft-dev/Box.open").value == 3


def test_its_name_is_its_own(own_swell: PrivateSwell, tmp_path: Path) -> None:
    with drafting(own_swell, tmp_path) as draft:
        words = ["swell", "serve", str(draft.file)]
        done = subprocess.run(words, env=own_swell.environ, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1
        assert "Error: App draft-dev belongs to another program that runs." in done.stderr
        assert draft.page() == {"version": 1, "words": ["first"]}
        assert draft.end(signal.SIGTERM) == 143
    with own_swell.connect() as client:
        assert client.get("/api/apps").value == []


def test_what_it_wrote_another_time_is_not_shown_again(own_swell: PrivateSwell, tmp_path: Path) -> None:
    for time in ("first", "second"):
        (tmp_path / time).mkdir()
        with drafting(own_swell, tmp_path / time) as draft:
            assert draft.page() == {"version": 1, "words": ["first"]}
            draft.says("page | asked")
            assert draft.end(signal.SIGTERM) == 143
            assert sum("page | asked" in line for line in draft.shown) == 1


def test_what_cannot_be_served_at_first_is_refused(own_swell: PrivateSwell, tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import swell\napp = swell.App('broken')\n1 / 0\n")
    done = subprocess.run(
        ["swell", "serve", str(file)], env=own_swell.environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "1 / 0" in done.stderr
    assert 'File "<frozen' not in done.stderr


def watchers(swell: PrivateSwell) -> list[int]:
    return [one.pid for one in swell.processes() if "swell.sdk.generation" in one.command]


def test_of_one_that_is_killed_nothing_is_left(own_swell: PrivateSwell, tmp_path: Path) -> None:
    with drafting(own_swell, tmp_path) as draft:
        assert len(watchers(own_swell)) == 1
        draft.process.kill()
        with own_swell.connect() as client:
            wait_until("its app is stopped", lambda: client.get("/api/apps").value == [], wait_s=60)
        wait_until("its watcher is gone", lambda: watchers(own_swell) == [])
