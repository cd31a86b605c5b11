"""Does the control API keep its word, over a real server on a unix socket?"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.served import KEY, WAIT_S, Server, deploy, document, error, put_blob
from swell.api.answers import refusal
from swell.api.auth import Auth
from swell.decide.access import SERVER
from swell.model.errors import SwellError
from swell.model.owner import Owner
from swell.model.workload import App
from swell.wire.api import AppRow, DeployLine, PoolUsage, ReplicaRow, VersionRow, Why
from swell.wire.nodes import NodeRow

# -- the door -------------------------------------------------------------------------------------

PATHS = ["/api/health", "/api/openapi.json", "/api/apps", "/api/nothing", "/"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "no_key"),
        ("", "no_key"),
        ("Bearer", "no_key"),
        (f"Basic {KEY}", "no_key"),
        (KEY, "no_key"),
        (f"Bearer {KEY}x", "bad_key"),
        (f"Bearer {KEY[:-1]}", "bad_key"),
    ],
)
def test_nothing_is_answered_without_the_key(client: httpx2.Client, path: str, value: str | None, code: str) -> None:
    request = client.build_request("GET", path)
    del request.headers["authorization"]
    if value is not None:
        request.headers["authorization"] = value
    response = client.send(request)
    assert error(response, 401)["code"] == code
    assert response.headers["www-authenticate"] == "Bearer"
    assert KEY not in response.text


@pytest.mark.parametrize(("path", "host"), [("/api/blobs/x", "[::1]"), ("/api/apps", "[::1]"), ("/", "x")])
def test_every_error_names_its_request(client: httpx2.Client, path: str, host: str) -> None:
    told = client.put(path, headers={"host": host, "swell-request-id": "0b30b5fa04e1-2b"}).json()["error"]
    assert told["request"] == "0b30b5fa04e1-2b", told


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8470", "localhost:1", "[::1]:80", "SWELL.example:8470"])
def test_hosts_that_are_ours_are_served(client: httpx2.Client, host: str) -> None:
    assert client.get("/api/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.0.0.1", "", "[::2]", "127.0.0.1.evil.example"]
)
def test_other_hosts_are_refused(client: httpx2.Client, host: str) -> None:
    assert error(client.get("/api/health", headers={"host": host}), 403)["code"] == "bad_host"


@pytest.mark.parametrize("host", ["10.0.0.1", "192.0.2.7:8470", "[2001:db8::1]:8470", "swell.example"])
def test_on_every_address_any_address_is_served_but_no_other_name(host: str) -> None:
    auth = Auth(refusal(SwellError("x", "x")), KEY, ["swell.example"], [], any_address=True)
    key = (b"authorization", f"Bearer {KEY}".encode())
    assert auth.judged([(b"host", host.encode()), key]) == (SERVER, None)
    for other in ("evil.example", "10.0.0.1.evil.example", ""):
        _, refused = auth.judged([(b"host", other.encode()), key])
        assert refused is not None
        assert refused.code == "bad_host"


def test_only_allowed_origins_may_ask(client: httpx2.Client) -> None:
    assert client.get("/api/health", headers={"origin": "http://console.example"}).status_code == 200
    for origin in ("http://evil.example", "null", "https://console.example", "http://127.0.0.1"):
        assert error(client.get("/api/health", headers={"origin": origin}), 403)["code"] == "bad_origin"


# -- deploying ------------------------------------------------------------------------------------


def test_an_app_is_deployed_listed_and_stopped(server: Server, client: httpx2.Client) -> None:
    assert [line.kind for line in deploy(client, "whole")] == ["progress", "progress", "done"]
    listed = [msgspec.json.decode(client.get(f"/api/apps{q}").content, type=list[AppRow]) for q in ("", "?counts=1")]
    assert [row.source for rows in listed for row in rows if row.name == "whole"] == ["counts=False", "counts=True"]
    response = client.delete("/api/apps/default/whole")
    assert (response.status_code, response.content) == (204, b"")
    assert error(client.delete("/api/apps/default/whole"), 404)["code"] == "unknown_app"
    assert "default/whole" not in server.desk.kept


def test_a_version_is_gone_back_to_while_its_source_is_there(server: Server, client: httpx2.Client) -> None:
    first = document(client, "twice")
    for document_, tag in ((first, "one"), (first, "")):
        assert "done" in client.post("/api/apps", json={**document_, "tag": tag}).text
    with client.stream("POST", "/api/apps/default/twice/rollback", json={"to": 1}) as response:
        assert list(response.iter_lines())[-1].startswith('{"kind":"done"')
    rows = msgspec.json.decode(client.get("/api/apps/default/twice/versions").content, type=list[VersionRow])
    assert [(row.version, row.how, row.tag) for row in rows] == [
        (3, "rollback to v1", "one"),
        (2, "deploy", ""),
        (1, "deploy", "one"),
    ]
    assert error(client.post("/api/apps/default/twice/rollback", json={"to": 9}), 404)["code"] == "unknown_version"
    assert error(client.post("/api/apps/default/twice/rollback", json={"to": -1}), 422)["code"] == "invalid"
    server.blobs.sweep((), time.time() + 1)
    lost = error(client.post("/api/apps/default/twice/rollback", json={}), 409)
    assert (lost["code"], "from its files" in lost["message"]) == ("source_lost", True)
    assert error(client.post("/api/apps", json={**document(client, "a"), "tag": "a\x07"}), 422)["code"] == "invalid"


def test_traffic_is_split_promoted_and_taken_back(client: httpx2.Client) -> None:
    def last(method: str, path: str, body: object = None) -> DeployLine:
        text = client.request(method, f"/api/apps/default/{path}", json=body).text
        return msgspec.json.decode(text.splitlines()[-1], type=DeployLine)

    assert last("PUT", "a/traffic", {"shares": [[4, 10], [3, 90]]}).message == "default/a"
    wrong = last("PUT", "a/traffic", {"shares": [[4, 10], [3, 80]]})
    assert (wrong.code, "add up to 90, not to 100 (v4=10 v3=80)" in wrong.message) == ("bad_traffic", True)
    assert last("POST", "a/promote").message == "default/a"
    assert last("POST", "canary/rollback", {}).message == "default/canary alone"


def test_a_deploy_that_fails_ends_with_the_error(client: httpx2.Client) -> None:
    last = deploy(client, "unimportable")[-1]
    assert (last.kind, last.code, last.detail) == ("error", "import", "Traceback …")


def test_an_unforeseen_error_is_in_the_log_only(client: httpx2.Client, caplog: pytest.LogCaptureFixture) -> None:
    last = deploy(client, "broken")[-1]
    told = error(client.get("/api/requests/broken"), 500)
    assert (last.kind, last.code, told["code"]) == ("error", "internal", "internal")
    assert "secret" not in last.message + last.detail + json.dumps(told)
    assert told["request"] in told["message"]
    for words in (told["request"], "secret words", "Traceback"):
        assert words in caplog.text


def test_a_client_that_leaves_cancels_its_deploy(server: Server, client: httpx2.Client) -> None:
    with client.stream("POST", "/api/apps", json=document(client, "forever")) as response:
        told = response.iter_lines()
        assert next(told) == '{"kind":"progress","message":"building"}'
        assert server.desk.waiting.wait(WAIT_S)
        assert not server.desk.cancelled.is_set()
    assert server.desk.cancelled.wait(WAIT_S)
    assert "default/forever" not in server.desk.kept


def test_all_that_is_wrong_is_said_at_once(server: Server, client: httpx2.Client) -> None:
    wrong = document(client, "bad name")
    wrong["app"]["revisions"][0]["max_inputs"] = 0
    wrong["app"]["workloads"][0]["scaling"]["idle_s"] = -1
    told = error(client.post("/api/apps", json=wrong), 422)
    assert told["code"] == "invalid"
    name, *_ = lines = told["detail"].splitlines()
    for words in ("bad name", "max_inputs", "idle_s"):
        assert any(words in line for line in lines)
    assert told["message"] == f"The app cannot be deployed as it is: {name} (the first of {len(lines)} problems)."
    assert not [key for key in server.desk.kept if "bad" in key]


def test_a_blob_that_was_not_put_is_named(client: httpx2.Client) -> None:
    missing = "sha256-" + "0" * 64
    told = error(client.post("/api/apps", json=document(client, blob=missing)), 422)
    # One problem is told once.
    assert told["message"] == f"The app cannot be deployed as it is: blob {missing} was not put."
    assert "detail" not in told


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "bad_body"),
        (b"{", 400, "bad_body"),
        (b'{"app": {"namespace": "\xff"}}', 400, "bad_body"),
        (b'{"more":' + b"[" * 100_000, 400, "bad_body"),
        (b"{}", 422, "invalid"),
        (b'{"app": 1}', 422, "invalid"),
        (b" " * (32 * 1024 * 1024 + 1), 413, "body_too_large"),
    ],
)
def test_a_body_that_cannot_be_used_is_refused(client: httpx2.Client, body: bytes, status: int, code: str) -> None:
    assert error(client.post("/api/apps", content=body), status)["code"] == code


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value in a document is."""
    yield at
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from paths(inner, (*at, key))


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_document_breaks_the_server(client: httpx2.Client, data: st.DataObject) -> None:
    whole = json.loads(json.dumps(document(client)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(list(paths(whole))[1:]))
        holder = whole
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = data.draw(json_values)
    response = client.post("/api/apps", content=json.dumps(whole).encode("utf-8", "surrogatepass"))
    assert response.status_code < 500, (whole, response.text)
    if response.status_code == 200:
        assert '"kind":"error"' not in response.text.replace("unimportable", ""), (whole, response.text)


# -- blobs ----------------------------------------------------------------------------------------


def test_a_blob_is_there_after_it_was_put(client: httpx2.Client) -> None:
    content = b"x" * 300_000
    digest = "sha256-" + hashlib.sha256(content).hexdigest()
    assert client.head(f"/api/blobs/{digest}").status_code == 404
    assert put_blob(client, content) == digest
    assert put_blob(client, content) == digest
    response = client.head(f"/api/blobs/{digest}")
    assert (response.status_code, response.content) == (204, b"")


def test_a_blob_is_refused_with_a_wrong_digest_or_size(client: httpx2.Client) -> None:
    digest = "sha256-" + "1" * 64
    assert error(client.put(f"/api/blobs/{digest}", content=b"other"), 400)["code"] == "wrong_digest"
    assert error(client.put(f"/api/blobs/{digest}", content=b"x" * 1_000_001), 413)["code"] == "blob_too_large"
    assert error(client.put("/api/blobs/nonsense", content=b"x"), 400)["code"] == "bad_digest"
    assert client.head(f"/api/blobs/{digest}").status_code == 404


# -- reading --------------------------------------------------------------------------------------


def test_listings_have_their_declared_types(client: httpx2.Client) -> None:
    assert client.get("/api/health").json()["ok"] is True
    assert msgspec.json.decode(client.get("/api/replicas").content, type=list[ReplicaRow])[0].id == "r1-1"
    assert msgspec.json.decode(client.get("/api/nodes").content, type=list[NodeRow])[0].gpus[0].id == "GPU-a"
    assert msgspec.json.decode(client.get("/api/requests/q1").content, type=Why).request == "q1"
    assert msgspec.json.decode(client.get("/api/usage?since_s=60").content, type=list[PoolUsage])[0].cpu_s == 60.0


@pytest.mark.parametrize(
    "path",
    [
        "usage?since_s=x",
        "usage?since_s=-1",
        "usage?since_s=nan",
        "usage?since=1",
        "logs?tail=-2",
        "logs?app=../x",
        "logs?namespace=",
        "logs?follow=perhaps",
    ],
)
def test_a_query_that_cannot_be_used_is_refused(client: httpx2.Client, path: str) -> None:
    assert error(client.get(f"/api/{path}"), 400)["code"] == "bad_request"


def test_logs_are_lines_and_can_be_followed(server: Server, client: httpx2.Client) -> None:
    file = server.logs / "default" / "talky.ndjson"
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"at": float(n), "request": "q" if n % 2 else "", "text": str(n)} for n in range(6)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    got = client.get("/api/logs?app=talky&tail=2&request=q")
    assert [json.loads(line)["text"] for line in got.text.splitlines()] == ["3", "5"]
    assert client.get("/api/logs?app=talky&since_s=60").text == ""
    got = client.get("/api/logs?app=talky&tail=-1&from_at=4")
    assert [json.loads(line)["text"] for line in got.text.splitlines()] == ["4", "5"]
    with client.stream("GET", "/api/logs?app=talky&tail=1&follow=1") as response:
        got_lines = response.iter_lines()
        assert json.loads(next(got_lines))["text"] == "5"
        # Here begins what is written from now on.
        assert next(got_lines) == ""
        with file.open("a") as log:
            log.write('{"at": 9, "text": "new"}\n')
        assert json.loads(next(got_lines))["text"] == "new"


def test_the_log_of_an_app_that_never_was_is_an_error_that_names_those_that_are(
    server: Server, client: httpx2.Client
) -> None:
    server.desk.kept = {}
    assert "No app is deployed." in error(client.get("/api/logs?app=bogus"), 404)["message"]
    silent = msgspec.convert(document(client, "silent")["app"], App)
    server.desk.kept = {silent.key: silent}
    assert client.get("/api/logs?app=silent").text == ""
    refused = error(client.get("/api/logs?app=bogus&follow=1"), 404)
    assert refused["code"] == "unknown_app"
    assert "There are: silent." in refused["message"]
    file = server.logs / "default" / "ended.ndjson"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('{"at": 1, "text": "x"}\n')
    assert client.get("/api/logs?app=ended").text == '{"at": 1, "text": "x"}\n'


def test_requests_are_listed(client: httpx2.Client) -> None:
    (row,) = client.get("/api/requests?app=a&limit=3").json()
    assert (row["workload"], row["received_at"]) == ("default/a/f", 3.0)
    assert client.get("/api/requests").json()[0]["workload"] == "default//f"
    # An app that is not there and of which nothing is kept is a slip of the pen.
    refused = error(client.get("/api/requests?app=bogus"), 404)
    assert refused["code"] == "unknown_app"
    assert "There is no app 'bogus'" in refused["message"]
    for query in ("limit=0", "limit=many", "app=../a", "namespace=", "pool=p"):
        assert error(client.get(f"/api/requests?{query}"), 400)["code"] == "bad_request"


@pytest.mark.slow
def test_a_server_that_stops_waits_for_no_follower(folder: Path) -> None:
    (folder / "other").mkdir()
    stopping = Server(folder / "other")
    with (
        stopping.client.stream("GET", "/api/logs?follow=1") as following,
        stopping.client.stream("POST", "/api/apps", json=document(stopping.client, "forever")) as deploying,
    ):
        assert following.status_code == 200
        told = deploying.iter_lines()
        next(told)
        assert stopping.desk.waiting.wait(WAIT_S)
        assert stopping.stop()
    assert stopping.desk.cancelled.is_set()
    stopping.close()


def test_unknown_paths_and_methods_are_told(client: httpx2.Client) -> None:
    for path in ("/api", "/api/", "/api/apps/", "/api/apps/a", "/apps", "/api/requests/a/b"):
        assert error(client.get(path), 404)["code"] == "unknown_path"
    response = client.patch("/api/apps")
    assert error(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "GET, POST"
    assert client.get("/api/blobs/x").headers["allow"] == "HEAD, PUT"


def test_the_description_covers_every_route_and_type(client: httpx2.Client) -> None:
    described = client.get("/api/openapi.json").json()
    assert described["openapi"] == "3.1.0"
    assert described["info"]["version"] == "1.2.3"
    assert set(described["paths"]["/api/apps"]) == {"get", "post"}
    assert set(described["paths"]) == {
        *("/api/calls", "/api/calls/{id}", "/api/calls/{id}/result", "/api/calls/{id}/retry", "/api/calls/{id}/forget"),
        *("/api/calls/ends", "/api/calls/retry", "/api/calls/{id}/input"),
        *("/api/calls/groups/{group}", "/api/calls/groups/{group}/ends", "/api/calls/groups/{group}/inputs/{index}"),
        "/api/health",
        "/api/blobs/{digest}",
        "/api/apps",
        "/api/apps/{namespace}/{name}",
        "/api/apps/{namespace}/{name}/promote",
        "/api/apps/{namespace}/{name}/rollback",
        "/api/apps/{namespace}/{name}/traffic",
        "/api/apps/{namespace}/{name}/versions",
        "/api/triggers",
        *(
            f"/api/apps/{{namespace}}/{{name}}/triggers/{{trigger}}/{what}"
            for what in ("firings", "pause", "resume", "fire", "backfill")
        ),
        "/api/replicas",
        "/api/nodes",
        "/api/logs",
        "/api/requests",
        "/api/requests/{id}",
        "/api/usage",
        "/api/usage/keys",
        "/api/apps/{namespace}/{name}/workloads/{workload}",
        "/api/apps/{namespace}/{name}/workloads/{workload}/variants",
        "/api/limits",
        "/api/owners",
        "/api/keys",
        "/api/secrets",
        *(f"/api/{kind}{one}" for kind in ("dicts", "queues") for one in ("", "/{namespace}/{name}")),
        *(f"/api/dicts/{{namespace}}/{{name}}/{what}" for what in ("get", "contains", "pop", "entries", "count")),
        *(f"/api/queues/{{namespace}}/{{name}}/{what}" for what in ("take", "items", "partitions")),
        "/api/secrets/{namespace}",
        "/api/secrets/{namespace}/{name}",
        "/api/keys/{key}",
        "/api/backup",
        "/api/openapi.json",
        "/api/volumes",
        "/api/volumes/{namespace}/{name}",
        "/api/volumes/{namespace}/{name}/content",
        "/api/volumes/{namespace}/{name}/copies",
        "/api/volumes/{namespace}/{name}/files",
        "/api/volume-contents/{namespace}/{digest}",
    }
    operations = [each for path in described["paths"].values() for each in path.values()]
    assert all(each["security"][0]["key"][0] in each["description"] for each in operations)
    assert described["paths"]["/api/apps"]["post"]["security"] == [{"key": ["deploy:{namespace}/{name}"]}]
    queries = [p["name"] for p in described["paths"]["/api/logs"]["get"]["parameters"]]
    assert queries == ["namespace", "app", "since_s", "from_at", "request", "tail", "follow"]
    schemas = described["components"]["schemas"]
    assert {"Deploy", "App", "Revision", "ReplicaRow", "Why", "ErrorEnvelope"} <= set(schemas)
    for reference in find_references(described):
        assert reference.removeprefix("#/components/schemas/") in schemas


def find_references(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and "$ref" in value:
        yield value["$ref"]
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from find_references(inner)


def test_a_program_says_that_it_is_there(server: Server, client: httpx2.Client) -> None:
    said = {"pid": 7, "start_ticks": 8, "machine": "far"}
    assert client.put("/api/owners", json=said).json() == {"again_s": 7.0}
    # As older ones say it of themselves.
    assert client.put("/api/owners", json={"pid": 9, "start_ticks": 8}).status_code == 200
    assert server.desk.owners[-2:] == [Owner(7, 8, "far"), Owner(9, 8)]
    error(client.put("/api/owners", json={"pid": "seven"}), 422)
