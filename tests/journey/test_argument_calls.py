"""Does each argument of a call, of what finds an app, or of a web endpoint change what its user sees?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import swell
from journey.apps import subject
from journey.callers import ask, call, key
from journey.running import running
from private_swell import PrivateSwell, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("own_server")]


@pytest.mark.shows("Function.remote", "args", "kwargs")
@pytest.mark.shows("Function.local", "args", "kwargs")
@pytest.mark.shows("Function.map", "input_iterators", "kwargs", "return_exceptions")
@pytest.mark.shows("Function.starmap", "input_iterator", "kwargs", "return_exceptions")
@pytest.mark.shows("Function.for_each", "input_iterators", "kwargs", "ignore_exceptions")
def test_calls_of_a_function(tmp_path: Path) -> None:
    with running("function") as do:
        assert do.remote("echo", 1, b=2) == do.local("echo", 1, b=2) == [[1], {"b": 2}]
        both = [[[1], {"b": 3}], [[2], {"b": 3}]]
        assert list(do.map(["echo"] * 2, [1, 2], kwargs={"b": 3})) == both
        assert list(do.starmap([("echo", 1), ("echo", 2)], kwargs={"b": 3})) == both
        for kept in (
            do.map(["none", "echo"], return_exceptions=True),
            do.starmap([("none",), ("echo",)], return_exceptions=True),
        ):
            assert [type(one) for one in kept] == [KeyError, list]
        file = tmp_path / "notes"
        do.for_each(["note"] * 2, [str(file)] * 2, kwargs={"text": "x"})
        assert file.read_text() == "xx"
        do.for_each(["none"], ignore_exceptions=True)
        with pytest.raises(KeyError):
            do.for_each(["none"])


@pytest.mark.parametrize(
    "form",
    [
        pytest.param("map", marks=pytest.mark.shows("Function.map", "order_outputs")),
        pytest.param("starmap", marks=pytest.mark.shows("Function.starmap", "order_outputs")),
    ],
)
def test_results_come_in_order_or_as_they_are_made(form: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    inputs = [("until", str(gate)), ("echo", str(gate))]
    with running("function", timeout=30) as do:
        results = do.starmap if form == "starmap" else lambda pairs, **given: do.map(*zip(*pairs, strict=True), **given)
        found = results(inputs, order_outputs=False)
        # The first is not made before the second was had here.
        assert next(found) == [[str(gate)], {}]
        gate.touch()
        assert len(list(found)) == 1
        assert [type(one) for one in results(inputs)] == [int, list]


@pytest.mark.shows("Function.remote_gen", "args", "kwargs")
@pytest.mark.shows("App.function", "is_generator")
@pytest.mark.shows("method", "is_generator")
def test_generators() -> None:
    app = swell.App("subject")
    numbers = app.function()(subject.numbers)
    listed = app.function(is_generator=True)(subject.listed)
    lister = app.cls()(subject.Lister)()
    with app.run():
        assert list(numbers.remote_gen(1, to=3)) == [1, 2]
        assert list(listed.remote_gen(2)) == list(lister.count.remote_gen(2)) == [0, 1]


# -- names ----------------------------------------------------------------------------------------------


@contextmanager
def deployed(app: swell.App, **given: Any) -> Iterator[None]:
    app.deploy(**given)
    try:
        yield
    finally:
        app.stop()


@pytest.mark.shows("App.deploy", "tag")
def test_a_version_is_shown_by_what_its_author_calls_it(own_server: PrivateSwell) -> None:
    app = swell.App("tagged")
    app.function()(subject.do)
    with deployed(app, tag="with the new tokenizer"):
        assert "with the new tokenizer" in own_server.run("app", "history", "tagged")


@pytest.mark.shows("App", "name")
@pytest.mark.shows("App.function", "name")
@pytest.mark.shows("App.deploy", "name", "environment_name")
@pytest.mark.shows("App.lookup", "name", "environment_name")
@pytest.mark.shows("Function.from_name", "app_name", "name", "environment_name")
@pytest.mark.shows("Cls.from_name", "app_name", "name", "environment_name")
def test_a_deployed_app_is_found_by_its_names(own_server: PrivateSwell) -> None:
    app = swell.App("first")
    app.function(name="act")(subject.do)
    app.cls()(subject.Subject)
    with deployed(app):
        assert call(own_server, "first/act", ["echo", 1]).value == [[1], {}]
    with deployed(app, name="second", environment_name="staging"):
        assert call(own_server, "staging/second/act", ["echo", 1]).value == [[1], {}]
        at = {"environment_name": "staging"}
        assert swell.Function.from_name("second", "act", **at).remote("echo", 1) == [[1], {}]
        assert swell.Cls.from_name("second", "Subject", **at)().do.remote("echo", 1) == [[1], {}]
        with pytest.raises(swell.exception.NotFoundError, match="'second'"):
            swell.App.lookup("second")
        swell.App.lookup("second", **at).stop()
        with pytest.raises(swell.exception.NotFoundError, match="'second'"):
            swell.App.lookup("second", **at)
        app.deploy(name="second", environment_name="staging")


def listed(swell: PrivateSwell, name: str) -> list[dict[str, Any]]:
    """Apps whose name begins so."""
    return [row for row in swell.get("/api/apps") if row["name"].startswith(name)]


@pytest.mark.shows("App.run", "name", "detach", "environment_name")
def test_an_app_that_runs_for_a_while(own_server: PrivateSwell) -> None:
    app = swell.App("whiled")
    app.function()(subject.do)
    with app.run(name="mine", environment_name="staging"):
        assert [row["namespace"] for row in listed(own_server, "mine--")] == ["staging"]
    assert listed(own_server, "mine--") == []
    with app.run(detach=True):
        pass
    (row,) = listed(own_server, "whiled--")
    assert call(own_server, f"{row['name']}/do", ["echo"]).value == [[], {}]
    own_server.run("app", "stop", row["name"])


@pytest.mark.shows("App", "tags")
@pytest.mark.shows("App.include", "other_app", "inherit_tags")
def test_an_app_takes_in_another_and_its_tags(own_server: PrivateSwell) -> None:
    other = swell.App("other", tags={"team": "other", "area": "front"})
    other.function()(subject.do)
    for inherit, tags in ((True, [["area", "front"], ["team", "own"]]), (False, [["team", "own"]])):
        app = swell.App("whole", tags={"team": "own"}).include(other, inherit_tags=inherit)
        with deployed(app):
            assert call(own_server, "whole/do", ["echo"]).value == [[], {}]
            assert [row["tags"] for row in listed(own_server, "whole")] == [tags]


@pytest.mark.shows("App.local_entrypoint", "name")
def test_an_entry_point_runs_by_its_name(own_server: PrivateSwell, tmp_path: Path) -> None:
    file = tmp_path / "entries.py"
    file.write_text(ENTRIES)
    assert own_server.run("run", f"{file}::go") == "gone\n"


ENTRIES = """
import swell

app = swell.App("entries")

@app.local_entrypoint(name="go")
def main():
    print("gone")

@app.local_entrypoint()
def other():
    print("other")
"""


# -- on the web -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fronts(own_server: PrivateSwell, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSwell]:
    file = tmp_path_factory.mktemp("fronts") / "fronts.py"
    file.write_text(FRONTS.format(port=free_port(), closed=free_port()))
    own_server.run("deploy", str(file))
    yield own_server
    own_server.run("app", "stop", "fronts")


@pytest.mark.shows("fastapi_endpoint", "docs")
def test_an_endpoint_has_docs_where_it_is_asked_for(fronts: PrivateSwell) -> None:
    assert [ask(fronts, "GET", f"/web/{label}/docs").status for label in ("told", "untold")] == [200, 404]


@pytest.mark.parametrize(
    "label",
    [
        pytest.param("site", marks=pytest.mark.shows("asgi_app", "requires_proxy_auth")),
        pytest.param("old-site", marks=pytest.mark.shows("wsgi_app", "requires_proxy_auth")),
        pytest.param("process", marks=pytest.mark.shows("web_server", "requires_proxy_auth")),
    ],
)
def test_a_door_that_needs_the_key(fronts: PrivateSwell, label: str) -> None:
    refused = ask(fronts, "GET", f"/web/{label}/")
    assert (refused.status, refused.error["code"]) == (401, "no_key")
    assert ask(fronts, "GET", f"/web/{label}/", headers=key(fronts)).status == 200


@pytest.mark.shows("web_server", "startup_timeout")
def test_a_process_that_does_not_listen_in_time(fronts: PrivateSwell) -> None:
    refused = ask(fronts, "GET", "/web/closed/")
    assert (refused.status, refused.error["code"]) == (503, "no_replica")
    assert "took no connection within 0.3 s of closed being run" in refused.error["message"]


FRONTS = """
import subprocess, sys
import swell

app = swell.App("fronts")

@app.function()
@swell.fastapi_endpoint(label="told", docs=True)
def told():
    return 1

@app.function()
@swell.fastapi_endpoint(label="untold")
def untold():
    return 1

@app.function()
@swell.asgi_app(label="site", requires_proxy_auth=True)
def site():
    async def answer(scope, receive, send):
        if scope["type"] == "http":
            await send({{"type": "http.response.start", "status": 200, "headers": []}})
            await send({{"type": "http.response.body", "body": b"inside"}})
    return answer

@app.function()
@swell.wsgi_app(label="old-site", requires_proxy_auth=True)
def old_site():
    def answer(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"inside"]
    return answer

@app.function()
@swell.web_server({port}, label="process", requires_proxy_auth=True)
def process():
    subprocess.Popen([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "{port}"])

@app.function(timeout=20)
@swell.web_server({closed}, label="closed", startup_timeout=0.3)
def closed():
    pass
"""
