"""Does a start, or a build, that fails say why: in plain words, once, with the user's own frames?"""

from __future__ import annotations

import importlib
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from node import Node, call, run

from swell.model.events import ReplicaSeen
from swell.model.replica import Phase
from swell.model.workload import Method, Revision, Web

pytestmark = pytest.mark.slow

DOUBLE = "def f(x=1):\n    return x * 2\n"


def test_failed_starts_say_why() -> None:
    async def scenario(node: Node) -> None:
        cases = [
            ("import", node.revision("import not_there\n"), "import_error", "No module named 'not_there'"),
            ("enter", node.revision(ENTER_RAISES, "C", enter=("warm",)), "enter_error", "no weights"),
            ("missing", node.revision(DOUBLE, "g"), "bad_entry", "'g'"),
            (
                "exit",
                node.revision("import os\nprint('last words', flush=True)\nos._exit(3)\n"),
                "crashed",
                "last words",
            ),
            ("signal", node.revision("import os\nos.kill(os.getpid(), 11)\n"), "crashed", "signal 11"),
        ]
        for name, revision, reason, words in cases:
            over = await node.gone(node.start(revision))
            assert (over.phase, over.reason) == (Phase.GONE, reason), (name, over)
            assert words in over.detail, (name, over)

    run(scenario)


ENTER_RAISES = """
class C:
    def warm(self):
        raise RuntimeError("no weights")
    def f(self):
        return 1
"""


def test_each_failed_start_is_logged_with_its_number_until_one_works() -> None:
    async def scenario(node: Node) -> None:
        there = node.home.root / "there"
        source = f"""
        import os
        class C:
            def warm(self):
                assert os.path.exists({str(there)!r}), "not there"
            def f(self):
                return 1
        """
        revision = node.revision(source, "C", enter=("warm",))

        async def told(replica: str) -> str:
            await node.gone(replica)
            return next(row["text"] for row in node.log() if row["replica"] == replica and row["stream"] == "sys")

        for attempt in (1, 2, 3):
            line = await told(node.start(revision))
            assert line.startswith(f"its start-up code failed (attempt {attempt}): warm raised"), line
        there.touch()
        replica = node.start(revision)
        await node.ready(replica)
        node.stop(replica)
        assert await told(replica) == "stopped: nobody needed it any longer"
        there.unlink()
        assert "(attempt 1)" in await told(node.start(revision))

    run(scenario)


def test_a_failed_start_is_in_the_log_once_with_the_users_own_frames() -> None:
    async def scenario(node: Node) -> None:
        cases = {
            "import": (node.revision("import not_there\n"), "Importing app raised ModuleNotFoundError"),
            "init": (node.revision(INIT_RAISES, "C"), "__init__ raised at start-up: RuntimeError: no weights"),
            "enter": (node.revision(ENTER_RAISES, "C", enter=("warm",)), "warm raised at start-up: RuntimeError: no w"),
            "snap": (node.revision(ENTER_RAISES, "C", enter_snap=("warm",)), "warm raised at start-up: RuntimeError"),
        }
        for name, (revision, words) in cases.items():
            for role in ("serving", "template") if name != "enter" else ("serving",):
                over = await node.gone(node.start(revision, role=role))
                lines = [(row["stream"], row["text"]) for row in node.log() if row["replica"] == over.replica]
                told = [text for stream, text in lines if stream == "sys"]
                assert len(told) == 1, (name, lines)
                assert f" (attempt 1): {words}" in told[0], (name, told)
                printed = [text for stream, text in lines if stream == "err"]
                assert len(printed) == len(lines) - 1
                assert printed[0] == "Traceback (most recent call last):"
                assert printed.count(printed[0]) == 1
                frames = [text for text in printed if text.startswith("  File ")]
                assert frames
                assert all(text.startswith('  File "app.py", line ') for text in frames), frames
                assert "Error: " in printed[-1]

    run(scenario)


INIT_RAISES = """
class C:
    def __init__(self):
        raise RuntimeError("no weights")
    def f(self):
        return 1
"""


def test_a_bundle_or_interpreter_that_is_not_there_fails_the_start_with_its_name() -> None:
    async def scenario(node: Node) -> None:
        good = node.revision(DOUBLE)
        over = await node.gone(node.start(msgspec.structs.replace(good, bundle="sha256-none")))
        assert (over.reason, "sha256-none" in over.detail) == ("bad_bundle", True)
        nowhere = msgspec.structs.replace(good.environment, interpreter="/nowhere/python")
        over = await node.gone(node.start(msgspec.structs.replace(good, environment=nowhere)))
        assert (over.reason, "/nowhere/python" in over.detail) == ("environment", True)

    run(scenario)


def test_what_nobody_foresaw_is_told_without_a_traceback_and_ends_what_waited_for_it() -> None:
    async def scenario(node: Node) -> None:
        good = node.revision(DOUBLE)
        # No path has a zero byte: nothing in the runner expects the ValueError that this makes.
        impossible = msgspec.structs.replace(good.environment, interpreter="/usr/bin/py\0thon")
        revision = msgspec.structs.replace(good, environment=impossible)
        report = await node.build(revision)
        assert (report.ok, report.error, report.detail) == (False, "internal", "")
        assert "logs/swell.log" in report.message
        over = await node.gone(node.start(revision))
        assert (over.phase, over.reason) == (Phase.GONE, "internal")
        assert over.detail == report.message
        # Nor does it end anything else.
        await node.ready(node.start(good))

    run(scenario)


def test_a_damaged_bundle_is_told_by_the_build() -> None:
    async def scenario(node: Node) -> None:
        revision = node.revision(DOUBLE)
        blob = node.home.blobs / revision.bundle
        blob.write_bytes(blob.read_bytes()[:15] + b"\xff" * 20 + blob.read_bytes()[35:])
        report = await node.build(revision)
        assert (report.ok, report.error) == (False, "environment")
        assert "Deploy again" in report.message

    run(scenario)


def test_builds_tell_import_errors_with_the_users_traceback() -> None:
    async def scenario(node: Node) -> None:
        lines: list[str] = []
        double = node.revision(DOUBLE)
        assert (await node.build(double, lines)).ok
        assert lines == [f"checking the import of {double.entry.module}"]
        for source, words in (
            ("def f(:\n", "SyntaxError"),
            ("def helper():\n    return 1 / 0\nhelper()\n", "ZeroDivisionError"),
            ("raise SystemExit(0)\n", "SystemExit"),
            ("x = 1\n", "'f'"),
        ):
            report = await node.build(node.revision(source))
            assert (report.ok, report.error) == (False, "import"), report
            assert words in report.detail
        # A class is looked up and not made: what it does when it starts is no concern of a deploy.
        assert (
            await node.build(node.revision("class C:\n    def __init__(self): 1 / 0\n    def f(self): 0\n", "C"))
        ).ok

    run(scenario)


def test_docs_without_fastapi_are_refused_when_deployed(tmp_path: Path) -> None:
    for package in ("swell", "msgspec", "httptools"):
        (tmp_path / package).symlink_to(Path(importlib.import_module(package).__file__ or "").parent)
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)

    async def scenario(node: Node) -> None:
        revision = node.revision(DOUBLE)
        without = msgspec.structs.replace(revision.environment, interpreter=str(bare))
        for docs in (False, True):
            method = Method("f", web=Web("endpoint", "label", docs=docs))
            entry = msgspec.structs.replace(revision.entry, methods=(method,))
            report = await node.build(msgspec.structs.replace(revision, environment=without, entry=entry))
            assert report.ok is not docs
        assert report.error == "environment"
        assert report.message == 'docs=True needs FastAPI in the image: add .uv_pip_install("fastapi").'

    run(scenario)


def test_what_is_printed_while_loading_is_told_apart_and_is_no_forks() -> None:
    async def scenario(node: Node) -> None:
        source = """
        import logging, sys
        sys.stdout.reconfigure(line_buffering=True)
        logging.basicConfig(stream=sys.stderr)
        kept = sys.stdout
        print("out")
        print("begun", end="")
        logging.warning("err")
        def f():
            print(" fork", file=kept)
            logging.warning("fork err")
        """
        revision = node.revision(source)
        template = await node.ready(node.start(revision, role="template"))
        fork = await node.ready(node.start(revision, template=template.replica))
        fresh = await node.ready(node.start(revision))
        for seen in (fork, fresh):
            assert (await call(seen.address))[0] == 200
        loading = {("out", "", "out"), ("out", "", "begun"), ("err", "", "WARNING:root:err")}
        calling = {("out", "q1", " fork"), ("err", "q1", "WARNING:root:fork err")}

        def lines(seen: ReplicaSeen) -> set[tuple[str, str, str]]:
            rows = (row for row in node.log() if row["replica"] == seen.replica)
            return {(row["stream"], row["request"], row["text"]) for row in rows}

        for seen, wanted in ((template, loading), (fork, calling), (fresh, loading | calling)):
            await node.until(lambda seen=seen, wanted=wanted: lines(seen) == wanted)

    run(scenario)


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("return 42", "its entry point cannot be used (attempt 1): f returned an object of type int"),
        ("return 1 / 0", "its start-up code failed (attempt 1): f raised at start-up: ZeroDivisionError"),
    ],
)
def test_an_asgi_function_that_makes_no_app_is_told_as_that(does: str, told: str) -> None:
    async def scenario(node: Node) -> None:
        revision = node.revision(f"def f():\n    {does}\n")
        entry = msgspec.structs.replace(revision.entry, methods=(Method("f", web=Web("asgi", "label")),))
        over = await node.gone(node.start(msgspec.structs.replace(revision, entry=entry)))
        (line,) = (row["text"] for row in node.log() if row["replica"] == over.replica and row["stream"] == "sys")
        assert line.startswith(told)

    run(scenario)


def test_a_program_that_fails_before_it_listens_is_told_with_its_last_lines() -> None:
    async def scenario(node: Node) -> None:
        program = "import sys; print('loading'); sys.exit('no weights')"
        source = f"import subprocess, sys\ndef f():\n    subprocess.Popen([sys.executable, '-c', {program!r}])\n"
        revision = node.revision(source)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            web = Web("server", "label", port=free.getsockname()[1], startup_timeout_s=1000.0)
        entry = msgspec.structs.replace(revision.entry, methods=(Method("f", web=web),))
        over = await node.gone(node.start(msgspec.structs.replace(revision, entry=entry)))
        said, *printed = over.detail.splitlines()
        assert "The process that f started ended (exit code 1)" in said
        assert printed[-1] == "its last output line: no weights"
        assert "loading" in printed

    run(scenario)


def test_an_import_is_checked_anew_with_other_variables_or_in_another_folder() -> None:
    async def scenario(node: Node) -> None:
        revision = node.revision('import os\nLIMIT = int(os.environ["LIMIT"])\ndef f(): pass\n')

        def where(**changes: Any) -> Revision:
            environment = msgspec.structs.replace(revision.environment, **changes)
            return msgspec.structs.replace(revision, environment=environment)

        assert (await node.build(where(variables=(("LIMIT", "5"),)))).ok
        report = await node.build(where(variables=(("LIMIT", "abc"),)))
        assert (report.ok, report.error) == (False, "import")
        assert "invalid literal" in report.detail
        lines: list[str] = []
        assert (await node.build(where(variables=(("LIMIT", "5"),), workdir="/"), lines)).ok
        assert lines
        lines = []
        assert (await node.build(where(variables=(("LIMIT", "5"),)), lines)).ok
        assert lines == []

    run(scenario)


def test_a_template_whose_module_has_nobody_wait_for_children_forks_on() -> None:
    source = """
    import os, signal
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    here = os.getpid()
    def f():
        return here
    """

    async def scenario(node: Node) -> None:
        revision = node.revision(source)
        template = await node.ready(node.start(revision, role="template"))
        for _ in range(2):
            fork = await node.ready(node.start(revision, template=template.replica))
            assert await call(fork.address) == (200, template.pid)
            node.stop(fork.replica)
            assert (await node.gone(fork.replica)).reason == "idle"

    run(scenario)
