"""What is a caller told about queued calls over the API, and about whose?"""

from __future__ import annotations

from typing import Any

import httpx2
import msgspec
import pytest

from api.served import Server, error
from swell.model.call import Body
from swell.wire.call_rows import CallRow
from swell.wire.http import ErrorBody, error_body

CALL = "/api/calls/fc-1"
DIED = ErrorBody("replica_died", "Its replica ended.")


def row(state: Any, **fields: Any) -> CallRow:
    return CallRow("fc-1", state, "default", "a", "f", 1.0, 1.0, 1, **fields)


@pytest.fixture
def kept(server: Server) -> Server:
    server.calls.kept = {"fc-1": row("queued")}
    server.calls.bodies = {}
    server.calls.asked = []
    return server


def key(client: httpx2.Client, power: str, app: str, name: str = "calls") -> dict[str, str]:
    asked = {"name": f"{name} {power} {app}".replace("*", "all"), "scopes": [f"{power}:default/{app}"]}
    return {"Authorization": f"Bearer {client.post('/api/keys', json=asked).json()['key']}"}


def id_of(key: dict[str, str]) -> str:
    return key["Authorization"].split("_")[1]


def test_who_sent_a_call_and_who_may_deploy_its_app_may_see_cancel_and_retry_it_and_nobody_else(
    client: httpx2.Client, kept: Server
) -> None:
    ways = [("GET", CALL), ("DELETE", CALL), ("GET", f"{CALL}/result"), ("POST", f"{CALL}/retry")]
    theirs, owners = key(client, "call", "a"), key(client, "deploy", "a")
    others = [key(client, "admin", "b"), key(client, "call", "a", "other"), key(client, "call", "*")]
    kept.calls.kept["fc-1"] = row("queued", key=id_of(theirs))
    for method, path in ways:
        for may in (theirs, owners, {}):
            assert client.request(method, path, headers=may).status_code in (200, 202)
        nobody = error(client.request(method, path.replace("fc-1", "fc-2"), headers=theirs), 404)
        for other in others:
            told = error(client.request(method, path, headers=other), 404)
            assert told["code"] == nobody["code"] == "unknown_call"
            assert told["message"] == nobody["message"].replace("fc-2", "fc-1")
    for may in (theirs, owners, {}):
        assert client.get("/api/calls?app=a", headers=may).json()[0]["id"] == "fc-1"
    for other in others[1:]:
        assert client.get("/api/calls?app=a", headers=other).json() == []
    assert client.get("/api/calls", headers=others[2]).json() == []
    assert error(client.get("/api/calls", headers=theirs), 403)["code"] == "no_scope"


def test_what_is_asked_reaches_the_queue(client: httpx2.Client, kept: Server) -> None:
    client.get(f"{CALL}?wait_s=7")
    client.get("/api/calls?namespace=n&app=a&state=failed&limit=3&before=fc-9")
    client.get("/api/calls")
    client.delete(CALL)
    client.post(f"{CALL}/retry")
    expected = [("fc-1", 7.0), ("n", "a", "failed", 3, "fc-9"), ("default", "", None, 20, "")]
    assert kept.calls.asked == [*expected, ("cancel", "fc-1", ""), ("retry", "fc-1")]
    for query in ("wait_s=61", "wait_s=-1", "wait_s=x"):
        assert error(client.get(f"{CALL}?{query}"), 400)["code"] == "bad_request"
    for query in ("state=lost", "limit=0", "limit=1001", "app=%00"):
        assert error(client.get(f"/api/calls?{query}"), 400)["code"] == "bad_request"


@pytest.mark.parametrize(
    ("told", "body", "status", "expected"),
    [
        (row("queued"), None, 202, None),
        (row("leased"), None, 202, None),
        (row("done", ended_at=2.0), Body("x/y", b"\0\xff"), 200, b"\0\xff"),
        (row("done", ended_at=2.0), Body("application/json", b"null"), 200, b"null"),
        (row("failed", ended_at=2.0, error=DIED), None, 502, error_body("replica_died", DIED.message, request="fc-1")),
        (row("failed", ended_at=2.0, error=DIED), Body("", b""), 502, error_body("replica_died", DIED.message, "fc-1")),
        (row("failed", ended_at=2.0, error=ErrorBody("exception", "no")), Body("x/y", b"as told"), 500, b"as told"),
        (row("failed", ended_at=2.0, error=ErrorBody("bad_body", "no")), Body("x/y", b"as told"), 400, b"as told"),
        (row("failed", ended_at=2.0, error=ErrorBody("bad_request", "no")), Body("x/y", b"as told"), 400, b"as told"),
        (
            row("failed", ended_at=2.0, error=ErrorBody("unknown_function", "no")),
            Body("x/y", b"as told"),
            404,
            b"as told",
        ),
        (
            row("cancelled", ended_at=2.0, error=ErrorBody("cancelled", "no")),
            None,
            409,
            error_body("cancelled", "no", "fc-1"),
        ),
    ],
)
def test_a_result_is_what_the_call_itself_would_have_been_answered(
    client: httpx2.Client, kept: Server, told: CallRow, body: Body | None, status: int, expected: bytes | None
) -> None:
    kept.calls.kept["fc-1"] = told
    if body is not None:
        kept.calls.bodies["fc-1"] = body
    answer = client.get(f"{CALL}/result")
    assert answer.status_code == status
    assert answer.headers["swell-call-state"] == told.state
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content == (expected if expected is not None else msgspec.json.encode(told))
    if body is not None and body.content_type:
        assert answer.headers["content-type"] == body.content_type
