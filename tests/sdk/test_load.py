"""Does `file.py::name` find what is meant, or say why not?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import swell
from swell.sdk import load

ONE = """
import swell
app = swell.App("one")

@app.function()
def double(x: int) -> int:
    return 2 * x

@app.cls()
class Model:
    @swell.method()
    def go(self) -> int:
        return 1
"""
ENTRY = ONE + "\n@app.local_entrypoint()\ndef main(): return 'ran'\n"
TWO = """
import swell
app, other = swell.App("one"), swell.App("two")

@app.function()
def f(): return 1

@other.function(name="f")
def g(): return 2
"""


@pytest.fixture(autouse=True)
def own_imports() -> Iterator[None]:
    """Each test imports its own files: what it loaded and where it looked is forgotten afterwards."""
    path, modules = sys.path[:], set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if not name.startswith("swell"):
            del sys.modules[name]


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_the_only_app_of_a_file(tmp_path: Path) -> None:
    place = write(tmp_path, "alone.py", ONE)
    app = load.app(place)
    assert app.name == "one"
    assert app is load.app(place + "::app") is load.app(place + "::one")
    assert list(app.registered_functions) == ["double"]
    assert app.registered_functions["double"].__module__ == "alone"


def test_what_to_run(tmp_path: Path) -> None:
    place = write(tmp_path, "entry.py", ENTRY)
    main = load.target(place)
    assert (main.name, main.run()) == ("main", "ran")
    assert load.target(place + "::double").run(4) == 8
    assert load.target(place + "::app.double").run(4) == 8
    method = load.target(place + "::Model.go")
    assert (method.run(), method.is_method) == (1, True)
    with pytest.raises(swell.Error, match=r"There is no 'triple' to run in .*There is: Model\.go, double, main"):
        load.target(place + "::triple")
    with pytest.raises(swell.Error, match="no 'triple'"):
        load.target(place + "::app.triple")


def test_a_file_with_several_functions_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(swell.Error, match=r"Which one\? Write .*::Model\.go; there is: Model\.go, double"):
        load.target(write(tmp_path, "several.py", ONE))


def test_several_apps_have_to_be_named(tmp_path: Path) -> None:
    place = write(tmp_path, "pair.py", TWO)
    with pytest.raises(swell.Error, match=r"several apps in .*: name one, like .*::app \(app, other\)"):
        load.app(place)
    assert load.app(place + "::other").name == "two"
    assert load.app(place + "::two").name == "two"
    assert load.target(place + "::other.f").run() == 2
    with pytest.raises(swell.Error, match=r"Several apps in .* have 'f': write .*::APP\.f"):
        load.target(place + "::f")
    with pytest.raises(swell.Error, match="no app 'third'"):
        load.app(place + "::third")


def test_a_file_in_a_package_is_imported_as_part_of_it(tmp_path: Path) -> None:
    write(tmp_path, "parcel/__init__.py", "")
    write(tmp_path, "parcel/part.py", "WORD = 'relative'")
    place = write(tmp_path, "parcel/entry.py", ENTRY.replace("import swell", "import swell\nfrom .part import WORD", 1))
    assert load.target(place + "::double").run.__module__ == "parcel.entry"


def test_a_module_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "bundled/inside.py", ENTRY)
    monkeypatch.chdir(tmp_path)
    assert load.target("bundled.inside::double").run(1) == 2


@pytest.mark.parametrize(
    ("reference", "code"),
    [("nowhere.py", "no_such_file"), ("no where", "no_such_file"), ("nowhere_at_all", "no_such_module")],
)
def test_what_is_not_there(reference: str, code: str) -> None:
    with pytest.raises(swell.Error) as raised:
        load.app(reference)
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("plain.py", "x = 1", "no_app"),
        ("empty.py", "import swell\napp = swell.App('a')", "empty_app"),
        ("my-file.py", ONE, "bad_file_name"),
        ("json.py", ONE, "bad_file_name"),
        ("uses_volumes.py", "import swell\nv = swell.Volume.from_name('x')", "not_available"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, name: str, text: str, code: str) -> None:
    place = write(tmp_path, name, text)
    with pytest.raises(swell.Error) as raised:
        load.target(place)
    assert raised.value.code == code


def test_a_file_that_raises_shows_the_users_own_traceback(tmp_path: Path) -> None:
    place = write(tmp_path, "broken.py", "def f():\n    return 1 / 0\nf()\n")
    with pytest.raises(swell.Error, match=r"Importing .*broken\.py raised ZeroDivisionError") as raised:
        load.app(place)
    assert raised.value.code == "import"
    assert f'File "{place}", line 2, in f' in raised.value.detail
    assert "importlib" not in raised.value.detail
    assert "load.py" not in raised.value.detail
    syntax = write(tmp_path, "unfinished.py", "def f(:\n")
    with pytest.raises(swell.Error, match="SyntaxError") as raised:
        load.app(syntax)
    assert "def f(:" in raised.value.detail
