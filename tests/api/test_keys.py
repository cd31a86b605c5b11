"""Does the API let each key do what its scopes say, and are keys made and revoked as asked?"""

from __future__ import annotations

from typing import Any

import httpx2
import msgspec
import pytest

from api.served import Server, deploy, document, error


def made(client: httpx2.Client, name: str, *scopes: str, **more: Any) -> dict[str, Any]:
    response = client.post("/api/keys", json={"name": name, "scopes": scopes, **more})
    assert response.status_code == 200, response.text
    return response.json()


def asked(client: httpx2.Client, key: str, method: str, path: str, **more: Any) -> httpx2.Response:
    return client.request(method, path, headers={"authorization": f"Bearer {key}"}, **more)


OPERATIONS: dict[str, dict[str, str]] = {
    # Who may: of a key that may call default/a, deploy default/a, administer default, and administer everything.
    "GET /api/health": {"call": "", "deploy": "", "admin": ""},
    "GET /api/openapi.json": {"call": "", "deploy": "", "admin": ""},
    "GET /api/apps": {"call": "", "deploy": "", "admin": ""},
    "GET /api/replicas": {"call": "", "deploy": "", "admin": ""},
    "GET /api/usage": {"call": "", "deploy": "", "admin": ""},
    "GET /api/requests/q": {"call": "", "deploy": "", "admin": ""},
    "GET /api/requests?app=a": {"call": "", "deploy": "", "admin": ""},
    "GET /api/requests?app=b": {"call": "call:default/b", "deploy": "call:default/b", "admin": ""},
    "GET /api/requests": {"call": "call:default/*", "deploy": "call:default/*", "admin": ""},
    "GET /api/requests?namespace=n": {"call": "call:n/*", "deploy": "call:n/*", "admin": "call:n/*"},
    "GET /api/logs": {"call": "call:default/*", "deploy": "call:default/*", "admin": ""},
    "GET /api/logs?app=c": {"call": "call:default/c", "deploy": "call:default/c", "admin": ""},
    "HEAD /api/blobs/sha256-0": {"call": "deploy:NAMESPACE/APP", "deploy": "", "admin": ""},
    "PUT /api/blobs/sha256-0": {"call": "deploy:NAMESPACE/APP", "deploy": "", "admin": ""},
    "POST /api/apps a": {"call": "deploy:default/a", "deploy": "", "admin": ""},
    "POST /api/apps b": {"call": "deploy:default/b", "deploy": "deploy:default/b", "admin": ""},
    "DELETE /api/apps/default/a": {"call": "deploy:default/a", "deploy": "", "admin": ""},
    "DELETE /api/apps/n/a": {"call": "deploy:n/a", "deploy": "deploy:n/a", "admin": "deploy:n/a"},
    "GET /api/apps/default/b/versions": {"call": "call:default/b", "deploy": "call:default/b", "admin": ""},
    "PUT /api/apps/default/b/traffic {}": {"call": "deploy:default/b", "deploy": "deploy:default/b", "admin": ""},
    "PATCH /api/apps/default/b/workloads/f {}": {"call": "deploy:default/b", "deploy": "deploy:default/b", "admin": ""},
    "POST /api/apps/default/b/promote": {"call": "deploy:default/b", "deploy": "deploy:default/b", "admin": ""},
    "POST /api/apps/default/b/rollback {}": {"call": "deploy:default/b", "deploy": "deploy:default/b", "admin": ""},
    "GET /api/limits": {"call": "", "deploy": "", "admin": ""},
    "GET /api/secrets": {"call": "deploy:default/*", "deploy": "deploy:default/*", "admin": ""},
    "PUT /api/secrets/default/s {}": {"call": "deploy:default/*", "deploy": "deploy:default/*", "admin": ""},
    "POST /api/secrets/default/s {}": {"call": "deploy:default/*", "deploy": "deploy:default/*", "admin": ""},
    "POST /api/secrets/default {}": {"call": "deploy:default/*", "deploy": "deploy:default/*", "admin": ""},
    "DELETE /api/secrets/n/s": {"call": "deploy:n/*", "deploy": "deploy:n/*", "admin": "deploy:n/*"},
    "GET /api/keys": {"call": "admin:NAMESPACE/APP", "deploy": "admin:NAMESPACE/APP", "admin": ""},
    "POST /api/keys": {"call": "admin:NAMESPACE/APP", "deploy": "admin:NAMESPACE/APP", "admin": ""},
    "DELETE /api/keys/none": {"call": "admin:NAMESPACE/APP", "deploy": "admin:NAMESPACE/APP", "admin": ""},
}


def test_every_operation_asks_for_its_scope(client: httpx2.Client) -> None:
    keys = {
        power: made(client, f"matrix {power}", f"{power}:default/{'*' if power == 'admin' else 'a'}")["key"]
        for power in ("call", "deploy", "admin")
    }
    paths = client.get("/api/openapi.json").json()["paths"]
    tried = set()
    for operation, expected in OPERATIONS.items():
        method, path, *name = operation.split()
        tried.add((method.lower(), path.partition("?")[0]))
        body: dict[str, Any] = {"content": b"x"} if method == "PUT" else {}
        if name:
            body = {"json": {} if name == ["{}"] else document(client, name[0])}
        elif method == "POST":
            body = {"json": {"name": "by a key", "scopes": ["call:default/a"]}}
        for power, lacking in expected.items():
            response = asked(client, keys[power], method, path, **body)
            if not lacking:
                assert response.status_code not in (401, 403), f"{operation} with {power}: {response.text}"
            elif method == "HEAD":
                assert response.status_code == 403
            else:
                told = error(response, 403)
                assert told["code"] == "no_scope", operation
                assert f"lacks the scope {lacking}:" in told["message"], f"{operation} with {power}"
    as_patterns = {(method, path) for path, found in paths.items() for method in found}
    for method, path in as_patterns:
        begin = path.partition("{")[0]
        assert any(m == method and p.startswith(begin) for m, p in tried), f"{method} {path} is not tried"


def test_listings_show_what_a_key_may_see(client: httpx2.Client, server: Server) -> None:
    deploy(client, "seen")
    deploy(client, "unseen")
    key = made(client, "listing", "call:default/seen")["key"]
    assert [row["name"] for row in asked(client, key, "GET", "/api/apps").json()] == ["seen"]
    # The only replica and request are of default/a.
    assert asked(client, key, "GET", "/api/replicas").json() == []
    assert asked(client, key, "GET", "/api/usage").json() == []
    assert asked(client, key, "GET", "/api/health").json()["waiting"] == {}
    assert client.get("/api/health").json()["waiting"] == {"default/a/f@rv-0": "no room"}
    told = error(asked(client, key, "GET", "/api/requests/q"), 403)
    assert "call:default/a" in told["message"]


def test_limits_are_told_to_whom_they_concern(client: httpx2.Client) -> None:
    deploy(client, "mine")
    deploy(client, "theirs")
    key = made(client, "limited", "call:default/mine", limits={"rate_per_s": 0.5})
    made(client, "another", "call:default/mine", limits={"concurrency": 3})
    rows = asked(client, key["key"], "GET", "/api/limits").json()
    owners = {row["owner"] for row in rows}
    assert owners == {"server", "mine/f", f"key limited ({key['row']['id']})"}
    assert {(row["name"], row["value"]) for row in rows if row["owner"].startswith("key")} == {
        ("rate_per_s", 0.5),
        ("burst", 1),
    }
    all_owners = {row["owner"] for row in client.get("/api/limits").json()}
    assert any(owner.startswith("key another") for owner in all_owners)
    assert "theirs/f" in all_owners


def test_nobody_has_more_made_than_the_own_key_may(client: httpx2.Client) -> None:
    team = made(client, "team", "admin:team/*", "call:default/a")["key"]
    inner = asked(client, team, "POST", "/api/keys", json={"name": "inner", "scopes": ["deploy:team/x"]}).json()
    for scopes in (["admin"], ["call:default/a"], ["call:team/x", "call:other/x"], ["admin:*/*"]):
        refused = asked(client, team, "POST", "/api/keys", json={"name": "more", "scopes": scopes})
        assert error(refused, 403)["code"] == "no_scope", scopes
    assert [row["name"] for row in asked(client, team, "GET", "/api/keys").json()] == ["inner"]
    assert error(asked(client, team, "DELETE", "/api/keys/team"), 403)["code"] == "no_scope"
    gone = asked(client, team, "DELETE", f"/api/keys/{inner['row']['id']}").json()
    assert gone["state"] == "revoked"
    assert error(asked(client, inner["key"], "GET", "/api/apps"), 401)["code"] == "key_revoked"


def test_a_key_is_told_once_and_never_again(client: httpx2.Client, server: Server) -> None:
    whole = made(client, "told", "call:default/a", "call:default/a", expires_s=60, limits={"rate_per_s": 2.0})
    secret = whole["key"].rpartition("_")[2]
    assert whole["key"].startswith(f"swk_{whole['row']['id']}_")
    assert whole["row"]["scopes"] == ["call:default/a"]
    assert whole["row"]["limits"] == {"rate_per_s": 2.0}
    listed = client.get("/api/keys").text
    assert "told" in listed
    assert secret not in listed
    assert secret.encode() not in msgspec.msgpack.encode(server.desk.ring.all())


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"name": "", "scopes": ["admin"]}, "invalid"),
        ({"name": "a\nb", "scopes": ["admin"]}, "invalid"),
        ({"name": "x" * 101, "scopes": ["admin"]}, "invalid"),
        ({"name": "a/b", "scopes": ["admin"]}, "invalid"),
        ({"name": "x", "scopes": []}, "bad_scope"),
        ({"name": "x", "scopes": ["call"]}, "bad_scope"),
        ({"name": "x", "scopes": ["admin"], "expires_s": 0}, "bad_limit"),
        ({"name": "x", "scopes": ["admin"], "expires_s": 1e99}, "bad_limit"),
        ({"name": "x", "scopes": ["admin"], "limits": {"burst": 3}}, "bad_limit"),
        ({"name": "x", "scopes": ["admin"], "limits": {"rate_per_s": -1}}, "bad_limit"),
        ({"name": "x", "scopes": ["admin"], "rate": 3}, "invalid"),
        ({"name": "x"}, "invalid"),
    ],
)
def test_what_can_be_no_key_is_refused(client: httpx2.Client, document: dict[str, Any], code: str) -> None:
    assert error(client.post("/api/keys", json=document), 422)["code"] == code


def test_names_of_keys_that_work_are_theirs(client: httpx2.Client) -> None:
    first = made(client, "one name", "admin")["row"]
    again = client.post("/api/keys", json={"name": "one name", "scopes": ["admin"]})
    assert error(again, 409)["code"] == "key_taken"
    assert client.delete("/api/keys/one%20name").json()["id"] == first["id"]
    second = made(client, "one name", "admin")["row"]
    # By its name the one that works; one that was revoked stays as it was.
    assert client.delete("/api/keys/one%20name").json()["id"] == second["id"]
    before = client.delete(f"/api/keys/{first['id']}").json()
    assert before == client.delete(f"/api/keys/{first['id']}").json()
    assert error(client.delete("/api/keys/nobody"), 404)["code"] == "unknown_key"


def test_a_key_ends_at_its_time(client: httpx2.Client, server: Server) -> None:
    whole = made(client, "short", "admin", expires_s=3600)
    assert asked(client, whole["key"], "GET", "/api/apps").status_code == 200
    ring = server.desk.ring
    ring._keys[whole["row"]["id"]] = msgspec.structs.replace(ring.get(whole["row"]["id"]), expires_at=1.0)
    assert error(asked(client, whole["key"], "GET", "/api/apps"), 401)["code"] == "key_expired"
    (row,) = [row for row in client.get("/api/keys").json() if row["name"] == "short"]
    assert row["state"] == "expired"
