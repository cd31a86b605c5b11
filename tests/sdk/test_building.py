"""Is a function that builds an environment another one exactly when something that it depends on is?"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import swell
from sdk import deployable, kitchen
from swell.model.environment import BuildCall
from swell.model.workload import Revision
from swell.sdk import describe, run
from swell.sdk.building import content

KITCHEN = Path(kitchen.__file__).read_text()


def prepared(image: swell.Image, **given: Any) -> Revision:
    app = swell.App("a")
    app.function(image=image, **given)(deployable.plain)
    (revision,) = run.prepare(app, describe.Place("a", "staging", {})).app.revisions
    return revision


def calls(image: swell.Image) -> tuple[BuildCall, ...]:
    return prepared(image).environment.build_calls


def slim() -> swell.Image:
    return swell.Image.debian_slim()


def module(folder: Path, text: str) -> ModuleType:
    """The kitchen, in other words."""
    path = folder / f"kitchen{len(list(folder.iterdir()))}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = found
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("SIZE = 3", "SIZE = 4"),
        ('("a", "b")', '("a", "c")'),
        ("return SIZE", "return -SIZE"),
        ("lid = True", "lid = False"),
        ("json.dumps([", "json.dumps(['x', "),
    ],
)
def test_what_it_depends_on_makes_it_another(tmp_path: Path, before: str, after: str) -> None:
    assert before in KITCHEN
    assert content(module(tmp_path, KITCHEN.replace(before, after)).cook) != content(kitchen.cook)


def test_what_it_does_not_name_leaves_it_as_it_is(tmp_path: Path) -> None:
    changed = KITCHEN.replace("def unrelated() -> None:\n    pass", "def unrelated() -> int:\n    return 2")
    assert changed != KITCHEN
    assert content(module(tmp_path, changed).cook) == content(kitchen.cook)


def test_a_function_that_names_itself_or_two_that_name_each_other_have_an_end(tmp_path: Path) -> None:
    text = "def a(): return b()\n\ndef b(): return a() or b()\n"
    assert content(module(tmp_path, text).a) != content(module(tmp_path, text).b)


@pytest.mark.shows("Image.run_function", "args", "kwargs", "env", "secrets", "timeout", "include_source")
def test_all_that_it_is_given_travels() -> None:
    db = swell.Secret.from_name("db")
    image = (
        slim()
        .env({"A": "1", "B": "1"})
        .run_function(kitchen.cook, kwargs={"times": 2}, env={"B": "2", "C": None}, secrets=[db], timeout=7)
    )
    (call,) = calls(image.env({"D": "4"}))
    assert (call.module, call.qualname, call.timeout_s) == ("kitchen", "cook", 7.0)
    assert call.variables == (("A", "1"), ("B", "2"))
    assert [use.key for use in call.secrets] == [("staging", "db")]
    assert calls(slim().run_function(kitchen.cook)) != calls(slim().run_function(kitchen.cook, args=(1,)))
    revision = prepared(image)
    assert revision.secrets == ()
    assert [use.key for use in revision.secret_uses] == [("staging", "db")]
    left_out = slim().run_function(kitchen.cook, include_source=False)
    assert prepared(left_out).bundle != prepared(slim().run_function(kitchen.cook)).bundle == prepared(image).bundle


def test_secrets_that_are_brought_along_get_their_name_in_the_build_too() -> None:
    app = swell.App("a", image=slim().run_function(kitchen.cook, secrets=[swell.Secret.from_dict({"TOKEN": "t"})]))
    app.function()(deployable.plain)
    found = run.prepare(app, describe.Place("a", "default", {}))
    (name,) = found.brought
    (revision,) = describe.with_secret_names(found.app, {name: "app:a:1"}).revisions
    assert [use.name for use in revision.secret_uses] == ["app:a:1"]


def test_an_environment_without_it_is_named_and_identified_as_before() -> None:
    assert not prepared(slim()).environment.is_built
    assert prepared(slim().run_function(kitchen.simmer)).environment.is_built
    assert prepared(slim()).id != prepared(slim().run_function(kitchen.simmer)).id


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda: slim().run_function(3), r"run_function\(3\): give a function of the source"),
        (lambda: slim().run_function(swell.App("a").function()(kitchen.cook)), "give a plain function, without @app"),
        (lambda: slim().run_function(lambda: None), "at the top level of its file"),
        (lambda: slim().run_function(kitchen.pieces), "and no generator"),
        (lambda: slim().run_function(kitchen.cook, timeout=0), r"timeout=0\): seconds above 0"),
        (lambda: slim().run_function(kitchen.cook, args="ab"), r"args='ab'\): give a list or a tuple"),
        (lambda: slim().run_function(kitchen.cook, kwargs=[1]), r"kwargs=\[1\]\): give a dictionary"),
        (lambda: slim().run_function(kitchen.cook, args=[1, 2]), "its arguments do not fit: too many positional"),
        (lambda: slim().run_function(kitchen.cook, secrets=["db"]), "give swell.Secret objects"),
        (lambda: slim().run_function(kitchen.cook, env={"A": 1}), r"run_function\(env=…\): 'A' and its value"),
        (lambda: calls(slim().run_function(kitchen.cook, args=[lambda: 1])), "its arguments cannot be sent"),
    ],
)
def test_what_cannot_be_run_is_refused(use: Callable[[], Any], says: str) -> None:
    with pytest.raises(swell.Error, match=says):
        use()
