"""What does a class with parameters say of itself, and how do its objects behave here, before anything is deployed?"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

import swell
from sdk import deployable
from swell.model.variant import Parameter
from swell.model.workload import App, Batch, Options
from swell.sdk import chosen, describe, run


class Base:
    name: str = swell.parameter()
    size: int = swell.parameter(default=3)
    made: str = swell.parameter(init=False, default="nothing")

    @swell.enter()
    def begin(self) -> None:
        self.made = f"{self.name}/{self.size}"

    @swell.method()
    def told(self, more: str = "") -> str:
        return f"{self.made}{more}"


class Model(Base):
    size: bytes = swell.parameter(default=b"")  # type: ignore[assignment]
    made = "own"


def cls(raw: Any = Base, **given: Any) -> swell.Cls:
    made = swell.App("a").cls(**given)(raw)
    assert isinstance(made, swell.Cls)
    return made


def described(raw: type[Any], **given: Any) -> App:
    app = swell.App("a")
    app.cls(**given)(raw)
    return run.prepare(app, describe.Place("a", "default", {})).app


def test_parameters_are_those_of_the_class_and_its_bases_the_last_word_counts() -> None:
    assert cls().parameters == (Parameter("name", "str"), Parameter("size", "int", "3"))
    assert cls(Model).parameters == (Parameter("name", "str"), Parameter("size", "bytes", ""))
    assert described(Base).revisions[0].entry.parameters == cls().parameters


def test_an_object_here_has_them_before_its_hooks_run() -> None:
    one, two = cls()(name="a"), cls()(name="b", size=5)
    assert (one.told.local(), two.told.local("!"), two.size) == ("a/3", "b/5!", 5)
    assert Base.name is not None
    with pytest.raises(AttributeError, match="the parameter name has no default, and was not given"):
        _ = Base().name
    assert Base().made == "nothing"


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({}, "missing_parameter", "Base needs name"),
        ({"name": "a", "sise": 1}, "unknown_parameter", r"Base has no parameter 'sise'. Did you mean size"),
        ({"name": 1}, "bad_parameter", "name is of type str, and 1 is of type int"),
        ({"name": "a", "size": True}, "bad_parameter", "size is of type int, and True is of type bool"),
        ({"name": "a", "made": "x"}, "unknown_parameter", "no parameter 'made'"),
        ({"name": "x" * 20_000}, "bad_parameter", "16384 is the most"),
        ({"name": "\udcff"}, "bad_parameter", "give bytes"),
    ],
)
def test_what_does_not_fit_is_said_where_it_is_written(given: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(swell.exception.InvalidError, match=words) as refused:
        cls()(**given)
    assert refused.value.code == code


def test_of_a_class_found_by_its_name_only_the_type_is_known() -> None:
    found = swell.Cls.from_name("a", "Model")
    for value in (1.5, None, [1]):
        with pytest.raises(swell.exception.InvalidError, match="parameters are str, int, bool or bytes"):
            found(name=value)
    with pytest.raises(swell.exception.InvalidError, match="takes its parameters by name"):
        found("x")
    assert repr(found(name="x", size=1)) == '<swell.Obj Model(name="x", size=1)>'


def classes() -> dict[str, tuple[Callable[[], Any], dict[str, Any], str]]:
    method = swell.method()(lambda self: 1)

    def made(hint: Any, **more: Any) -> Callable[[], Any]:
        given = {"default": more.pop("default")} if "default" in more else {}
        members = {"x": swell.parameter(**given), "__annotations__": {"x": hint} if hint else {}, "m": method, **more}
        return lambda: type("Made", (), {**members, "__module__": deployable.__name__})

    return {
        "float": (made(float), {}, "the parameter x is annotated float: write x: str"),
        "none": (made(None), {}, "the parameter x has no annotation"),
        "text": (made("Path"), {}, "is annotated Path"),
        "default": (made(str, default=3), {}, "has a default that is none: x is of type str, and 3 is of type int"),
        "init": (made(str, __init__=lambda self: None), {}, "has parameters and an __init__: do in @swell.enter"),
        "kept": (made(str), {"min_containers": 2}, r"Made\(x=…\).update_autoscaler\(min_containers=2\)"),
        "model": (
            made(str, m=swell.openai("embeddings", model="m")(swell.method()(lambda self, input: [1.0]))),
            {},
            "m is a model, whose clients cannot give x",
        ),
    }


@pytest.mark.parametrize("which", classes())
def test_a_class_that_cannot_be_is_refused_with_the_way_out(which: str) -> None:
    raw, given, words = classes()[which]
    with pytest.raises(swell.exception.InvalidError, match=words):
        described(raw(), **given)


def test_what_stands_in_text_is_looked_up() -> None:
    def of(hint: str) -> tuple[Parameter, ...]:
        return cls(type("Made", (), {"x": swell.parameter(), "__annotations__": {"x": hint}})).parameters

    assert of("bool") == of("'bool'") == (Parameter("x", "bool"),)


# -- options -------------------------------------------------------------------------------------


def test_options_are_stacked_and_the_last_word_counts() -> None:
    model = cls().with_options(cpu=(1, 2), env={"A": "1"}, timeout=3).with_concurrency(max_inputs=4, target_inputs=2)
    model = (
        model.with_options(cpu=3, env={"B": "2"})
        .with_concurrency(max_inputs=9)
        .with_batching(max_batch_size=2, wait_ms=5)
    )
    assert model._chosen.options == Options(
        cpu=3.0, variables=(("A", "1"), ("B", "2")), timeout_s=3.0, max_inputs=9, batch=Batch(2, 5)
    )
    assert cls()._chosen is chosen.NOTHING
    assert model(name="x").told.local() == "x/3"


def test_a_method_has_no_options_of_its_own() -> None:
    method = cls()(name="x").told
    with pytest.raises(swell.exception.InvalidError, match=r"write Base\.with_options\(…\)\(\)\.told"):
        method.with_options(cpu=1)
    with pytest.raises(swell.exception.InvalidError, match=r"Base\(\)\.update_autoscaler"):
        method.update_autoscaler(min_containers=1)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda c: c.with_options(cpu=-1), r"with_options\(cpu=-1\): give cores above 0"),
        (lambda c: c.with_options(timeout=0), "give seconds above 0"),
        (lambda c: c.with_options(timeout_max=0), "give seconds above 0"),
        (lambda c: c.with_options(max_containers=0), "a whole number of at least 1"),
        (lambda c: c.with_options(secrets=["x"]), "give swell.Secret objects"),
        (lambda c: c.with_options(min_containers=1), "there is no such argument"),
        (lambda c: c.with_options(image=swell.Image()), "there is no such argument"),
        (lambda c: c.with_concurrency(max_inputs=2, target_inputs=3), "from 1 to 2"),
        (lambda c: c.with_batching(max_batch_size=0, wait_ms=1), "from 1 to 1000"),
    ],
)
def test_an_option_that_cannot_be_is_refused_where_it_is_written(use: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(swell.Error, match=words):
        use(cls())


def test_a_function_with_parameters_can_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWELL_URL", "http://127.0.0.1:1")
    found = swell.Cls.from_name("a", "Model").with_options(cpu=1)(name="x").told
    again = pickle.loads(pickle.dumps(found))
    assert again._chosen == found._chosen
    assert again._chosen.query == "?name=x"
