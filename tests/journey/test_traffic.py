"""Do requests go to the versions they were split among, on a real platform?"""

from __future__ import annotations

import http.client
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import swell
from journey.callers import ask as ask_page
from journey.callers import call
from journey.callers import why as record_of
from private_swell import Failed, PrivateSwell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("own_server")]

PROGRAM = """
import swell

app = swell.App("split")


@app.function()
def version() -> int:
    return {version}


@app.function()
@swell.fastapi_endpoint(label="splitpage")
def page() -> int:
    return {version}


@app.cls(min_containers={least})
class Warm:
    @swell.method()
    def version(self) -> int:
        return {version}
"""

Deploy = Callable[..., str]


@pytest.fixture
def deploy(own_server: PrivateSwell, tmp_path: Path) -> Deploy:
    def deploy(version: int, *words: str, least: int = 0) -> str:
        file = tmp_path / "split.py"
        file.write_text(PROGRAM.format(version=version, least=least))
        return own_server.run("deploy", *words, str(file))

    return deploy


@pytest.fixture(autouse=True)
def stopped(own_server: PrivateSwell) -> object:
    yield
    own_server.run("app", "stop", "split")


def ask(swell: PrivateSwell, target: str = "split/version", method: str = "POST", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", swell.port, timeout=60)
    path = target if target.startswith("/") else f"/call/{target}"
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == 200, body
    return int(json.loads(body))


def test_by_share_by_hash_by_header_and_by_tag(own_server: PrivateSwell, deploy: Deploy) -> None:
    for number in (1, 2, 3):
        deploy(number)
    said = own_server.run(
        *("app", "traffic", "split", "v2=50", "v3=50", "--hash-header", "X-User"),
        *("--header", "X-Variant=b:v1", "--tag", "canary:v1"),
    )
    assert "50%" in said
    assert "/call/split@canary/FUNCTION" in said
    users = {str(n): {ask(own_server, X_User=str(n)) for _ in range(3)} for n in range(30)}
    assert all(len(versions) == 1 for versions in users.values())
    assert Counter(min(versions) for versions in users.values()).keys() == {2, 3}
    assert {ask(own_server) for _ in range(60)} == {2, 3}
    assert {ask(own_server, "/web/splitpage/", "GET") for _ in range(60)} == {2, 3}
    assert ask(own_server, X_Variant="b") == 1
    assert ask(own_server, "split@canary/version") == 1
    assert ask(own_server, "/web/canary--splitpage/", "GET") == 1
    assert ask(own_server, "/", "GET", Host=f"canary--splitpage.localhost:{own_server.port}") == 1
    # More for v3: whoever was there stays.
    own_server.run("app", "traffic", "split", "v2=20", "v3=80", "--hash-header", "X-User")
    for user, versions in users.items():
        if versions == {3}:
            assert ask(own_server, X_User=user) == 3
    # Of 400 drawn by lot 80 are a fifth; so far from it as one draw in a million is.
    assert 40 < Counter(ask(own_server) for _ in range(400))[2] < 120
    own_server.run("app", "rollback", "split", "v1")
    assert {ask(own_server, X_User=str(n)) for n in range(10)} == {1}


def test_what_led_a_request_to_its_version_is_told(own_server: PrivateSwell, deploy: Deploy) -> None:
    for number in (1, 2, 3):
        deploy(number)

    def led(target: str = "split/version", **headers: str) -> str:
        answer = call(own_server, target, **headers)
        assert answer.status == 200, answer
        reasons = record_of(own_server, answer.request)["reasons"]
        assert any(told.startswith("what held it: ") and "no core dumps" in told for told in reasons), reasons
        return str(reasons[0])

    revision = r"\(rv-\w+\)"
    assert re.fullmatch(f"went to v3 {revision}, which had the traffic", led())
    how = ("--hash-header", "X-User", "--header", "X-Variant=b:v1", "--tag", "canary:v1")
    own_server.run("app", "traffic", "split", "v2=50", "v3=50", *how)
    share = "50 % of the traffic is its share"
    assert re.fullmatch(f"went to v[23] {revision}, as all with the same x-user: {share}", led(X_User="7"))
    assert re.fullmatch(rf"went to v[23] {revision}, by lot \(the request had no x-user\): {share}", led())
    assert re.fullmatch(f"went to v1 {revision}: requests with its x-variant do", led(X_Variant="b"))
    assert re.fullmatch(f"went to v1 {revision}: it was asked for as 'canary'", led("split@canary/version"))
    assert re.fullmatch(f"went to v3 {revision}: it was asked for as 'v3'", led("split@v3/Warm.version"))
    page = ask_page(own_server, "GET", "/web/canary--splitpage/")
    assert "it was asked for as 'canary'" in record_of(own_server, page.request)["reasons"][0]


@pytest.mark.shows("Function.from_name", "version")
@pytest.mark.shows("Cls.from_name", "version")
def test_a_version_is_called_by_its_number(deploy: Deploy, own_server: PrivateSwell) -> None:
    deploy(1)
    deploy(2)
    own_server.run("app", "traffic", "split", "--tag", "old:v1")
    assert [swell.Function.from_name("split", "version", version=n).remote() for n in (1, 2)] == [1, 2]
    assert [swell.Cls.from_name("split", "Warm", version=n)().version.remote() for n in (1, 2)] == [1, 2]
    with pytest.raises(swell.exception.NotFoundError, match="'v7' is neither a tag nor a version"):
        swell.Function.from_name("split", "version", version=7).remote()
    with pytest.raises(swell.exception.InvalidError, match="give v3 as version=3"):
        swell.Function.from_name("split", "version", version="v3")  # type: ignore[arg-type]


def test_what_is_made_ready_beside_is_promoted_or_taken_away(own_server: PrivateSwell, deploy: Deploy) -> None:
    deploy(1, least=1)
    wait_until("v1 is warm", lambda: ready(own_server) == 1)
    deploy(2, "--strategy", "blue-green", least=1)
    assert ask(own_server) == ask(own_server, "split/Warm.version") == 1
    assert ask(own_server, "split@green/version") == ask(own_server, "split@v2/Warm.version") == 2
    wait_until("there are as many of v2", lambda: warm(own_server) == 2)
    own_server.run("app", "rollback", "split")
    with pytest.raises(AssertionError, match="unknown_version"):
        ask(own_server, "split@green/version")
    with pytest.raises(Failed, match="No version of split is made ready beside v1"):
        own_server.run("app", "promote", "split")
    deploy(3, "--strategy", "blue-green", least=1)
    assert "split is v3 now" in own_server.run("app", "promote", "split")
    assert ask(own_server) == ask(own_server, "split/Warm.version") == 3
    current = [line.split()[0] for line in own_server.run("app", "history", "split").splitlines()[1:]]
    assert current == ["v3*", "v2", "v1"]


def ready(swell: PrivateSwell) -> int:
    return sum(one["phase"] == "ready" for one in swell.serving())


def warm(swell: PrivateSwell) -> int:
    """Ready replicas of the class."""
    return sum(one["phase"] == "ready" and one["workload"] == "default/split/Warm" for one in swell.serving())


def test_what_cannot_be_meant_is_refused(own_server: PrivateSwell, deploy: Deploy) -> None:
    deploy(1)
    deploy(2)
    for words, why in (
        (("v1=50", "v2=40"), r"add up to 90, not to 100 \(v1=50 v2=40\)"),
        (("v9=100",), r"v9 is not kept of app split\. There are: v1, v2"),
        (("v1:50",), r"'v1:50' is not understood: it is written as v4=10"),
        (("--tag", "v1:v2"), "'v1' is no tag"),
        (("--header", "Authorization=x:v1"), "is no header that requests could be told apart by"),
    ):
        with pytest.raises(Failed, match=why):
            own_server.run("app", "traffic", "split", *words)
    with pytest.raises(Failed, match="has no function or class 'nothing'"):
        own_server.run("app", "traffic", "split/nothing", "v1=100")
    own_server.run("app", "traffic", "split/version", "v1=100")
    assert (ask(own_server), ask(own_server, "split/Warm.version")) == (1, 2)
