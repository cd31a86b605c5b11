"""Is what @openai declares kept, and what could not be served refused where it is deployed?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import swell
from swell.model.openai import Offer
from swell.model.workload import Owner
from swell.sdk import describe, marks

FUNCTION = marks.Given("App.function", {"is_generator": None, "single_use_containers": False})
chat = swell.openai("chat.completions", model="tiny")


def test_it_is_noted_and_the_function_stays_what_it_was() -> None:
    def answer(messages: Any) -> str:
        return "yes"

    assert chat(answer) is answer
    assert marks.of(answer).openai == Offer("chat.completions", "tiny")


@pytest.mark.parametrize(
    ("api", "model", "words"),
    [
        ("chat", "m", "there are 'chat.completions', 'completions', 'embeddings'"),
        ("/v1/chat/completions", "m", "write 'chat.completions'"),
        ("embeddings", "", "tiny-chat"),
        ("embeddings", "a b", "without spaces"),
        ("embeddings", "é", "ASCII"),
        ("embeddings", "x" * 201, "201 characters"),
        ("embeddings", 3, "tiny-chat"),
    ],
)
def test_what_is_no_offer_is_refused(api: str, model: Any, words: str) -> None:
    with pytest.raises(swell.Error) as raised:
        swell.openai(api, model=model)
    assert (raised.value.code, words in raised.value.message) == ("bad_argument", True)


def test_a_method_is_one_model() -> None:
    with pytest.raises(swell.Error, match="twice"):
        chat(swell.openai("completions", model="tiny")(lambda messages: ""))


def answers(messages: Any, top_p: float = 1.0) -> str: ...
def any_field(**fields: Any) -> str: ...
def of_nothing() -> str: ...
def of_more(messages: Any, size: int) -> str: ...
def vectors(input: Any) -> Iterator[Any]:
    yield input


def checked(function: Callable[..., Any], *others: Callable[[Any], Any]) -> None:
    def fresh(*args: Any, **kwargs: Any) -> Any: ...

    mark = swell.openai("embeddings", model="v") if function is vectors else chat
    function = mark(function) if marks.of(function).openai is None else function
    describe.check(describe.Declared(function.__name__, function, FUNCTION, None, True))


@pytest.mark.parametrize("function", [answers, any_field])
def test_what_takes_the_main_field_can_be_a_model(function: Callable[..., Any]) -> None:
    checked(function)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (of_nothing, "gives it an argument 'messages', and of_nothing takes nothing"),
        (of_more, "of_more needs size"),
        (vectors, "embeddings are answered whole"),
    ],
)
def test_what_cannot_be_called_so_is_refused(function: Callable[..., Any], words: str) -> None:
    with pytest.raises(swell.Error, match=words):
        checked(function)


def test_it_stands_where_calls_go() -> None:
    class Bare:
        @swell.method()
        def other(self) -> None: ...

        @chat
        def answer(self, messages: Any) -> str: ...

    def page(messages: Any) -> str: ...
    def several(messages: Any) -> list[str]: ...

    Bare.__qualname__, page.__qualname__, several.__qualname__ = "Bare", "page", "several"
    with pytest.raises(swell.Error, match=r"add @swell\.method"):
        describe.check(describe.Declared("Bare", Bare, FUNCTION, None, True))
    for function, words in (
        (swell.fastapi_endpoint()(chat(page)), "goes on what is called"),
        (swell.batched(max_batch_size=2, wait_ms=1)(chat(several)), "embeddings alone can be @batched"),
    ):
        with pytest.raises(swell.Error, match=words):
            describe.check(describe.Declared(function.__name__, function, FUNCTION, None, True))


def test_one_app_has_a_model_once() -> None:
    app = swell.App("twice")

    def one(messages: Any) -> str: ...
    def two(messages: Any) -> str: ...

    for each in (one, two):
        each.__qualname__ = each.__name__
        app.function()(chat(each))
    place = describe.Place("twice", "default", {})
    with pytest.raises(swell.Error, match="would both be the model 'tiny'") as raised:
        describe.app(app.declared.values(), place, dict.fromkeys(("one", "two"), describe.Source("twice", "0" * 64)))
    assert raised.value.code == "model_taken"


@pytest.mark.parametrize(("owner", "name"), [(None, "tiny"), (Owner(1, 1), "tiny-dev")])
def test_what_runs_for_a_while_is_not_in_the_way_of_what_is_deployed(owner: Owner | None, name: str) -> None:
    app = swell.App("talk")

    def one(messages: Any) -> str: ...

    one.__qualname__ = one.__name__
    app.function()(chat(one))
    place = describe.Place("talk", "default", {}, owner)
    described = describe.app(app.declared.values(), place, {"one": describe.Source("talk", "0" * 64)})
    ((method,),) = [revision.entry.methods for revision in described.revisions]
    assert method.openai == Offer("chat.completions", name)
    told = [note for note in describe.notes(described) if "OpenAI" in note]
    assert [name in note for note in told] == ([] if owner is None else [True])
