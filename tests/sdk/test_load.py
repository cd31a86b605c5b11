"""Does `file.py::name` find what is meant, or say why not?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import swell
from swell.sdk import describe, load, run

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
WITH_IMAGE = """import swell
i = (
    swell.Image.debian_slim()
    {}
)
app = swell.App('a', image=i)
@app.function()
def f(): pass
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
    with pytest.raises(swell.Error, match=r"There is no 'triple' to run in .*Choose from: Model\.go, double, main"):
        load.target(place + "::triple")
    with pytest.raises(swell.Error, match="no 'triple'"):
        load.target(place + "::app.triple")


def test_a_file_with_several_functions_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(swell.Error, match=r"Which one\? Write .*::Model\.go; choose from: Model\.go, double"):
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
        ("gc.py", ONE, "bad_file_name"),
        ("uses_shares.py", "import swell\nv = swell.NetworkFileSystem.from_name('x')", "not_available"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, name: str, text: str, code: str) -> None:
    place = write(tmp_path, name, text)
    with pytest.raises(swell.Error) as raised:
        load.target(place)
    assert raised.value.code == code


@pytest.mark.parametrize("name", ["gc", "email", "json"])
def test_a_file_with_the_name_of_a_module_of_pythons_is_told_exactly_that(tmp_path: Path, name: str) -> None:
    place = write(tmp_path, f"{name}.py", ONE)
    said = rf"{name}\.py has the name of Python's own module '{name}'.*rename it, to my_{name}\.py for example"
    with pytest.raises(swell.exception.InvalidError, match=said):
        load.target(place)
    packed = write(tmp_path, f"{name}/__init__.py", ""), write(tmp_path, f"{name}/entry.py", ONE)
    with pytest.raises(swell.exception.InvalidError, match=rf"'{name}'.*rename it, to my_{name} for example"):
        load.target(packed[1])


@pytest.mark.parametrize("name", ["email", "queue", "json"])
def test_a_program_in_the_place_of_a_module_of_pythons_is_told_exactly_that(tmp_path: Path, name: str) -> None:
    place = write(tmp_path, f"{name}.py", "import swell\nswell.Function.from_name('a', 'f').remote()\n")
    done = subprocess.run(
        [sys.executable, place], env={"SWELL_URL": "http://127.0.0.1:9"}, capture_output=True, text=True, timeout=60
    )
    assert f"{place} has the name of Python's own module '{name}'" in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.parametrize("name", ["email", "queue"])
def test_a_file_beside_the_program_in_the_place_of_a_module_of_pythons_is_named(tmp_path: Path, name: str) -> None:
    beside = write(tmp_path, f"{name}.py", "x = 1\n")
    place = write(tmp_path, "program.py", "import swell\nswell.Function.from_name('a', 'f').remote()\n")
    done = subprocess.run(
        [sys.executable, place], env={"SWELL_URL": "http://127.0.0.1:9"}, capture_output=True, text=True, timeout=60
    )
    assert f"{beside} has the name of Python's own module '{name}'" in done.stderr.splitlines()[-1], done.stderr


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


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("swell.Functin", "Did you mean Function?"),
        ("swell.Image.pip_instal", "Did you mean pip_install?"),
        ("swell.Image().pip_instal", "Did you mean pip_install?"),
        ("swell.xyzzy", "no attribute 'xyzzy'"),
    ],
)
def test_a_misspelt_name_is_told_with_the_one_that_was_meant(tmp_path: Path, line: str, meant: str) -> None:
    with pytest.raises(swell.Error) as raised:
        load.app(write(tmp_path, "misspelt.py", f"import swell\n{line}\n"))
    assert raised.value.message.endswith(meant)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import swell\n\nv = swell.NetworkFileSystem.from_name('x')\n", 3),
        ("import swell\nstub = swell.Stub('x')\n", 2),
        ("import swell\ni = (\n    swell.Image.debian_slim()\n    .publish('x')\n)\n", 4),
        ("import swell\n@swell.web_server(port='x')\ndef f(): pass\n", 2),
        ("import swell\n@swell.App('a').function(timout=1)\ndef f(): pass\n", 2),
    ],
)
def test_a_refusal_while_importing_shows_the_users_line_alone(tmp_path: Path, text: str, line: int) -> None:
    place = write(tmp_path, "refused.py", text)
    with pytest.raises(swell.Error) as raised:
        load.app(place)
    first, *rest = raised.value.detail.splitlines()
    assert first == f'  File "{place}", line {line}, in <module>'
    assert rest[0].strip() == text.splitlines()[line - 1].strip()
    assert "Traceback" not in raised.value.detail
    assert "Error" not in raised.value.detail


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import swell\napp = swell.App('a')\n@app.function(region='eu')\ndef f(): pass\n", 3),
        ("import swell\napp = swell.App('a')\n@app.function(\n    timeout=-1,\n)\ndef f(): pass\n", 3),
        (
            "import swell\ni = swell.Image().pip_install('x', gpu='T4')\n"
            "app = swell.App('a', image=i)\n@app.function()\ndef f(): pass\n",
            2,
        ),
        ("import swell\napp = swell.App('a')\n@app.cls()\nclass A: pass\n", 3),
        (WITH_IMAGE.format(".add_local_file('nowhere.txt', 'x')"), 4),
        (WITH_IMAGE.format(".add_local_dir('nowhere', 'x')"), 4),
        (WITH_IMAGE.format(".add_local_python_source('nowhere')"), 4),
        (WITH_IMAGE.format(".uv_pip_install(requirements=['nowhere.txt'])"), 4),
    ],
)
def test_a_refusal_at_deploy_shows_the_line_that_asked_for_it(tmp_path: Path, text: str, line: int) -> None:
    place = write(tmp_path, "refused_later.py", text)
    with pytest.raises(swell.Error) as raised:
        run.prepare(load.app(place), describe.Place("a", "default", {}))
    assert raised.value.detail.splitlines()[0] == f'  File "{place}", line {line}, in <module>'
    assert raised.value.__notes__ == [raised.value.detail]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import swell\nv = swell.Proxy.from_name('x')\n", "    v = swell.Proxy.from_name('x')"),
        (
            "import swell\napp = swell.App('a')\n@app.function(keep_warm=1)\ndef f(): pass\n",
            "    @app.function(keep_warm=1)",
        ),
        ("import swell\napp = swell.App('a')\n@app.function()\ndef f(): pass\nf.remote()\n", "    f.remote()"),
        (
            "import swell\nswell.Function.from_name('a', 'f', client=1)\n",
            "    swell.Function.from_name('a', 'f', client=1)",
        ),
    ],
)
def test_a_plain_program_ends_in_the_users_line_and_the_message(tmp_path: Path, text: str, line: str) -> None:
    place = write(tmp_path, "plainly.py", text)
    done = subprocess.run([sys.executable, place], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert line in done.stderr.splitlines()
    assert "swell.exception." in done.stderr
    assert "/sdk/" not in done.stderr
