"""Does an app run for as long as it should, and leave nothing behind?"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import swell
from sdk import deployable
from sdk.server import KEY, STOPPED, Server, serving
from swell.cli.deploy import deploy
from swell.wire import context
from swell.wire.api import DeployLine


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving({"plain": lambda x=1: x, "there": lambda: "there"}) as state:
        monkeypatch.setenv("SWELL_URL", state.url)
        monkeypatch.setenv("SWELL_KEY", KEY)
        yield state


def app(name: str | None = "a") -> swell.App:
    made = swell.App(name)
    made.function()(deployable.plain)
    return made


def test_functions_run_remotely_within_and_not_after(server: Server) -> None:
    made = app()
    function = made.registered_functions["plain"]
    with made.run() as running:
        assert running is made
        assert function.remote(5) == 5
        (deployed,) = server.apps.values()
        assert set(server.blobs) == {revision.bundle for revision in deployed.revisions}
        assert deployed.source.endswith("deployable.py")
    assert server.apps == {}
    with pytest.raises(swell.Error, match=r"its app does not run.*with app\.run"):
        function.remote(5)

    async def go() -> int:
        async with made.run():
            return await function.remote.aio(6)

    assert asyncio.run(go()) == 6
    assert server.apps == {}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_it_is_stopped_however_it_ends(server: Server, error: type[BaseException]) -> None:
    def body() -> None:
        with app().run():
            assert len(server.apps) == 1
            raise error

    with pytest.raises(error):
        body()
    assert server.apps == {}


def test_an_app_stopped_by_someone_else_is_an_error_only_where_nothing_worse_happened(server: Server) -> None:
    def body(error: Exception | None) -> None:
        with app().run():
            server.apps.clear()
            if error is not None:
                raise error

    with pytest.raises(ValueError, match="worse"):
        body(ValueError("worse"))
    with pytest.raises(swell.Error, match="no app"):
        body(None)


def test_an_app_without_a_name_runs_under_that_of_its_file(server: Server) -> None:
    with app(None).run():
        assert next(iter(server.apps)).startswith("default/deployable--")


def test_a_deploy_that_fails_says_why_and_changes_nothing(server: Server) -> None:
    server.deploy_error = DeployLine("error", "Importing x raised", code="import", detail="Traceback …\nBoom")
    with pytest.raises(swell.Error, match="Importing x raised") as raised:
        app().deploy()
    assert raised.value.code == "import"
    assert raised.value.__notes__ == ["Traceback …\nBoom"]
    with pytest.raises(swell.Error, match="Importing x raised"), app().run():
        pass
    assert server.apps == {}


def test_a_module_that_was_forgotten_is_named(server: Server) -> None:
    server.deploy_error = DeployLine(
        "error", "x", code="import", detail="ModuleNotFoundError: No module named 'server'"
    )
    with pytest.raises(swell.Error) as raised:
        app().deploy()
    assert ".add_local_python_source('server')" in raised.value.__notes__[-1]


def test_a_module_of_another_folder_that_was_forgotten_is_named_and_an_installed_one_is_not(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far_helper.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, noted in (("far_helper", "far_helper is far_helper.py here and was not sent along"), ("pytest", "")):
        detail = f"ModuleNotFoundError: No module named {name!r}"
        server.deploy_error = DeployLine("error", "x", code="import", detail=detail)
        with pytest.raises(swell.Error) as raised:
            app().deploy()
        assert any("add_local_python_source" in note for note in raised.value.__notes__) == bool(noted)
        assert noted in raised.value.__notes__[-1]


@pytest.mark.parametrize(
    ("missing", "noted"),
    [
        ("beside.txt", "add .add_local_file('beside.txt', 'beside.txt') to the image"),
        ("more/words", "add .add_local_dir('more/words', 'more/words') to the image"),
        ("nowhere.txt", ""),
        ("/etc/hostname", ""),
        ("../outside.txt", ""),
    ],
)
def test_a_file_that_was_forgotten_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, noted: str
) -> None:
    here = tmp_path / "here"
    (here / "more" / "words").mkdir(parents=True)
    (here / "beside.txt").touch()
    (tmp_path / "outside.txt").touch()
    monkeypatch.chdir(here)
    detail = f"FileNotFoundError: [Errno 2] No such file or directory: {missing!r}"
    server.deploy_error = DeployLine("error", "x", code="import", detail=detail)
    with pytest.raises(swell.Error) as raised:
        app().deploy()
    last = raised.value.__notes__[-1]
    assert noted in last if noted else "add_local" not in last


def test_output_appears_where_it_was_asked_for(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    with app().run():
        pass
    assert capfd.readouterr().err == ""
    with swell.enable_output(), app().run():
        pass
    shown = capfd.readouterr().err
    assert "building\n" in shown
    assert STOPPED not in shown
    assert [line.split(" says ")[1] for line in shown.splitlines() if " says " in line] == ["0", "1", "2"]


def test_what_is_most_likely_not_meant_is_said_at_deploy(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    alone = swell.App("a")
    alone.function(name="web")(swell.web_server(9303)(alone_serving))
    with swell.enable_output():
        alone.deploy()
    assert "web: one replica per node can listen on its port 9303, and that takes one request" in capfd.readouterr().err


def alone_serving() -> None:
    """Would start a process."""


def test_the_note_stays_on_the_screen_of_swell_deploy(server: Server, tmp_path: Path) -> None:
    place = tmp_path / "fixed.py"
    place.write_text(
        "import swell\napp = swell.App('fixed')\n@app.function()\n@swell.web_server(9304)\ndef web(): pass\n"
    )
    shown = CliRunner().invoke(deploy, [str(place)]).stderr.splitlines()
    assert [line for line in shown if "9304" in line] == [
        "Note: web: one replica per node can listen on its port 9304, and that takes one request at a time; "
        "@swell.concurrent(max_inputs=…) lets it take more."
    ]


def test_in_a_replica_calls_go_to_the_app_it_is_part_of(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SWELL_URL")
    first, second = swell.App("first"), swell.App("second")
    one, two = first.function()(deployable.plain), second.function(name="there")(deployable.plain)
    here = context.Inside("staging/first--7", "r1-1", server.url, KEY, "plain")
    monkeypatch.setattr(context, "inside", [here])
    assert not swell.is_local()
    assert one.remote(3) == 3
    assert two.remote() == "there"
    assert swell.Function.from_name("third", "plain").remote(4) == 4
    assert server.calls == ["staging/first--7/plain", "staging/second/there", "staging/third/plain"]


def test_what_user_code_may_know_of_its_input() -> None:
    import time

    assert swell.is_local()
    assert swell.current_input_id() is None
    assert swell.remaining_s() is None
    token = context.current.set(context.Input("q1", time.monotonic() + 60))
    try:
        assert swell.current_input_id() == "q1"
        assert 0 < (swell.remaining_s() or 0) <= 60
    finally:
        context.current.reset(token)


def test_imports_of_an_image_are_passed_over_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    image = swell.Image.debian_slim()
    with image.imports():
        import nowhere_to_be_found
    with pytest.raises(ZeroDivisionError), image.imports():
        1 / 0
    monkeypatch.setattr(context, "inside", [context.Inside("a", "r1-1", "", "")])
    with pytest.raises(ImportError), image.imports():
        import nowhere_to_be_found
    with_more = image.pip_install("nowhere-to-be-found", "other")
    with with_more.imports():
        import nowhere_to_be_found
    monkeypatch.setattr(context, "inside", [context.Inside("a", "r1-1", "", "", packages=(*with_more.packages, "x"))])
    with pytest.raises(ImportError), with_more.imports():
        import nowhere_to_be_found  # noqa: F401


def test_swell_alone_loads_nothing_and_the_sdk_nothing_heavy() -> None:
    code = """
import sys, swell
assert not [name for name in sys.modules if name.startswith("swell.")], sys.modules
app = swell.App("a")
@app.function(retries=2)
def f(x): return x
assert f.local(1) == f(1) == 1
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"asyncio", "anyio", "httpx2", "rich", "click", "starlette", "uvicorn"}, loaded
parts = {name.split(".")[1] for name in sys.modules if name.startswith("swell.")}
assert parts == {"model", "wire", "sdk"}, parts
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- with the real server ---------------------------------------------------------------------------

PROGRAM = """
import swell as modal

app = modal.App("program")

class Bad(Exception):
    pass

class Point:
    def __init__(self, x):
        self.x = x

@app.function()
def move(point, by=1):
    print("moving", point.x)
    return Point(point.x + by)

@app.function(retries=modal.Retries(max_retries=1, initial_delay=0.0))
def fail():
    raise Bad("on purpose")

@app.function()
def points(n):
    for x in range(n):
        yield Point(x)

@app.function()
def outer(x):
    return move.remote(Point(x)).x

@app.cls(enable_memory_snapshot=True)
class Model:
    @modal.enter(snap=True)
    def load(self):
        self.factor = 10

    @modal.method()
    def times(self, x):
        return self.factor * x, modal.is_local()

if __name__ == "__main__":
    with app.run():
        moved = move.remote(Point(1), by=5)
        assert type(moved) is Point and moved.x == 6
        try:
            fail.remote()
        except Bad as error:
            assert str(error) == "on purpose"
        assert [point.x for point in points.remote_gen(3)] == [0, 1, 2]
        assert outer.remote(1) == 2
        assert Model().times.remote(3) == (30, False)
        assert Model().times.local(3) == (30, True)
        assert [point.x for point in move.map(map(Point, range(20)))] == list(range(1, 21))
    print("all of it")
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="sw", dir="/tmp"))
    for name in [name for name in os.environ if name.startswith("SWELL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SWELL_HOME", str(folder))
    monkeypatch.setenv("SWELL_PORT", str(free_port()))
    yield folder
    rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_program_for_modal_runs_as_it_is_and_starts_its_own_server(home: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    # The second finds the first one's server, which is about to end.
    for _ in range(2):
        done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=100, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, "all of it\n"), done.stderr


@pytest.mark.slow
def test_a_server_that_does_not_come_up_is_quoted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWELL_HOME", str(home / ("long" * 30)))
    with pytest.raises(swell.Error, match=r"none could be started(.|\n)*too long(.|\n)*for unix sockets"), app().run():
        pass


@given(st.text(st.characters(), max_size=400) | st.none(), st.none() | st.floats() | st.integers())
def test_what_is_said_of_progress_is_told_as_it_can_be(message: str | None, done: float | None) -> None:
    swell.progress(done, done, message)  # Outside a replica nothing comes of it.
    heard: list[context.Said] = []
    token = context.current.set(context.Input("q1", 0.0))
    context.reports[:] = [lambda _input, said: heard.append(said)]
    try:
        swell.progress(done, done, message)
    finally:
        context.reports.clear()
        context.current.reset(token)
    (said,) = heard
    assert len(said.message.encode()) <= 4 * 200
    assert "\0" not in said.message
    assert said.total == said.done
    assert said.done is None or math.isfinite(said.done)
