"""Are errors of the kinds that Modal's API names, and is each code one of them?"""

from __future__ import annotations

import ast
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import swell
import swell as modal
from swell.model.errors import CODES, SwellError
from swell.runtime.results import exception_body
from swell.sdk import protocol
from swell.wire import http

ROOT = Path(__file__).resolve().parents[2]
NEVER_MET = {"client_left"}
"""Codes of records only."""


def answered(status: int, code: str) -> Exception:
    body = b'{"error": {"code": "%s", "message": "words", "request": "q1"}}' % code.encode()
    return protocol.failure(protocol.Answer(status, {}, body))


def test_a_deadline_is_caught_by_each_of_its_names() -> None:
    for kind in (
        modal.exception.FunctionTimeoutError,
        modal.exception.TimeoutError,
        modal.exception.Error,
        modal.Error,
        TimeoutError,
    ):
        with pytest.raises(kind, match="words") as raised:
            raise answered(504, "deadline")
        assert isinstance(raised.value, swell.Error)
        assert (raised.value.code, raised.value.request, raised.value.status) == ("deadline", "q1", 504)


def test_all_that_is_wrong_with_arguments_is_told() -> None:
    sent = http.error_body("bad_arguments", "words", "q1", problems=(("$.x[1]", "no"), ("$.y", "nor this")))
    error = protocol.failure(protocol.Answer(422, {}, sent))
    assert isinstance(error, swell.exception.InvalidError)
    assert error.problems == (("$.x[1]", "no"), ("$.y", "nor this"))
    assert pickle.loads(pickle.dumps(error)).problems == error.problems
    assert b"problems" not in http.error_body("bad_arguments", "words")


@pytest.mark.parametrize("first", [["x"], {"x": 1}, 7, None, b"x"])
def test_a_code_is_text_and_whatever_else_is_given_is_none(first: object) -> None:
    """A user's own may have any two arguments."""
    error = swell.Error(first, "y")
    assert type(error) is swell.Error
    assert (str(error), error.code, error.message) == ("y", "", "y")
    assert pickle.loads(pickle.dumps(error)).message == "y"


def test_a_server_that_is_not_there_is_a_connection_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("SWELL_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    for kind in (modal.exception.ConnectionError, ConnectionError):
        with pytest.raises(kind, match="No Swell server"):
            swell.Function.from_name("a", "f").remote()


@pytest.mark.parametrize("kind", CODES)
def test_every_kind_crosses_processes_and_keeps_what_it_says(kind: type[SwellError]) -> None:
    for code in CODES[kind]:
        error = SwellError(code, "words", status=418, detail="more", request="q1")
        again = pickle.loads(pickle.dumps(error))
        for each in (error, again):
            assert type(each) is kind
            assert (str(each), repr(each)) == ("words", f"{kind.__name__}('words')")
        assert vars(again) == vars(error)
        assert getattr(swell.exception, kind.__name__) is kind
        assert f"{kind.__module__}.{kind.__qualname__}" == f"swell.exception.{kind.__name__}"


def test_an_error_without_a_kind_is_the_base() -> None:
    error = pickle.loads(pickle.dumps(SwellError("home_in_use", "words")))
    assert type(error) is swell.Error is swell.exception.Error
    assert (str(error), error.code, error.request) == ("words", "home_in_use", "")
    assert f"{swell.Error.__module__}.{swell.Error.__qualname__}" == "swell.Error"


def test_a_subclass_of_users_is_what_they_made() -> None:
    class Own(swell.exception.InvalidError):
        def __init__(self) -> None:
            super().__init__("unknown_app", "words")

    assert type(Own()) is Own


class Plain(swell.Error):
    """Made as any exception is."""


class Detailed(swell.exception.InvalidError):
    def __init__(self, place: str, *, line: int) -> None:
        super().__init__(f"{place}:{line}")
        self.line = line


class Silent(swell.exception.TimeoutError):
    def __init__(self, place: str) -> None:
        self.place = place


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (swell.Error("mine"), "mine"),
        (swell.Error("deadline"), "deadline"),
        (swell.exception.InvalidError("x"), "x"),
        (swell.exception.TimeoutError("x"), "x"),
        (Plain("x"), "x"),
        (Plain(), ""),
        (Detailed("here", line=3), "here:3"),
        (Silent("there"), "there"),
    ],
)
def test_an_error_of_users_is_made_as_any_exception_and_travels(error: swell.Error, said: str) -> None:
    answer = protocol.Answer(500, {}, exception_body(error, "q1", pickled=True))
    for each in (error, pickle.loads(pickle.dumps(error)), protocol.failure(answer)):
        assert type(each) is type(error)
        assert str(each) == said
        assert isinstance(each, swell.Error)
        assert (each.code, each.status) == ("", 400)
        assert {**vars(each), "__notes__": None} == {**vars(error), "__notes__": None}


def raised_by(folder: Path) -> Iterator[str]:
    """Codes of the errors that are made in the source there."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "SwellError":
                yield from (each.value for each in node.args[:1] if isinstance(each, ast.Constant))


def test_each_code_that_users_can_meet_is_of_one_kind() -> None:
    known = [code for codes in CODES.values() for code in codes]
    assert len(known) == len(set(known))
    tables = re.findall(r"<!-- errors: .*?<!-- end of errors -->", (ROOT / "docs/wire.md").read_text(), re.DOTALL)
    rows = [row.split("|") for table in tables for row in table.splitlines() if row.startswith("|")]
    told = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row[2])}
    assert len(told) > 40
    assert told - NEVER_MET - set(known) == set()
    assert set(raised_by(ROOT / "src/swell/sdk")) - set(known) == set()


def test_a_name_without_a_meaning_says_what_to_catch() -> None:
    with pytest.raises(AttributeError, match=r"no swell\.exception\.SandboxTimeoutError: .*catch UnimplementedError"):
        swell.exception.SandboxTimeoutError  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no attribute 'Typo'"):
        swell.exception.Typo  # type: ignore[attr-defined]
    for why in swell.exception.ABSENT.values():
        for name in re.findall(r"\b[A-Z]\w+(?:Error|Failure)\b", why):
            assert name in swell.exception.__all__


def test_a_result_whose_class_is_not_here_is_told_as_that() -> None:
    answer = protocol.Answer(200, {"content-type": http.PICKLE}, b"cnowhere_at_all\nLost\n.")
    with pytest.raises(modal.exception.DeserializationError, match="No module named 'nowhere_at_all'"):
        protocol.result(answer, "a/f")


@pytest.mark.parametrize(
    "way", ["f.remote(1)", "list(f.map([1]))", "list(f.remote_gen(1))", "asyncio.run(f.remote.aio(1))"]
)
def test_without_a_server_only_the_users_lines_are_printed(tmp_path: Path, way: str) -> None:
    place = tmp_path / "program.py"
    place.write_text(f"import asyncio, swell\nf = swell.Function.from_name('a', 'f')\n{way}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = subprocess.run(
        [sys.executable, place], env={"SWELL_URL": url, "SWELL_KEY": "k"}, capture_output=True, text=True, timeout=60
    )
    files = re.findall(r'File "(.*?)", line', done.stderr)
    users = [file for file in files if not file.endswith(("asyncio/runners.py", "asyncio/base_events.py"))]
    assert users == [str(place)], done.stderr
    assert done.stderr.splitlines()[-1].startswith("swell.exception.ConnectionError: No Swell server at")
