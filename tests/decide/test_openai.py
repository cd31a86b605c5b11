"""Does each path of the OpenAI API, with the model that a body names, lead to its method, and a wrong one further?"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decide.rows import a_row
from swell.decide.openai import Asking, Listing, named, openai
from swell.decide.route import Found, NoRoute, Own, Routes, route
from swell.model.openai import MODEL_NAME_MAX, PATHS, Offer, model_problem
from swell.model.request import Led
from swell.model.traffic import Branch
from swell.model.workload import Method

TALK = a_row(
    "default",
    "chat",
    "Talk",
    (
        Method("chat", openai=Offer("chat.completions", "org/tiny")),
        Method("embed", openai=Offer("embeddings", "org/tiny")),
    ),
    is_class=True,
    version=1,
)
WORDS = a_row("team", "words", "vectors", (Method("vectors", openai=Offer("embeddings", "words")),), version=1)
ROUTES = Routes([TALK, WORDS, a_row("default", "plain", "plain", (Method("plain"),))])


def test_a_model_is_found_by_the_name_in_the_body() -> None:
    assert route(ROUTES, "localhost", "/v1/whatever") == Own("v1")
    assert named(ROUTES, "chat.completions", "org/tiny") == Found(TALK.key, TALK.pool, "chat", face="v1", led=Led(1))
    assert named(ROUTES, "embeddings", "org/tiny") == Found(TALK.key, TALK.pool, "embed", face="v1", led=Led(1))
    assert named(ROUTES, "embeddings", "words") == Found(WORDS.key, WORDS.pool, "vectors", face="v1", led=Led(1))


def test_a_share_goes_to_revisions_that_have_the_model_too() -> None:
    other = Method("f", openai=Offer("embeddings", "other"))
    mine = Method("f", openai=Offer("embeddings", "mine"))
    branches = tuple(
        Branch(pool, at, (method,), percent=10) for at, (pool, method) in enumerate([("a", mine), ("b", other)])
    )
    found = named(Routes([a_row("default", "app", "f", (mine,), branches=branches)]), "embeddings", "mine")
    assert isinstance(found, Found)
    assert [(choice.pool, choice.percent) for choice in found.choices] == [("default/app/f@rv-1", 90), ("a", 10)]


@pytest.mark.parametrize(("path", "api"), PATHS.items())
def test_work_is_asked_for_with_post(path: str, api: Any) -> None:
    assert openai(ROUTES, "POST", f"/{path}") == openai(ROUTES, "POST", f"/{path}/") == Asking(api)
    wrong = openai(ROUTES, "GET", f"/{path}")
    assert isinstance(wrong, NoRoute)
    assert (wrong.status, wrong.allow) == (405, "POST")


def test_models_are_listed_or_asked_for_alone() -> None:
    assert openai(ROUTES, "GET", "/models") == Listing()
    for written in ("org/tiny", quote("org/tiny", safe="")):
        assert openai(ROUTES, "HEAD", f"/models/{written}") == Listing("org/tiny", TALK)
    assert not Listing().open


@pytest.mark.parametrize(
    ("api", "model", "status", "words"),
    [
        ("completions", "org/tiny", 404, "/v1/chat/completions and /v1/embeddings"),
        ("completions", "words", 404, "/v1/embeddings"),
        ("embeddings", "wards", 404, "Did you mean words?"),
        ("embeddings", "x", 404, "There are org/tiny, words."),
        ("embeddings", "", 400, 'it needs "model". There are org/tiny, words.'),
        ("chat.completions", "", 400, 'it needs "model". There is org/tiny.'),
    ],
)
def test_a_wrong_name_is_told_the_right_one(api: Any, model: str, status: int, words: str) -> None:
    found = named(ROUTES, api, model)
    assert isinstance(found, NoRoute)
    assert (found.status, words in found.message) == (status, True), found.message


def test_where_there_is_no_model_it_is_said_what_one_is() -> None:
    found = named(Routes(), "embeddings", "x")
    assert isinstance(found, NoRoute)
    assert "@swell.openai" in found.message


@given(st.sampled_from(["GET", "POST", "HEAD", "PUT"]), st.text(max_size=40))
def test_no_path_is_answered_with_anything_else(method: str, path: str) -> None:
    found = openai(ROUTES, method, "/" + quote(path))
    assert isinstance(found, Listing | Asking) or found.status in (404, 405)


@given(st.text())
def test_a_name_can_stand_in_a_line(name: str) -> None:
    problem = model_problem(name)
    assert (problem is None) == (
        0 < len(name) <= MODEL_NAME_MAX and all(0x21 <= ord(letter) <= 0x7E for letter in name)
    )
