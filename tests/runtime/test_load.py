"""Loading a bundle's entry point, and what is said when that fails."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swell.model.environment import Environment
from swell.model.errors import SwellError
from swell.model.workload import Entry, Method, Revision
from swell.runtime.load import Program, load
from swell.wire.context import Inside, inside


@pytest.fixture(autouse=True)
def _same_modules() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if "loaded_" in name or name == "queue_":
            del sys.modules[name]


def _load(folder: Path, source: str, entry: Entry, snap: bool = False) -> Program:
    (folder / f"{entry.module}.py").write_text(source)
    return load(Revision(Environment(sys.executable, "3.11"), "bundle", entry), str(folder), snap)


def _error(folder: Path, source: str, entry: Entry, snap: bool = False) -> SwellError:
    with pytest.raises(SwellError) as raised:
        _load(folder, source, entry, snap)
    return raised.value


def _function(name: str, module: str = "loaded_a") -> Entry:
    return Entry(module, name, "function", (Method(name),))


def test_a_function_and_what_a_decorator_made_of_one(tmp_path: Path) -> None:
    source = """
def plain(): return 1
class Handle:
    def __init__(self, raw): self.__swell_raw__ = raw
@Handle
def wrapped(): return 2
"""
    assert _load(tmp_path, source, _function("plain")).method("plain")() == 1
    assert _load(tmp_path, source, _function("wrapped")).method("wrapped")() == 2


def test_a_class_is_made_once_and_its_hooks_run_in_order(tmp_path: Path) -> None:
    source = """
class Mark:
    def __init__(self, raw): self.__swell_raw__ = raw
class Thing:
    def __init__(self): self.ran = []
    def snap(self): self.ran.append("snap")
    async def snap_async(self): self.ran.append("snap_async")
    def enter(self): self.ran.append("enter")
    def leave(self): self.ran.append("leave")
    def method(self): return self.ran
    marked = Mark(method)
"""
    entry = Entry(
        "loaded_b",
        "Thing",
        "cls",
        (Method("method"), Method("marked")),
        enter_snap=("snap", "snap_async"),
        enter=("enter",),
        exit=("leave",),
    )
    program = _load(tmp_path, source, entry, snap=True)
    assert program.method("method")() == ["snap", "snap_async"]
    assert program.snapped
    for hook in [*program.enter(snap_done=True), *program.exit()]:
        hook()
    assert program.method("marked")() == ["snap", "snap_async", "enter", "leave"]
    cold = _load(tmp_path, source, entry)
    for hook in cold.enter(snap_done=False):
        result: Any = hook()
        if result is not None:
            asyncio.run(result)
    assert cold.method("method")() == ["snap", "snap_async", "enter"]


def test_an_import_that_raises_shows_the_users_part_of_the_traceback(tmp_path: Path) -> None:
    error = _error(tmp_path, "def helper():\n    import nothing_like_it\nhelper()\n", _function("f", "loaded_c"))
    assert error.code == "import_error"
    assert "ModuleNotFoundError: No module named 'nothing_like_it'" in error.message
    assert 'loaded_c.py", line 3' in error.detail
    assert "importlib" not in error.detail
    assert "swell/runtime" not in error.detail


@pytest.mark.parametrize("source", ["def f(:\n", "import sys\nsys.exit(4)\n"])
def test_a_module_that_cannot_even_run_is_an_import_error(tmp_path: Path, source: str) -> None:
    assert _error(tmp_path, source, _function("f", "loaded_d")).code == "import_error"


@pytest.fixture
def within() -> Iterator[Inside]:
    """This process is a replica of default/a."""
    inside[:] = [Inside("default/a", "r1-1", "http://127.0.0.1:1", "key", "f")]
    yield inside[0]
    inside.clear()


CALLS = "import swell\napp = swell.App('a')\n@app.function()\ndef f(x=1): return x\n"


@pytest.mark.parametrize("call", ["f.remote()", "swell.Function.from_name('a', 'f').remote()", "list(f.map([1]))"])
def test_a_module_that_calls_its_own_app_in_a_replica_is_refused_at_once(
    within: Inside, tmp_path: Path, call: str
) -> None:
    error = _error(tmp_path, f"{CALLS}{call}\n", _function("f", "loaded_own"))
    assert error.code == "import_error"
    assert "Nothing of a can be called while its module is imported in a replica" in error.message
    assert inside == [within]


def test_a_module_may_call_another_app_in_a_replica(within: Inside, tmp_path: Path) -> None:
    other = "swell.Function.from_name('other', 'f').remote()"
    # Nobody listens there.
    error = _error(tmp_path, f"{CALLS}{other}\n", _function("f", "loaded_other"))
    assert "127.0.0.1:1" in error.message


def test_a_long_message_is_cut_in_ours_and_whole_in_the_traceback(tmp_path: Path) -> None:
    error = _error(tmp_path, "raise ValueError('x' * 200_000 + '\\nmore')", _function("f"))
    assert len(error.message) < 500
    assert error.message.endswith("xx…")
    assert error.detail.rstrip().endswith("xx\nmore")


def test_a_name_that_is_not_there_names_near_ones(tmp_path: Path) -> None:
    error = _error(tmp_path, "def predict(): pass\n", _function("predit", "loaded_e"))
    assert error.code == "bad_entry"
    assert "predict" in error.message


@pytest.mark.parametrize(
    ("source", "kind"), [("thing = 5", "function"), ("def thing(): pass", "cls"), ("class thing: pass", "method")]
)
def test_an_entry_of_the_wrong_kind_is_refused(tmp_path: Path, source: str, kind: str) -> None:
    if kind == "method":
        entry = Entry("loaded_f", "thing", "cls", (Method("absent"),))
    else:
        entry = Entry("loaded_f", "thing", kind, (Method("thing"),))  # type: ignore[arg-type]
    assert _error(tmp_path, source, entry).code == "bad_entry"
    sys.modules.pop("loaded_f", None)


def test_a_file_named_like_a_module_python_has_loaded_is_refused(tmp_path: Path) -> None:
    error = _error(tmp_path, "def f(): pass\n", _function("f", "queue"))
    assert error.code == "bad_entry"
    assert "rename" in error.message


CANCELLED = "from asyncio import CancelledError\n"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("class Thing:\n    def __init__(self): raise OSError('no weights')", "__init__ raised"),
        ("class Thing:\n    def snap(self): raise OSError('no weights')", "snap raised"),
        ("class Thing:\n    async def snap(self): raise OSError('no weights')", "snap raised"),
        ("class Thing:\n    def __init__(self): raise SystemExit('no weights')", "__init__ raised"),
        ("class Thing:\n    def snap(self): raise SystemExit('no weights')", "snap raised"),
        ("class Thing:\n    async def snap(self): raise SystemExit('no weights')", "snap raised"),
        (f"{CANCELLED}class Thing:\n    def snap(self): raise CancelledError('no weights')", "snap raised"),
        (f"{CANCELLED}class Thing:\n    async def snap(self): raise CancelledError('no weights')", "snap raised"),
    ],
)
def test_an_instance_that_cannot_be_made_is_an_enter_error(tmp_path: Path, source: str, says: str) -> None:
    entry = Entry("loaded_g", "Thing", "cls", (), enter_snap=("snap",))
    error = _error(tmp_path, source, entry, snap=True)
    assert error.code == "enter_error"
    assert says in error.message
    assert "no weights" in error.detail
    sys.modules.pop("loaded_g", None)
