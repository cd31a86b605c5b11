"""Does every deployed method have exactly the paths it should, and nothing else any?"""

from __future__ import annotations

import itertools
import string
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decide.rows import a_row
from swell.decide.route import Found, NoRoute, Own, Routes, route
from swell.model.traffic import Branch
from swell.model.variant import Parameter, Value
from swell.model.workload import Method, Variant, Web
from swell.wire.link import Route

NAME = string.ascii_letters + string.digits + "_-"
LABEL = string.ascii_lowercase + string.digits + "-"


names = st.text(NAME, min_size=1, max_size=12)
labels = st.text(LABEL, min_size=1, max_size=20).map("w{}".format)


@st.composite
def rows(draw: st.DrawFn) -> list[Route]:
    made = []
    # A number at its end makes each label the only one of its kind.
    free_labels = (f"{draw(labels)}-{number}" for number in itertools.count())
    keys = draw(st.lists(st.tuples(st.sampled_from(["default", "team"]), names, names), max_size=8, unique=True))
    for namespace, app, name in keys:
        if draw(st.booleans()):
            members = draw(st.lists(names, min_size=1, max_size=3, unique=True))
            methods = [Method(m, web=Web("asgi", next(free_labels)) if draw(st.booleans()) else None) for m in members]
            made.append(a_row(namespace, app, name, tuple(methods), True))
        else:
            web = Web("endpoint", next(free_labels)) if draw(st.booleans()) else None
            made.append(a_row(namespace, app, name, (Method(name, web=web),)))
    return made


@given(rows(), st.text(alphabet="abc/%20?-.", max_size=10))
def test_every_method_is_found_where_it_belongs(table: list[Route], rest: str) -> None:
    routes = Routes(table)
    for row in table:
        key = f"{row.namespace}/{row.app}/{row.name}"
        for method in row.methods:
            called = f"{row.name}.{method.name}" if row.is_class else row.name
            paths = [f"/call/{row.namespace}/{row.app}/{called}", f"/call/{row.namespace}/{quote(row.app)}/{called}"]
            if row.namespace == "default":
                paths.append(f"/call/{row.app}/{called}")
            for path in paths:
                found = route(routes, "127.0.0.1:8470", path)
                if method.web is None:
                    assert found == Found(key, row.pool, method.name)
                else:
                    assert isinstance(found, NoRoute)
                    assert f"/web/{method.web.label}/" in found.message
            if method.web is not None:
                label, web = method.web.label, method.web
                assert route(routes, "x", f"/web/{label}/{rest}") == Found(
                    key, row.pool, method.name, web, f"/{rest}", f"/web/{label}"
                )
                for host in (f"{label}.localhost", f"{label.upper()}.LOCALHOST:80", f"{label}.localhost."):
                    assert route(routes, host, f"/{rest}") == Found(key, row.pool, method.name, web, f"/{rest}", "")


@given(rows(), st.text(max_size=30), st.text(max_size=60))
def test_any_host_and_path_has_an_answer(table: list[Route], host: str, path: str) -> None:
    found = route(Routes(table), host, path)
    if isinstance(found, NoRoute):
        assert found.status == 404
        assert found.message
    elif isinstance(found, Own):
        assert found.name in ("api", "healthz")
    else:
        assert found.workload in {f"{row.namespace}/{row.app}/{row.name}" for row in table}


@given(rows(), names)
def test_unknown_names_are_unknown(table: list[Route], name: str) -> None:
    routes = Routes(table)
    found = route(routes, "x", f"/call/default/{name}!/fn")
    assert isinstance(found, NoRoute)
    assert found.code == "unknown_app"


TABLE = Routes(
    [
        a_row("default", "shop", "price", (Method("price"),)),
        a_row("default", "shop", "Model", (Method("predict"), Method("train")), True),
        a_row("default", "shop", "page", (Method("page", web=Web("endpoint", "shop-page")),)),
    ]
)


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("/call/shp/price", "unknown_app", "Did you mean shop?"),
        ("/call/elsewhere/price", "unknown_app", "`swell app list` shows those that are."),
        ("/call/shop/pric", "unknown_function", "Did you mean price?"),
        ("/call/shop/Model", "unknown_function", "Model.predict, Model.train"),
        ("/call/shop/Model.predic", "unknown_function", "Did you mean Model.predict"),
        ("/call/shop/price.x", "unknown_function", "Did you mean price"),
        ("/call/shop/zzz", "unknown_function", "It has"),
        ("/call/shop/page", "unknown_function", "/web/shop-page/"),
        ("/call/shop/price/", "unknown_path", "/call/{app}/{function}"),
        ("/call//price", "unknown_path", "/call/{app}/{function}"),
        ("/web/shop-pag/", "unknown_app", "Did you mean shop-page?"),
        ("/web/nothing-like-it/", "unknown_app", "`swell app list` shows where they answer."),
        ("/web", "unknown_path", "/web/{label}/"),
        ("/v3/chat", "unknown_path", "/web/{label}/"),
        ("/healthz/x", "unknown_path", "POST /call"),
        ("/metrics/x", "unknown_path", "POST /call"),
        ("/calls", "unknown_path", "POST /call"),
        ("/calls/keys", "unknown_path", "POST /call"),
        ("/calls/ends/x", "unknown_path", "POST /call"),
        ("/calls/fc-%2e%2e", "unknown_path", "POST /call"),
        ("/calls/fc-0Z/retry", "unknown_path", "POST /call"),
        ("/calls/groups/fc-0Z", "unknown_path", "POST /call"),
        ("/", "unknown_path", "POST /call"),
    ],
)
def test_what_is_not_there_is_named_with_what_is_near(path: str, code: str, words: str) -> None:
    found = route(TABLE, "127.0.0.1:8470", path)
    assert isinstance(found, NoRoute)
    assert found.code == code
    assert words in found.message


@pytest.mark.parametrize(
    ("path", "name"),
    [
        *[("/api", "api"), ("/api/apps", "api"), ("/ui", "api"), ("/healthz", "healthz"), ("/metrics", "metrics")],
        *[("/calls/fc-0Z", "calls"), ("/calls/fc-0Z/result", "calls"), ("/calls/groups/fg-0Z/ends", "calls")],
        ("/calls/groups/fg-0Z/inputs/12", "calls"),
        ("/calls/ends", "calls"),
    ],
)
def test_own_paths(path: str, name: str) -> None:
    assert route(TABLE, "localhost:8470", path) == Own(name)


@pytest.mark.parametrize("face", ["call", "web"])
def test_a_version_is_reached_with_parameters_wherever_these_have_it(face: str) -> None:
    methods = (Method("go"), Method("page", web=Web("asgi", "model")))
    later = Branch("p3", 3, methods, percent=10.0, tag="beta")
    model = a_row(
        *("default", "a", "Model", methods, True, "p2"),
        version=2,
        branches=(later,),
        parameters=(Parameter("name", "str"),),
    )

    def asked(version: int, tag: str, *branches: Branch) -> object:
        name = "Model" + Variant((Value("name", "str", "x"),)).name
        varied = a_row("default", "a", name, methods, True, f"x{version}", version=version, branches=branches)
        routes = Routes([model, varied])
        path = f"/call/a@{tag}/Model.go" if face == "call" else f"/web/{tag}--model/"
        found = route(routes, "localhost", path, "name=x")
        return found.pool if isinstance(found, Found) else (found.status, found.code)  # type: ignore[union-attr]

    own = msgspec.structs.replace(later, pool="x3")
    assert asked(2, "beta", own) == "x3"
    # It goes to version 2 on its own; until then it has what is to come beside the one before.
    assert asked(1, "beta", own) == "x3"
    # Version 3 does not have these parameters.
    assert asked(2, "beta") == (422, "unknown_parameter")
    if face == "call":
        coming = Branch("x2", 2, methods)
        # It went on before the others did, so to ask again would be in vain.
        assert [asked(1, "v2", coming), asked(2, "v2"), asked(3, "v2")] == ["x2", "x2", (404, "unknown_version")]
