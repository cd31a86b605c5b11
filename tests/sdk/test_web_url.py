"""What does a function say that has no URL?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import swell
from sdk import deployable
from sdk.server import KEY, Server, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving({"plain": lambda: 1}) as state:
        monkeypatch.setenv("SWELL_URL", state.url)
        monkeypatch.setenv("SWELL_KEY", KEY)
        yield state


def test_what_is_no_endpoint_has_none_whether_it_runs_or_not(server: Server) -> None:
    app = swell.App("a")
    plain = app.function()(deployable.plain)
    assert plain.get_web_url() is None
    app.deploy()
    assert plain.get_web_url() is None


def test_one_whose_app_does_not_run_has_none_yet() -> None:
    app = swell.App("a")

    @app.function()
    @swell.fastapi_endpoint()
    def page() -> None: ...

    with pytest.raises(
        swell.Error, match=r"page has no URL yet, since its app does not run: `swell serve` or"
    ) as raised:
        page.get_web_url()
    assert raised.value.code == "not_running"


def test_one_that_is_not_there_says_what_is(server: Server) -> None:
    with pytest.raises(swell.exception.NotFoundError, match=r"There is no app 'a'"):
        swell.Function.from_name("a", "plain").get_web_url()
    app = swell.App("a")
    app.function()(deployable.plain)
    app.deploy()
    words = r"App a has no function 'plane', so it has no URL\. There are: plain\."
    with pytest.raises(swell.exception.NotFoundError, match=words):
        swell.Function.from_name("a", "plane").get_web_url()
