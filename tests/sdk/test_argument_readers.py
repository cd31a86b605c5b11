"""Does what arguments set have an effect beyond the SDK: which module reads it, or is it the caller's own doing?"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

import swell
from sdk import deployable
from sdk.server import KEY, Server, serving
from sdk.test_arguments import FIELD
from swell.model.resources import Needs
from swell.model.workload import App, Entry, Environment, Method, Revision, Scaling, Web, Workload
from swell.sdk import arguments


def test_every_field_an_argument_sets_has_a_reader() -> None:
    effects = [text for names in arguments.EFFECTS.values() for text in names.values()]
    named = {field for text in effects if not text.startswith(arguments.CALLER) for field in FIELD.findall(text)}
    assert named == set(arguments.READERS)
    models = {
        kind.__name__: kind for kind in (App, Workload, Revision, Scaling, Needs, Environment, Entry, Method, Web)
    }
    for kind, _, field in (name.partition(".") for name in named):
        assert field in models[kind].__struct_fields__


@pytest.mark.parametrize(("field", "reader"), arguments.READERS.items())
def test_what_an_argument_sets_is_read_by_the_platform(field: str, reader: str) -> None:
    module, _, attribute = reader.partition(":")
    assert attribute == field.partition(".")[2]
    assert module.split(".")[1] in ("model", "decide", "control", "gateway", "runtime")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    nodes = ast.walk(ast.parse(Path(spec.origin).read_text()))
    reads = [n for n in nodes if isinstance(n, ast.Attribute) and n.attr == attribute and isinstance(n.ctx, ast.Load)]
    # Read of a thing that is called what the field belongs to: any other's `name` or `cpu` is not this one.
    kind = field.partition(".")[0].lower()
    assert {kind, kind[0]} & {ast.unparse(read.value).rpartition(".")[2] for read in reads}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving({}) as state:
        monkeypatch.setenv("SWELL_URL", state.url)
        monkeypatch.setenv("SWELL_KEY", KEY)
        yield state


def test_retries_are_the_callers(server: Server) -> None:
    app = swell.App("a")
    flaky = app.function(retries=swell.Retries(max_retries=2, initial_delay=0.0))(deployable.plain)
    tries = []

    def fail() -> None:
        tries.append(1)
        raise LookupError(len(tries))

    server.functions["plain"] = fail
    with app.run(), pytest.raises(LookupError, match="3"):
        flaky.remote()


def test_is_generator_decides_how_it_is_called(server: Server) -> None:
    def plain(n: int) -> Iterator[int]:
        return deployable.numbers(n)

    plain.__qualname__, plain.__module__ = "plain", deployable.__name__
    app = swell.App("a")
    function = app.function(is_generator=True)(plain)
    server.functions["plain"] = deployable.numbers
    with app.run():
        assert list(function.remote_gen(2)) == [0, 1]
        with pytest.raises(swell.Error, match=r"a generator: use \.remote_gen"):
            function.remote(2)
