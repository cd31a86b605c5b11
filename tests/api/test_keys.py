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


def lacks(call: str = "", deploy: str = "", admin: str = "") -> dict[str, str]:
    """What a key that may do so lacks."""
    return {"call": call, "deploy": deploy, "admin": admin}


OPERATIONS: dict[str, dict[str, str]] = {
    # Who may: of a key that may call default/a, deploy default/a, administer default, and administer everything.
    "GET /api/health": lacks(),
    "GET /api/openapi.json": lacks(),
    "GET /api/apps": lacks(),
    "GET /api/replicas": lacks(),
    "GET /api/nodes": lacks(),
    "GET /api/usage": lacks(),
    "GET /api/usage/keys": lacks(),
    "GET /api/requests/q": lacks(),
    "GET /api/requests?app=a": lacks(),
    "GET /api/requests?app=b": lacks("call:default/b", "call:default/b"),
    "GET /api/requests": lacks("call:default/*", "call:default/*"),
    "GET /api/requests?namespace=n": lacks("call:n/*", "call:n/*", "call:n/*"),
    "GET /api/logs": lacks("call:default/*", "call:default/*"),
    "GET /api/logs?app=c": lacks("call:default/c", "call:default/c"),
    "HEAD /api/blobs/sha256-0": lacks("deploy:NAMESPACE/APP"),
    "PUT /api/blobs/sha256-0": lacks("deploy:NAMESPACE/APP"),
    "PUT /api/blobs/sha256-0?namespace=n&app=a": lacks("deploy:n/a"),
    "POST /api/apps a": lacks("deploy:default/a"),
    "POST /api/apps b": lacks("deploy:default/b", "deploy:default/b"),
    "DELETE /api/apps/default/a": lacks("deploy:default/a"),
    "DELETE /api/apps/n/a": lacks("deploy:n/a", "deploy:n/a", "deploy:n/a"),
    "GET /api/apps/default/b/versions": lacks("call:default/b", "call:default/b"),
    "PUT /api/apps/default/b/traffic {}": lacks("deploy:default/b", "deploy:default/b"),
    "PATCH /api/apps/default/b/workloads/f {}": lacks("deploy:default/b", "deploy:default/b"),
    "POST /api/apps/default/b/promote": lacks("deploy:default/b", "deploy:default/b"),
    "POST /api/apps/default/b/rollback {}": lacks("deploy:default/b", "deploy:default/b"),
    "POST /api/apps/default/a/workloads/f/variants {}": lacks(),
    "POST /api/apps/default/b/workloads/f/variants {}": lacks("call:default/b", "call:default/b"),
    'PUT /api/owners {"pid":1,"start_ticks":1}': lacks("deploy:NAMESPACE/APP"),
    "GET /api/limits": lacks(),
    "GET /api/secrets": lacks("deploy:default/*", "deploy:default/*"),
    "PUT /api/secrets/default/s {}": lacks("deploy:default/*", "deploy:default/*"),
    "POST /api/secrets/default/s {}": lacks("deploy:default/*", "deploy:default/*"),
    "POST /api/secrets/default {}": lacks("deploy:default/*", "deploy:default/*"),
    "DELETE /api/secrets/n/s": lacks("deploy:n/*", "deploy:n/*", "deploy:n/*"),
    "GET /api/volumes": lacks("deploy:default/*", "deploy:default/*"),
    "PUT /api/volumes/default/v {}": lacks("deploy:default/*", "deploy:default/*"),
    "PATCH /api/volumes/default/v {}": lacks("deploy:default/*", "deploy:default/*"),
    "GET /api/volumes/default/v/files": lacks("deploy:default/*", "deploy:default/*"),
    "POST /api/volumes/default/v/files {}": lacks("deploy:default/*", "deploy:default/*"),
    "DELETE /api/volumes/default/v/files?path=x": lacks("deploy:default/*", "deploy:default/*"),
    "POST /api/volumes/default/v/copies {}": lacks("deploy:default/*", "deploy:default/*"),
    "GET /api/volumes/default/v/content?path=x": lacks("deploy:default/*", "deploy:default/*"),
    "HEAD /api/volume-contents/default/sha256-0": lacks("deploy:default/*", "deploy:default/*"),
    "PUT /api/volume-contents/default/sha256-0": lacks("deploy:default/*", "deploy:default/*"),
    "DELETE /api/volumes/n/v": lacks("deploy:n/*", "deploy:n/*", "deploy:n/*"),
    **{
        f"{operation} {path}{body}": lacks("deploy:default/*", "deploy:default/*")
        for operation, path, body in (
            ("GET", "/api/dicts", ""),
            ("GET", "/api/dicts/default/d", ""),
            ("PUT", "/api/dicts/default/d", " {}"),
            ("POST", "/api/dicts/default/d/get", ' {"key":""}'),
            ("DELETE", "/api/dicts/default/d", ""),
            ("GET", "/api/queues", ""),
            ("GET", "/api/queues/default/q", ""),
            ("PUT", "/api/queues/default/q", " {}"),
            ("POST", "/api/queues/default/q/take", " {}"),
            ("DELETE", "/api/queues/default/q", ""),
        )
    },
    "GET /api/calls": lacks("call:default/*", "call:default/*"),
    "POST /api/calls/retry": lacks("call:default/*", "call:default/*"),
    "POST /api/calls/retry?app=a": lacks(),
    **{
        operation: lacks()
        for operation in (
            "GET /api/calls?app=a",
            "GET /api/calls/none",
            "GET /api/calls/groups/none",
            "GET /api/calls/none/result",
            "GET /api/calls/none/input",
            "POST /api/calls/none/retry",
            "POST /api/calls/none/forget",
            'POST /api/calls/ends {"ids":["fc-1"]}',
            "DELETE /api/calls/none",
            "DELETE /api/calls/groups/none",
        )
    },
    "GET /api/triggers?app=a": lacks(),
    "GET /api/apps/default/a/triggers/f/firings": lacks(),
    **{
        f"POST /api/apps/default/a/triggers/f/{what}": lacks("deploy:default/a")
        for what in ("pause", "resume", "fire", 'backfill {"since":1.0}')
    },
    "GET /api/backup": lacks("admin", "admin", "admin"),
    "GET /api/keys": lacks("admin:NAMESPACE/APP", "admin:NAMESPACE/APP"),
    "POST /api/keys": lacks("admin:NAMESPACE/APP", "admin:NAMESPACE/APP"),
    "DELETE /api/keys/none": lacks("admin:NAMESPACE/APP", "admin:NAMESPACE/APP"),
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
            body = {"json": msgspec.json.decode(name[0]) if name[0][0] == "{" else document(client, name[0])}
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
    assert error(asked(client, key, "GET", "/api/requests/q"), 404)["code"] == "not_kept"


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
    assert error(asked(client, team, "DELETE", "/api/keys/team"), 404)["code"] == "unknown_key"
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


def test_of_apps_that_a_key_may_not_see_nothing_is_told(client: httpx2.Client) -> None:
    deploy(client, "visible")
    deploy(client, "invisible")
    key = made(client, "sees some", "deploy:default/visible", "deploy:default/nowhere")["key"]
    for method, path, body in (
        ("DELETE", "/api/apps/default/nowhere", None),
        ("GET", "/api/logs?app=nowhere", None),
        ("GET", "/api/requests?app=nowhere", None),
        ("PUT", "/api/apps/default/nowhere/traffic", {"shares": [[1, 100]]}),
    ):
        mine = asked(client, key, method, path, **({} if body is None else {"json": body}))
        everything = client.request(method, path, **({} if body is None else {"json": body}))
        assert "unknown_app" in mine.text, mine.text
        assert "There are: visible." in mine.text
        assert "invisible" in everything.text


def test_what_is_not_kept_and_what_may_not_be_seen_look_alike(client: httpx2.Client) -> None:
    stranger = made(client, "stranger", "call:default/elsewhere")["key"]
    hidden = error(asked(client, stranger, "GET", "/api/requests/q"), 404)
    assert client.get("/api/requests/q").status_code == 200
    assert "default/a" not in hidden["message"]
    assert hidden["code"] == "not_kept"


def test_of_keys_that_a_key_may_not_manage_nothing_is_told(client: httpx2.Client) -> None:
    theirs = made(client, "shared name", "call:theirs/x")["row"]
    team = made(client, "another team", "admin:ours/*")["key"]
    none = error(asked(client, team, "DELETE", "/api/keys/no-such-key"), 404)
    for named in (theirs["id"], "shared%20name"):
        told = error(asked(client, team, "DELETE", f"/api/keys/{named}"), 404)
        assert told["code"] == none["code"] == "unknown_key"
        assert told["message"].partition("'")[0] == none["message"].partition("'")[0]
        assert "theirs" not in told["message"]
    # That others call one of theirs so is not told either.
    asking = {"name": "shared name", "scopes": ["call:ours/x"]}
    ours = asked(client, team, "POST", "/api/keys", json=asking).json()["row"]
    assert error(asked(client, team, "POST", "/api/keys", json=asking), 409)["code"] == "key_taken"
    # Who sees both has to say which.
    ambiguous = error(client.delete("/api/keys/shared%20name"), 409)
    assert ambiguous["code"] == "key_ambiguous"
    assert all(f"{row['id']} ({row['scopes'][0]})" in ambiguous["message"] for row in (theirs, ours))
    assert asked(client, team, "DELETE", "/api/keys/shared%20name").json()["id"] == ours["id"]
    assert client.delete("/api/keys/shared%20name").json()["id"] == theirs["id"]


def test_a_key_that_is_made_with_another_ends_with_it(client: httpx2.Client) -> None:
    team = made(client, "ending team", "admin:ending/*", expires_s=3600)
    inner = asked(client, team["key"], "POST", "/api/keys", json={"name": "inner one", "scopes": ["admin:ending/*"]})
    key = inner.json()["key"]
    row = inner.json()["row"]
    assert row["made_by"] == team["row"]["id"]
    assert row["expires_at"] == team["row"]["expires_at"]
    longer = {"name": "longer", "scopes": ["call:ending/x"], "expires_s": 7200}
    refused = error(asked(client, key, "POST", "/api/keys", json=longer), 422)
    assert refused["code"] == "bad_limit"
    assert f"it would outlive {row['id']}" in refused["message"]
    shorter = asked(client, key, "POST", "/api/keys", json={**longer, "expires_s": 60}).json()
    assert asked(client, shorter["key"], "GET", "/api/apps").status_code == 200
    client.delete(f"/api/keys/{team['row']['id']}")
    for ended in (key, shorter["key"]):
        told = error(asked(client, ended, "GET", "/api/apps"), 401)
        assert told["code"] == "key_revoked"
        assert f"was made with {team['row']['id']}, which was revoked" in told["message"]
    states = {each["name"]: each["state"] for each in client.get("/api/keys").json()}
    assert states["inner one"] == states["longer"] == "revoked"
    # Their names are free.
    assert made(client, "longer", "call:ending/x")["row"]["made_by"] == ""


def test_who_counts_at_the_limits_of_another_key_is_told_of_them(client: httpx2.Client) -> None:
    top = made(client, "top", "admin:counted/*", limits={"concurrency": 5})
    leaf = asked(client, top["key"], "POST", "/api/keys", json={"name": "leaf", "scopes": ["call:counted/x"]}).json()
    rows = asked(client, leaf["key"], "GET", "/api/limits").json()
    assert [(row["name"], row["value"]) for row in rows if row["owner"] == f"key top ({top['row']['id']})"] == [
        ("concurrency", 5)
    ]


def test_use_by_key_is_told_of_apps_that_one_may_see_with_names_of_keys_that_one_may_manage(
    client: httpx2.Client,
) -> None:
    seen = made(client, "user of a", "call:default/a")
    hidden = made(client, "user of all", "call:*/*")
    rows = asked(client, seen["key"], "GET", "/api/usage/keys?since_s=5").json()
    assert {row["pool"] for row in rows} == {"default/a/f@rv-0"}
    assert {row["name"] for row in rows} == {""}
    everything = client.get("/api/usage/keys").json()
    assert {row["pool"] for row in everything} == {"default/a/f@rv-0", "default/b/f@rv-0"}
    names = {row["key"]: row["name"] for row in everything}
    assert (names[seen["row"]["id"]], names[hidden["row"]["id"]]) == ("user of a", "user of all")
    assert (everything[0]["requests"], everything[0]["errors"], everything[0]["cost_usd"]) == (2, 1, 0.25)
