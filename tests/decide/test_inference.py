"""Does each path of the Open Inference Protocol lead to its model, and a wrong one to the right one's name?"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decide.rows import a_row
from swell.decide.inference import Told, inference, versions_of
from swell.decide.route import Found, NoRoute, Own, Routes, route
from swell.model.request import Led
from swell.model.tensors import Tensor, Tensors
from swell.model.traffic import Branch
from swell.model.workload import Method

MODEL = Tensors((Tensor("x", "FP32", (-1,)),))


ROUTES = Routes(
    [
        a_row("default", "shop", "score", (Method("score", tensors=MODEL),)),
        a_row("default", "shop", "Net", (Method("predict", tensors=MODEL), Method("train")), is_class=True),
        a_row("team", "shop", "score", (Method("score", tensors=MODEL),)),
        a_row("default", "shop", "plain", (Method("plain"),)),
    ]
)


def test_only_what_takes_tensors_is_a_model() -> None:
    assert set(ROUTES.models) == {"shop--score", "shop--Net-predict", "team--shop--score"}
    assert route(ROUTES, "localhost", "/v2/anything") == Own("v2")


@pytest.mark.parametrize("name", ROUTES.models)
@pytest.mark.parametrize("version", ["", "/versions/rv-1"])
def test_a_model_is_asked_for_in_each_way(name: str, version: str) -> None:
    row, method = ROUTES.models[name]
    path = f"/models/{quote(name)}{version}"
    found = inference(ROUTES, "POST", f"{path}/infer")
    assert found == Found(row.key, row.pool, method.name, face="v2")
    assert inference(ROUTES, "GET", path) == Told("model", name, row, method)
    assert inference(ROUTES, "HEAD", f"{path}/ready") == Told("model_ready", name, row, method)


@pytest.mark.parametrize(
    ("path", "what", "is_open"),
    [
        ("", "server", False),
        ("/", "server", False),
        ("/health/live", "live", True),
        ("/health/ready", "ready", True),
        ("/models", "models", False),
    ],
)
def test_a_server_is_asked_for(path: str, what: Any, is_open: bool) -> None:
    told = inference(ROUTES, "GET", path)
    assert told == Told(what)
    assert told.open is is_open
    wrong = inference(ROUTES, "POST", path)
    assert isinstance(wrong, NoRoute)
    assert (wrong.status, wrong.allow) == (405, "GET")


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "/models/shop--scor/infer", 404, "Did you mean shop--score"),
        ("POST", "/models/zzzzzzzzzzzzzzzzz/infer", 404, "There are shop--Net-predict"),
        ("POST", "/models/shop--plain/infer", 404, "no model 'shop--plain'"),
        ("GET", "/models/shop--score/infer", 405, "POST"),
        ("GET", "/models/shop--score/versions", 404, "its version is rv-1"),
        ("GET", "/models/shop--score/versions/2/ready", 404, "no version '2'"),
        ("GET", "/models/shop--score/stats", 404, "/v2/models/{model}"),
        ("GET", "/repository/index", 405, "POST"),
        ("POST", "/repository/models/shop--score/load", 404, "`swell deploy`"),
        ("GET", "/logging", 404, "/v2/models/{model}"),
    ],
)
def test_what_is_not_there_names_what_is(method: str, path: str, status: int, words: str) -> None:
    found = inference(ROUTES, method, path)
    assert isinstance(found, NoRoute)
    assert (found.status, words in found.message) == (status, True), found.message


def model(tensors: Tensors | None = MODEL) -> tuple[Method, ...]:
    return (Method("score", tensors=tensors),)


SPLIT = a_row(
    *("team", "shop", "score", model()),
    version=3,
    branches=(
        Branch("team/shop/score@rv-2", 2, model(), percent=20),
        Branch("team/shop/score@rv-2", 2, model(), tag="canary"),
        Branch("team/shop/score@rv-0", 1, model(tensors=None), percent=30),
        Branch("team/shop/score@rv-1", 4, model(), tag="same"),
    ),
)
SPLIT_ROUTES = Routes([SPLIT])


@pytest.mark.parametrize(
    ("names", "pool"),
    [(("rv-1", "v3", "3", "v4", "4", "same"), SPLIT.pool), (("rv-2", "v2", "2", "canary"), "team/shop/score@rv-2")],
)
def test_a_version_is_asked_for_by_each_of_its_names(names: tuple[str, ...], pool: str) -> None:
    for name in names:
        path = f"/models/team--shop--score/versions/{name}"
        found = inference(SPLIT_ROUTES, "POST", f"{path}/infer")
        assert isinstance(found, Found)
        led = Led(2 if "rv-2" in names else 3, "tag", name)
        assert found == Found(SPLIT.key, pool, "score", face="v2", led=led), "no other revision is drawn"
        told = inference(SPLIT_ROUTES, "GET", path)
        assert isinstance(told, Told)
        assert told.row is not None
        assert (told.row.key, told.row.pool) == (SPLIT.key, pool)


def test_without_a_version_one_is_drawn_of_those_that_are_models() -> None:
    found = inference(SPLIT_ROUTES, "POST", "/models/team--shop--score/infer")
    assert isinstance(found, Found)
    assert [(choice.version, choice.percent) for choice in found.choices] == [(3, 80.0), (2, 20.0)]
    assert [version.names[0] for version in versions_of(SPLIT, SPLIT.methods[0])] == ["rv-1", "rv-2"]


@pytest.mark.parametrize("name", ["v1", "1", "rv-0", "0", "v0", "", "V3", "canary2"])
def test_a_version_that_is_none_names_those_that_are(name: str) -> None:
    found = inference(SPLIT_ROUTES, "POST", f"/models/team--shop--score/versions/{name}/infer")
    assert isinstance(found, NoRoute)
    assert f"has no version {name!r}: its versions are rv-1 (v3, v4, same), rv-2 (v2, canary)." in found.message
    assert "`swell app traffic shop --namespace team --tag NAME:vN`" in found.message


def test_without_models_it_is_said_how_one_is_made() -> None:
    found = inference(Routes([]), "GET", "/models/x")
    assert isinstance(found, NoRoute)
    assert "@swell.tensors" in found.message


@given(st.sampled_from(["GET", "POST", "HEAD", "PUT"]), st.text(alphabet="/modelsinfrvhop-%0ready", max_size=40))
def test_any_path_has_an_answer(method: str, path: str) -> None:
    assert isinstance(inference(ROUTES, method, path), Told | Found | NoRoute)
