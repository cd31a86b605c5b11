"""Does the API take parameters of who may call, and options of who may deploy, and say what is wrong with them?"""

from __future__ import annotations

from typing import Any

import httpx2
import msgspec
import pytest

from api.served import Server, error
from swell.model.secret import SecretUse
from swell.model.workload import Options
from swell.wire.api import NewVariant

PATH = "/api/apps/default/a/workloads/f/variants"


def key(client: httpx2.Client, *scopes: str) -> dict[str, str]:
    made = client.post("/api/keys", json={"name": scopes[0].partition(":")[0], "scopes": scopes}).json()
    return {"authorization": f"Bearer {made['key']}"}


def test_what_is_asked_for_reaches_control_as_it_was_given(server: Server, client: httpx2.Client) -> None:
    asked = NewVariant({"name": "x", "size": 3, "loud": True}, Options(cpu=2.0, secrets=()))
    response = client.post(PATH, content=msgspec.json.encode(asked))
    assert response.status_code == 200, response.text
    assert response.json()["name"] == "f~0123456789ab"
    assert server.desk.varied == asked


def test_options_are_for_who_may_deploy_and_secrets_of_others_for_who_may_there(
    server: Server, client: httpx2.Client
) -> None:
    caller, deployer = key(client, "call:default/a"), key(client, "deploy:default/a")
    options = {"options": {"cpu": 1}}
    assert client.post(PATH, json={"parameters": {"name": "x"}}, headers=caller).status_code == 200
    assert caller["authorization"].partition("_")[2].startswith(server.desk.varied_by + "_")
    assert "deploy:default/a" in error(client.post(PATH, json=options, headers=caller), 403)["message"]
    assert client.post(PATH, json=options, headers=deployer).status_code == 200
    foreign = msgspec.json.encode(NewVariant({}, Options(secrets=(SecretUse("prod", "db"),))))
    assert "deploy:prod/*" in error(client.post(PATH, content=foreign, headers=deployer), 403)["message"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"cpus": 1}, "invalid", "unknown field `cpus`"),
        ({"min_replicas": 1}, "invalid", "unknown field `min_replicas`"),
        ({"cpu": "1"}, "invalid", "Expected `float | null`"),
        ({"cpu": 0}, "bad_option", "cpu must be above 0"),
        ({"cpu": 2, "cpu_limit": 1}, "bad_option", "cpu_limit 1 is less than cpu 2"),
        ({"cpu_limit": 1}, "bad_option", "cpu_limit goes with cpu"),
        ({"max_replicas": 0}, "bad_option", "max_replicas must be from 1"),
        ({"idle_s": 0}, "bad_option", "idle_s must be above 0"),
        ({"timeout_max_s": 0}, "bad_option", "timeout_max_s must be above 0"),
        ({"variables": [["A=", "1"]]}, "bad_option", "has no name the system takes"),
        ({"batch": {"max_size": 0, "wait_ms": 1}}, "bad_option", "max_size must be from 1"),
        ({"retrying": {"max_retries": -1}}, "bad_option", "max_retries must be from 0"),
    ],
)
def test_what_is_wrong_with_options_is_said(
    client: httpx2.Client, options: dict[str, Any], code: str, words: str
) -> None:
    told = error(client.post(PATH, json={"options": options}), 422)
    assert told["code"] == code
    assert words in told["message"]


def test_all_that_is_wrong_is_said(client: httpx2.Client) -> None:
    told = error(client.post(PATH, json={"options": {"cpu": 0, "timeout_s": -1}}), 422)
    assert "(the first of 3 problems)" in told["message"] or "(the first of 2 problems)" in told["message"]
    assert "timeout_s must be above 0" in told["detail"]
