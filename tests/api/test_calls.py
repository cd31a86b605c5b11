"""What is a caller told about queued calls over the API, and about whose?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from api.served import Server, error
from swell.model.call import Body, Call, GroupEnd, Members
from swell.wire.call_rows import CallRow, EndsPage, GroupEndRow, GroupPage
from swell.wire.calls import INPUT_MAX
from swell.wire.http import MSGPACK, PICKLE, ErrorBody, error_body

CALL = "/api/calls/fc-1"
DIED = ErrorBody("replica_died", "Its replica ended.")


def row(state: Any, **fields: Any) -> CallRow:
    return CallRow("fc-1", state, "default", "a", "f", 1.0, 1.0, 1, **fields)


@pytest.fixture
def kept(server: Server) -> Server:
    server.calls.kept = {"fc-1": row("queued")}
    server.calls.bodies = {}
    server.calls.inputs = {}
    server.calls.asked = []
    return server


def key(client: httpx2.Client, power: str, app: str, name: str = "calls") -> dict[str, str]:
    asked = {"name": f"{name} {power} {app}".replace("*", "all"), "scopes": [f"{power}:default/{app}"]}
    return {"Authorization": f"Bearer {client.post('/api/keys', json=asked).json()['key']}"}


def test_who_waits_is_told_by_the_key(client: httpx2.Client, kept: Server) -> None:
    theirs = key(client, "call", "a", "waiting")
    kept.calls.kept["fc-1"] = row("queued", key=id_of(theirs))
    kept.calls.askers = []
    for headers in (theirs, {}):
        client.get(CALL, headers=headers)
        client.get(f"{CALL}/result", headers=headers)
        client.post("/api/calls/ends", headers=headers, json={"ids": ["fc-1"]})
    assert kept.calls.askers == [*[id_of(theirs)] * 3, *[""] * 3]


def id_of(key: dict[str, str]) -> str:
    return key["Authorization"].split("_")[1]


def test_who_sent_a_call_and_who_may_deploy_its_app_may_see_cancel_and_retry_it_and_nobody_else(
    client: httpx2.Client, kept: Server
) -> None:
    paths = [("GET", CALL), ("DELETE", CALL), ("GET", f"{CALL}/result"), ("GET", f"{CALL}/input")]
    ways = [*paths, ("POST", f"{CALL}/retry"), ("POST", f"{CALL}/forget")]
    kept.calls.inputs["fc-1"] = Body("application/json", b"{}")
    theirs, owners = key(client, "call", "a"), key(client, "deploy", "a")
    others = [key(client, "admin", "b"), key(client, "call", "a", "other"), key(client, "call", "*")]
    kept.calls.kept["fc-1"] = row("queued", key=id_of(theirs))
    for method, path in ways:
        for may in (theirs, owners, {}):
            assert client.request(method, path, headers=may).status_code in (200, 202, 204)
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
    client.get("/api/calls?namespace=n&app=a&state=failed&limit=3&before=fc-9&jobs=true")
    client.get("/api/calls")
    client.delete(CALL)
    client.post(f"{CALL}/retry")
    client.post(f"{CALL}/forget")
    expected = [("fc-1", 7.0), ("n", "a", "failed", 3, "fc-9", True), ("default", "", None, 20, "", False)]
    assert kept.calls.asked == [*expected, ("cancel", "fc-1", ""), ("retry", "fc-1", None), ("forget", "fc-1")]
    for query in ("wait_s=61", "wait_s=-1", "wait_s=x"):
        assert error(client.get(f"{CALL}?{query}"), 400)["code"] == "bad_request"
    for query in ("state=lost", "limit=0", "limit=1001", "app=%00", "before=%00", "namespace=a%00", "function=f"):
        assert error(client.get(f"/api/calls?{query}"), 400)["code"] == "bad_request"
    for path in ("fc-1%00", "%00/result", "groups/%00", "groups/fg-1/inputs/%00"):
        assert error(client.get(f"/api/calls/{path}"), 400)["code"] == "bad_request"


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


@pytest.fixture
def large(kept: Server, tmp_path: Path) -> Body:
    """A result of fc-1 that is in a file."""
    path, body = tmp_path / "large", Body("x/y", digest="sha256-1")
    path.write_bytes(b"large" * 1000)
    kept.calls.kept["fc-1"] = row("done", ended_at=2.0)
    kept.calls.bodies["fc-1"] = body
    kept.calls.files[body.digest] = str(path)
    return body


def test_a_large_result_is_had_from_its_file_and_alone(client: httpx2.Client, kept: Server, large: Body) -> None:
    answer = client.get(f"{CALL}/result")
    assert (answer.status_code, answer.content) == (200, b"large" * 1000)
    told = ("content-type", "content-length", "swell-call-state", "x-content-type-options")
    assert [answer.headers[name] for name in told] == ["x/y", "5000", "done", "nosniff"]
    part = client.get(f"{CALL}/result", headers={"range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, b"large")
    (end,) = ends(client, "fc-1").ends
    assert (end.apart, end.state, end.status) == (True, "done", 413)
    assert "/calls/fc-1/result" in msgspec.json.decode(end.body)["error"]["message"]
    kept.calls.files.clear()
    assert error(client.get(f"{CALL}/result"), 404)["code"] == "unknown_call"


def test_a_large_result_of_a_group_is_told_to_be_one(client: httpx2.Client, grouped: Server, large: Body) -> None:
    grouped.calls.of_group = [end(1, "done", Body("x", b"one")), end(2, "done", large)]
    told = page(client)
    assert [(each.index, each.apart, each.status) for each in told.ends] == [(1, False, 200), (2, True, 413)]


# -- inputs, and dead letters that are tried again -------------------------------------------------


def test_an_input_is_told_as_it_came_while_it_is_kept(client: httpx2.Client, kept: Server) -> None:
    assert error(client.get(f"{CALL}/input"), 404)["code"] == "no_input"
    for body in (Body("application/json", b'{"a": 1}'), Body(PICKLE, b"\x80\x05\xff"), Body("", b"")):
        kept.calls.inputs["fc-1"] = body
        answer = client.get(f"{CALL}/input")
        assert (answer.status_code, answer.content) == (200, body.data)
        assert answer.headers["content-type"] == (body.content_type or "application/json")
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("content_type", "data", "input"),
    [
        ("application/json", b"", None),
        ("", b"", None),
        ("", b"[1]", Body("application/json", b"[1]")),
        ("application/x-www-form-urlencoded", b"{}", Body("application/json", b"{}")),
        ("Application/JSON; charset=utf-8", b' {"a":1}', Body("application/json", b' {"a":1}')),
        ("application/msgpack", b"\x90", Body("application/msgpack", b"\x90")),
        ("application/octet-stream", b"\xff", Body("application/octet-stream", b"\xff")),
        ("application/X-swell-pickle ;x=1", b"\x80", Body(PICKLE, b"\x80")),
    ],
)
def test_a_dead_letter_is_tried_again_with_the_body_as_its_input(
    client: httpx2.Client, kept: Server, content_type: str, data: bytes, input: Body | None
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    assert client.post(f"{CALL}/retry", content=data, headers=headers).json()["id"] == "fc-1"
    assert kept.calls.asked == [("retry", "fc-1", input)]


def test_what_cannot_be_an_input_changes_nothing(client: httpx2.Client, kept: Server) -> None:
    for content_type, data, status, code in (
        ("application/json", b"{", 400, "bad_body"),
        ("application/json", b"\xff", 400, "bad_body"),
        ("", b"NaN", 400, "bad_body"),
        # That would be an input, and one that no function takes.
        ("", b"null", 400, "bad_body"),
        ("application/json", b' "x" ', 400, "bad_body"),
        ("application/msgpack", b"\xc0", 400, "bad_body"),
        ("application/msgpack", b"\x92", 400, "bad_body"),
        ("text/html", b"<b>", 400, "bad_request"),
        ("application/x-swell-frames", b"x", 400, "bad_request"),
        ("application/msgpack", bytes(INPUT_MAX + 1), 413, "body_too_large"),
    ):
        answer = client.post(f"{CALL}/retry", content=data, headers={"content-type": content_type})
        assert error(answer, status)["code"] == code
    assert kept.calls.asked == []


def test_a_pickle_is_taken_of_those_alone_who_may_deploy_the_app(client: httpx2.Client, kept: Server) -> None:
    theirs, owners = key(client, "call", "a", "p"), key(client, "deploy", "a", "p")
    kept.calls.kept["fc-1"] = row("failed", key=id_of(theirs))
    for content_type in (PICKLE, f"{PICKLE};v=1", PICKLE.upper()):
        answer = client.post(f"{CALL}/retry", content=b"\x80", headers={**theirs, "content-type": content_type})
        assert error(answer, 403)["code"] == "no_scope"
    assert kept.calls.asked == []
    assert client.post(f"{CALL}/retry", content=b"[1]", headers=theirs).status_code == 200
    for may in (owners, {}):
        answer = client.post(f"{CALL}/retry", content=b"\x80", headers={**may, "content-type": PICKLE})
        assert answer.status_code == 200


def test_many_are_tried_again_of_those_that_its_key_may_see(client: httpx2.Client, kept: Server) -> None:
    theirs, owners = key(client, "call", "a", "m"), key(client, "deploy", "a", "m")
    query = "app=a&function=f&since=7.5&limit=3&before=fc-9"
    for headers in (theirs, owners, {}):
        told = client.post(f"/api/calls/retry?{query}", headers=headers)
        assert told.json() == {"retried": 2, "before": "fc-0"}
    which = ("retry", "default", "a", "f", 7.5, 3, "fc-9")
    assert kept.calls.asked == [(*which, id_of(theirs)), (*which, None), (*which, None)]
    for query, status in (("app=b", 403), ("", 403), ("app=a&function=g", 200)):
        assert client.post(f"/api/calls/retry?{query}", headers=theirs).status_code == status
    for query in ("function=f", "limit=0", "limit=1001", "since=x", "state=done", "app=%00"):
        assert error(client.post(f"/api/calls/retry?{query}"), 400)["code"] == "bad_request"


# -- many ------------------------------------------------------------------------------------------

ENDS = "/api/calls/ends"


def ends(client: httpx2.Client, *ids: str, query: str = "", **more: Any) -> EndsPage:
    answer = client.post(f"{ENDS}?{query}", json={"ids": ids}, **more)
    assert (answer.status_code, answer.headers["content-type"]) == (200, MSGPACK)
    return msgspec.msgpack.decode(answer.content, type=EndsPage)


def test_ends_of_many_calls_are_told_in_one_answer_as_each_would_have_been_answered(
    client: httpx2.Client, kept: Server
) -> None:
    rows = [
        row("done", ended_at=2.0),
        row("failed", ended_at=2.0, error=DIED),
        row("cancelled", ended_at=2.0, error=ErrorBody("cancelled", "no")),
        row("leased"),
    ]
    kept.calls.kept = {f"fc-{n}": msgspec.structs.replace(each, id=f"fc-{n}") for n, each in enumerate(rows)}
    kept.calls.bodies = {"fc-0": Body("x/y", b"\0\xff"), "fc-1": Body("application/json", b"{}")}
    told = ends(client, *kept.calls.kept, "fc-9", query="wait_s=7&least=3")
    assert kept.calls.asked == [((*kept.calls.kept, "fc-9"), 3, 7.0)]
    for each in told.ends:
        alone = client.get(f"/api/calls/{each.id}/result")
        assert (each.status, each.body) == (alone.status_code, alone.content)
        assert (each.content_type, each.state) == (alone.headers["content-type"], alone.headers["swell-call-state"])
    assert [each.id for each in told.ends] == ["fc-0", "fc-1", "fc-2"]
    assert told.unknown == ("fc-9",)
    assert ends(client, "fc-3") == EndsPage(())


def test_of_the_calls_of_others_ends_are_as_those_of_none(client: httpx2.Client, kept: Server) -> None:
    theirs, owners = key(client, "call", "a", "e1"), key(client, "deploy", "a", "e1")
    kept.calls.kept["fc-1"] = row("done", ended_at=2.0, key=id_of(theirs))
    kept.calls.bodies["fc-1"] = Body("x", b"one")
    for may in (theirs, owners, {}):
        assert [each.body for each in ends(client, "fc-1", headers=may).ends] == [b"one"]
    for other in (key(client, "call", "a", "e2"), key(client, "admin", "b", "e1")):
        assert ends(client, "fc-1", "fc-2", headers=other) == EndsPage((), ("fc-1", "fc-2"))


def test_what_asks_for_no_ends_is_refused(client: httpx2.Client, kept: Server) -> None:
    for body in ({}, {"ids": []}, {"ids": [1]}, {"ids": ["fc-1"] * 1001}, {"ids": ["fc-1"], "x": 1}, []):
        assert error(client.post(ENDS, json=body), 422)["code"] == "invalid"
    assert error(client.post(ENDS, content=b"{"), 400)["code"] == "bad_body"
    for query in ("wait_s=61", "wait_s=-1", "least=0", "least=1001", "x=1"):
        assert error(client.post(f"{ENDS}?{query}", json={"ids": ["fc-1"]}), 400)["code"] == "bad_request"
    assert kept.calls.asked == []


# -- groups ----------------------------------------------------------------------------------------

GROUP = "/api/calls/groups/fg-1"


def end(number: int, state: Any, body: Body | None, key: str = "") -> tuple[CallRow, GroupEnd]:
    call = Call(
        f"fc-{number}", "default/a/f", "f", 1.0, 1.0, key=key, state=state, idempotency_key=f"g {number}", group="g"
    )
    error = DIED if state == "failed" else None
    told = CallRow(call.id, state, "default", "a", "f", 1.0, 1.0, 1, key=key, error=error)
    return told, GroupEnd(number, call, body)


def page(client: httpx2.Client, query: str = "", **more: Any) -> GroupPage:
    answer = client.get(f"{GROUP}/ends?{query}", **more)
    assert (answer.status_code, answer.headers["content-type"]) == (200, MSGPACK)
    return msgspec.msgpack.decode(answer.content, type=GroupPage)


@pytest.fixture
def grouped(kept: Server) -> Server:
    kept.calls.of_group = [
        end(1, "done", Body("x", b"one")),
        end(2, "failed", None),
        end(3, "failed", Body("application/json", b"{}")),
    ]
    kept.calls.groups = {"fg-1": [Members("default/a/f", "", 1, 3)]}
    kept.calls.problems = {}
    return kept


def test_ends_of_a_group_are_told_with_what_each_call_would_have_been_answered(
    client: httpx2.Client, grouped: Server
) -> None:
    told = page(client, "after=0&most=9&least=3&wait_s=5")
    assert grouped.calls.asked == [("fg-1", 0, 9, 3, 5.0)]
    first, second, third = told.ends
    assert first == GroupEndRow("fc-1", 1, "done", 200, "x", b"one")
    assert (second.index, second.status) == (2, 502)
    assert msgspec.json.decode(second.body)["error"]["code"] == "replica_died"
    assert (third.status, third.content_type, third.body) == (502, "application/json", b"{}")
    assert (told.last, told.open, told.problem) == (3, None, None)
    assert page(client, "after=3") == GroupPage((), 3, 1, None)
    grouped.calls.problems = {"default/a/f": DIED}
    assert page(client, "after=3").problem == DIED
    assert client.get(GROUP).json() == {"id": "fg-1", "calls": 4, "open": 1}
    for query in ("after=-1", "most=0", "most=1001", "least=0", "wait_s=61", "x=1"):
        assert error(client.get(f"{GROUP}/ends?{query}"), 400)["code"] == "bad_request"


def test_of_a_group_one_sees_and_cancels_what_came_with_the_same_key(client: httpx2.Client, grouped: Server) -> None:
    theirs, owners = key(client, "call", "a", "g1"), key(client, "deploy", "a", "g1")
    others = [key(client, "call", "a", "g2"), key(client, "admin", "b", "g1")]
    mine = id_of(theirs)
    grouped.calls.of_group = [end(1, "done", Body("x", b"one"), mine), end(2, "done", Body("x", b"two"))]
    grouped.calls.groups = {"fg-1": [Members("default/a/f", mine, 2, 1), Members("default/a/f", "", 3, 1)]}
    grouped.calls.kept = {"fc-1": row("queued", key=mine), "fc-2": row("queued")}
    seen = page(client, headers=theirs)
    assert ([each.id for each in seen.ends], seen.last) == (["fc-1"], 1), "of others not even the number"
    assert [each.id for each in page(client, headers=owners).ends] == ["fc-1", "fc-2"]
    assert client.get(GROUP, headers=theirs).json()["calls"] == 3
    assert client.delete(GROUP, headers=theirs).status_code == 204
    assert client.delete(GROUP, headers=owners).status_code == 204
    cancelled = [asked[3] for asked in grouped.calls.asked if asked[0] == "cancel"]
    assert cancelled == [["fc-1"], ["fc-1", "fc-2"]]
    asked = len(grouped.calls.asked)
    ways = [("GET", GROUP), *(("GET", f"{GROUP}/ends?{query}") for query in ("", "after=2", "wait_s=60&had=1"))]
    for other in others:
        for method, path in ways:
            for place in (path, path.replace("fg-1", "fg-2")):
                assert error(client.request(method, place, headers=other), 404)["code"] == "unknown_call"
    assert grouped.calls.asked[asked:] == [], "nothing is waited for, and nothing forgotten"
    for other in others:
        assert error(client.delete(GROUP, headers=other), 404)["code"] == "unknown_call"
    assert [told[3] for told in grouped.calls.asked[asked:]] == [[], []]


def test_what_its_sender_has_had_is_forgotten_and_no_more(client: httpx2.Client, grouped: Server) -> None:
    theirs = key(client, "call", "a", "g3")
    grouped.calls.groups["fg-1"].append(Members("default/a/f", id_of(theirs), 1, 0))
    page(client, "after=2&had=1")
    page(client, "after=2&had=3", headers=theirs)
    page(client, "after=2")
    forgotten = [asked for asked in grouped.calls.asked if asked[0] == "forget"]
    assert forgotten == [("forget", "fg-1", "", 1), ("forget", "fg-1", id_of(theirs), 2)]
    assert error(client.get(f"{GROUP}/ends?had=-1"), 400)["code"] == "bad_request"


def test_one_call_of_a_group_is_told_by_the_number_of_its_input(client: httpx2.Client, grouped: Server) -> None:
    theirs = key(client, "call", "a", "g4")
    one, other = f"{GROUP}/inputs/1", f"{GROUP}/inputs/2"
    assert client.get(one).json()["id"] == "fc-1"
    for headers, path in (({}, other), (theirs, one), ({}, one.replace("fg-1", "fg-2"))):
        assert error(client.get(path, headers=headers), 404)["code"] == "unknown_call"
    for index in ("x", "-1", "1234567890"):
        assert error(client.get(f"{GROUP}/inputs/{index}"), 400)["code"] == "bad_request"
