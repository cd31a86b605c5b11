"""Are dicts and queues read and written over HTTP, by whoever may, and does a wait end with whoever waits?"""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import msgspec
import pytest
from served import CALL_KEY, KEY, WAIT_S, Server, document, error

from swell.wire.kv import Count, Entries, Found, Items, NewEntries, NewItems, Take

DICT, QUEUE = "/api/dicts/default/d", "/api/queues/default/q"


@pytest.fixture(autouse=True)
def made(client: httpx2.Client) -> Iterator[None]:
    for one in (DICT, QUEUE):
        assert client.put(one, json={}).status_code == 200
    yield
    for one in (DICT, QUEUE):
        client.delete(one)


def sent(client: httpx2.Client, path: str, body: msgspec.Struct | dict[str, Any]) -> httpx2.Response:
    return client.post(path, content=msgspec.json.encode(body))


def as_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_dict_over_http(client: httpx2.Client) -> None:
    entries = NewEntries(((b"\x00k", b"\xffv"), (b"j", b"")))
    assert msgspec.json.decode(sent(client, f"{DICT}/entries", entries).content, type=Count).count == 2
    key = {"key": as_text(b"\x00k")}
    assert msgspec.json.decode(sent(client, f"{DICT}/get", key).content, type=Found) == Found(True, b"\xffv")
    assert sent(client, f"{DICT}/get", key).json() == {"found": True, "value": as_text(b"\xffv")}
    assert sent(client, f"{DICT}/contains", key).json() == {"found": True}
    page = msgspec.json.decode(client.get(f"{DICT}/entries").content, type=Entries)
    assert page.entries == ((b"\x00k", b"\xffv"), (b"j", b""))
    assert client.get(f"{DICT}/entries", params={"after": page.after}).json() == {"entries": [], "after": 0}
    keys = client.get(f"{DICT}/entries", params={"values": 0}).json()["entries"]
    assert keys == [[as_text(b"\x00k"), ""], [as_text(b"j"), ""]]
    assert sent(client, f"{DICT}/pop", {**key, "request": "r"}).json()["found"]
    assert sent(client, f"{DICT}/pop", {**key, "request": "r"}).json()["found"], "asked again"
    assert sent(client, f"{DICT}/pop", key).json() == {"found": False}
    assert client.get(f"{DICT}/count").json() == {"count": 1}
    assert client.delete(f"{DICT}/entries").status_code == 204
    assert client.get(f"{DICT}/count").json() == {"count": 0}
    (row,) = client.get("/api/dicts").json()
    assert client.get(f"/api/dicts/default/{row['id']}").json() == row
    assert client.get("/api/dicts", params={"namespace": "other"}).json() == []


def test_a_queue_over_http(client: httpx2.Client) -> None:
    assert sent(client, f"{QUEUE}/items", NewItems((b"1", b"2"), request="r")).status_code == 204
    assert sent(client, f"{QUEUE}/items", NewItems((b"1", b"2"), request="r")).status_code == 204
    assert sent(client, f"{QUEUE}/items", NewItems((b"p",), "p")).status_code == 204
    assert client.get(f"{QUEUE}/partitions").json() == [{"name": "", "items": 2}, {"name": "p", "items": 1}]
    page = msgspec.json.decode(client.get(f"{QUEUE}/items").content, type=Items)
    assert page.items == (b"1", b"2")
    assert client.get(f"{QUEUE}/items", params={"after": page.after}).json() == {"items": [], "after": 0}
    taken = sent(client, f"{QUEUE}/take", Take(9))
    assert msgspec.json.decode(taken.content, type=Items).items == (b"1", b"2")
    assert client.delete(f"{QUEUE}/items", params={"all": 1}).status_code == 204
    assert client.get(f"{QUEUE}/partitions").json() == []


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (f"{DICT}/get", {"key": "no base64!"}, 422, "invalid"),
        (f"{DICT}/get", {}, 422, "invalid"),
        (f"{DICT}/entries", {"entries": [["", as_text(b"v" * (10 << 20) + b"v")]]}, 413, "value_too_large"),
        (f"{DICT}/pop", {"key": "", "request": "r" * 65}, 422, "invalid"),
        ("/api/dicts/default/nobody/get", {"key": ""}, 404, "unknown_dict"),
        (f"{QUEUE}/items", {"items": [as_text(b"v" * (1 << 20) + b"v")]}, 413, "value_too_large"),
        (f"{QUEUE}/items", {"items": [""], "ttl_s": 0}, 422, "invalid"),
        (f"{QUEUE}/items", {"items": [""], "partition": "p" * 65}, 422, "bad_name"),
        (f"{QUEUE}/items", {"items": [""], "partition": "\0"}, 422, "bad_name"),
        (f"{QUEUE}/items", {"items": [""], "request": "\0"}, 422, "invalid"),
        (f"{QUEUE}/take", {"partition": "p\0"}, 422, "bad_name"),
        (f"{QUEUE}/items", {"items": [""] * 5001}, 413, "value_too_large"),
        (f"{QUEUE}/take", {"wait_s": 61}, 422, "invalid"),
        (f"{QUEUE}/take", {"most": 0}, 422, "invalid"),
        ("/api/queues/default/nobody/take", {}, 404, "unknown_queue"),
    ],
)
def test_what_does_not_fit_is_refused(
    client: httpx2.Client, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    assert error(sent(client, path, body), status)["code"] == code


def test_who_waits_is_answered_by_a_put(client: httpx2.Client, server: Server) -> None:
    got: list[httpx2.Response] = []
    taker = threading.Thread(target=lambda: got.append(sent(client, f"{QUEUE}/take", Take(wait_s=60))))
    taker.start()
    while not server.kv._waiting.count:
        taker.join(0.01)
    sent(client, f"{QUEUE}/items", NewItems((b"1",)))
    taker.join(WAIT_S)
    assert msgspec.json.decode(got[0].content, type=Items).items == (b"1",)


def test_a_wait_ends_with_whoever_waits_and_takes_nothing(client: httpx2.Client, server: Server) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        client.post(f"{QUEUE}/take", content=msgspec.json.encode(Take(wait_s=60)), timeout=0.5)
    still = threading.Event()
    while server.kv._waiting.count:
        still.wait(0.01)
    sent(client, f"{QUEUE}/items", NewItems((b"1",)))
    assert client.get(f"{QUEUE}/partitions").json() == [{"name": "", "items": 1}]


def test_code_in_replicas_has_dicts_queues_and_what_it_spawned_and_nothing_else_of_the_api(
    client: httpx2.Client,
) -> None:
    as_code = {"Authorization": f"Bearer {CALL_KEY}"}
    described = client.get("/api/openapi.json").json()["paths"]
    bodies = {"/api/apps": document(client), "/api/keys": {"name": "mine", "scopes": ["admin"]}}
    bodies["/api/apps/{namespace}/{name}/triggers/{trigger}/backfill"] = {"since": 1.0}
    opened = set()
    for path, operations in described.items():
        for method in operations:
            named = ("namespace", "name", "id", "key", "digest", "workload", "group", "trigger")
            at = path.format(**dict.fromkeys(named, "default"), index=0)
            response = client.request(method, at, headers=as_code, json=bodies.get(path, {}))
            if response.status_code != 403:
                opened.add(path.split("/")[2])
            elif method != "head":
                assert "The key that code in replicas has" in error(response, 403)["message"]
    assert opened == {"calls", "dicts", "queues", "owners"}
    assert client.get("/api/health", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
