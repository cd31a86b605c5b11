"""Does an app get secrets and volumes of another namespace only by a key that may deploy there, wherever it is said?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import msgspec
import pytest

from api.served import Server, document, error
from swell.decide.access import SERVER
from swell.model.environment import BuildCall
from swell.model.secret import SecretUse
from swell.model.source import RedisStream
from swell.model.subscription import Subscription
from swell.model.volume import VolumeUse
from swell.model.workload import App, Revision, Workload
from swell.wire.api import Deploy, DeployLine

replaced = msgspec.structs.replace
Making = Callable[[App, str], App]
"""An app that has something of a namespace."""


def with_revision(app: App, **changes: Any) -> App:
    revision: Revision = replaced(app.revisions[0], **changes)
    return replaced(app, workloads=(replaced(app.workloads[0], revision=revision.id),), revisions=(revision,))


def with_trigger(workload: Workload, space: str) -> Workload:
    stream = RedisStream("redis://mine.example:6379", "orders", group="g")
    return replaced(workload, subscription=Subscription(stream, SecretUse(space, "db", ("PASSWORD",))))


def secrets(app: App, space: str) -> App:
    return with_revision(app, secrets=(SecretUse(space, "db"),))


def volumes(app: App, space: str) -> App:
    return with_revision(app, volumes=(VolumeUse(space, "data", "/data"),))


def build_secrets(app: App, space: str) -> App:
    call = BuildCall("mod", "load", "0", b"", secrets=(SecretUse(space, "db"),))
    environment = replaced(app.revisions[0].environment, build_calls=(call,))
    return with_revision(app, environment=environment)


def trigger_secret(app: App, space: str) -> App:
    return replaced(app, workloads=(with_trigger(app.workloads[0], space),))


def former_trigger_secret(app: App, space: str) -> App:
    """It gets nothing by that, and is not told what there is either."""
    return replaced(app, previous=(with_trigger(app.workloads[0], space),))


MAKINGS = (secrets, volumes, build_secrets, trigger_secret, former_trigger_secret)


def an_app(client: httpx2.Client, name: str, make: Making, space: str) -> bytes:
    return msgspec.json.encode(Deploy(make(msgspec.convert(document(client, name)["app"], App), space)))


def key(client: httpx2.Client, name: str, *scopes: str) -> dict[str, str]:
    made = client.post("/api/keys", json={"name": name, "scopes": scopes}).json()
    return {"authorization": f"Bearer {made['key']}"}


def last(response: httpx2.Response) -> DeployLine:
    assert response.status_code == 200, response.text
    return msgspec.json.decode(response.content.splitlines()[-1], type=DeployLine)


@pytest.mark.parametrize("make", MAKINGS)
def test_a_deploy_names_only_what_its_key_may_deploy_with(server: Server, client: httpx2.Client, make: Making) -> None:
    name = make.__name__.replace("_", "-")
    own = key(client, f"{name} own", f"deploy:default/{name}")
    both = key(client, f"{name} both", f"deploy:default/{name}", "deploy:prod/*")
    one = key(client, f"{name} one", f"deploy:default/{name}", f"deploy:prod/{name}", "call:prod/*")
    for too_little in (own, one):
        told = error(client.post("/api/apps", content=an_app(client, name, make, "prod"), headers=too_little), 403)
        assert told["code"] == "no_scope"
        assert "lacks the scope deploy:prod/*:" in told["message"]
    assert f"default/{name}" not in server.desk.kept
    for headers, space in ((own, "default"), (both, "prod")):
        response = client.post("/api/apps", content=an_app(client, name, make, space), headers=headers)
        assert last(response).kind == "done", response.text


@pytest.mark.parametrize("make", MAKINGS[:-1])
def test_a_version_is_gone_back_to_only_with_a_key_that_may_deploy_it(client: httpx2.Client, make: Making) -> None:
    name = f"back-{make.__name__.replace('_', '-')}"
    own = key(client, name, f"deploy:default/{name}")
    for space in ("prod", "default"):
        assert last(client.post("/api/apps", content=an_app(client, name, make, space))).kind == "done"
    path = f"/api/apps/default/{name}/rollback"
    assert "deploy:prod/*" in error(client.post(path, json={"to": 1}, headers=own), 403)["message"]
    assert last(client.post(path, json={"to": 2}, headers=own)).kind == "done"
    assert last(client.post(path, json={"to": 1})).kind == "done"


def test_control_is_told_who_asks(server: Server, client: httpx2.Client) -> None:
    """It knows what else a deploy, a split, a promotion and a withdrawal put in place."""
    own = key(client, "asks", "deploy:default/canary")
    path = "/api/apps/default/canary"
    for headers in ({}, own):
        server.desk.asked_by.clear()
        assert last(client.post("/api/apps", json=document(client, "canary"), headers=headers)).kind == "done"
        assert last(client.post(f"{path}/rollback", json={"to": 1}, headers=headers)).kind == "done"
        assert last(client.put(f"{path}/traffic", json={"shares": [[1, 100]]}, headers=headers)).kind == "done"
        assert last(client.post(f"{path}/promote", headers=headers)).kind == "done"
        assert last(client.post(f"{path}/rollback", json={}, headers=headers)).message == "default/canary alone"
        scopes = {tuple(map(str, holder.scopes)) for holder in server.desk.asked_by}
        assert (len(server.desk.asked_by), scopes) == (
            5,
            {("deploy:default/canary",) if headers else tuple(map(str, SERVER.scopes))},
        )
