"""Do splits hold for WebSockets and models as for calls, in each namespace by itself?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from websockets.sync.client import connect

from journey.callers import ask
from private_swell import PrivateSwell, private_swell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = """
import numpy as np
from numpy.typing import NDArray

import swell

app = swell.App("forked")


@app.function()
def version() -> int:
    return {version}


@app.function()
@swell.concurrent(max_inputs=100)
def model(x: NDArray[np.int64]) -> NDArray[np.int64]:
    return x * 0 + {version}


@app.function()
@swell.concurrent(max_inputs=100)
@swell.asgi_app(label="{label}")
def socket():
    async def site(scope, receive, send):
        if scope["type"] != "websocket":
            return
        await receive()
        await send({{"type": "websocket.accept"}})
        await send({{"type": "websocket.send", "text": "{version}"}})
        while (await receive())["type"] != "websocket.disconnect":
            await send({{"type": "websocket.send", "text": "{version}"}})
    return site
"""
TEAM = ("--namespace", "team")
ASKED = json.dumps({"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [0]}]}).encode()


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSwell]:
    """The same app in two namespaces, in each with three versions; only one of them is split."""
    file: Path = tmp_path_factory.mktemp("forked") / "forked.py"
    with private_swell(grpc_port=0) as swell:
        for add, words in ((0, ()), (10, TEAM)):
            for number in (1, 2, 3):
                file.write_text(PROGRAM.format(version=number + add, label="forked-in-team" if words else "forked"))
                swell.run("deploy", str(file), *words)
        yield swell


@pytest.fixture(scope="module")
def split(forked: PrivateSwell) -> str:
    """What the command says that split it."""
    how = ("--hash-header", "X-User", "--header", "X-Variant=b:v1", "--tag", "canary:v1")
    return forked.run("app", "traffic", "forked", "v2=50", "v3=50", *how, *TEAM)


def told(swell: PrivateSwell, label: str = "forked-in-team", **headers: str) -> set[str]:
    """What a session is told at its beginning and after a message: it stays where it began."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"ws://127.0.0.1:{swell.port}/web/{label}/"
    with connect(url, additional_headers=sent, open_timeout=120) as client:
        said = {str(client.recv(120))}
        client.send("again")
        return said | {str(client.recv(120))}


def test_sessions_go_where_requests_go(forked: PrivateSwell, split: str) -> None:
    assert told(forked, X_Variant="b") == {"11"}
    assert told(forked, "canary--forked-in-team") == {"11"}
    users = {str(user): told(forked, X_User=str(user)) for user in range(12)}
    assert set.union(*users.values()) == {"12", "13"}
    for user, versions in users.items():
        assert versions == told(forked, X_User=user)
        called = ask(forked, "POST", "/call/team/forked/version", b"{}", {"X-User": user}).value
        assert versions == {str(called)}, "the same caller, the same version"
    drawn: set[str] = set()
    while drawn != {"12", "13"}:
        drawn |= told(forked)
        assert drawn <= {"12", "13"}


def test_an_open_session_stays_when_its_version_loses_its_share(forked: PrivateSwell, split: str) -> None:
    with connect(f"ws://127.0.0.1:{forked.port}/web/canary--forked-in-team/", open_timeout=120) as client:
        assert client.recv(120) == "11"
        forked.run("app", "traffic", "forked", "v2=10", "v3=90", "--tag", "canary:v1", *TEAM)
        client.send("still there?")
        assert client.recv(120) == "11"
    how = ("--hash-header", "X-User", "--header", "X-Variant=b:v1", "--tag", "canary:v1")
    forked.run("app", "traffic", "forked", "v2=50", "v3=50", *how, *TEAM)


def test_a_namespace_is_split_by_itself(forked: PrivateSwell, split: str) -> None:
    assert "/call/team/forked@canary/FUNCTION" in split
    plain = {ask(forked, "POST", "/call/forked/version", b"{}", {"X-Variant": "b"}).value for _ in range(20)}
    assert plain == {3}
    assert told(forked, "forked", X_Variant="b") == {"3"}
    assert ask(forked, "POST", "/call/team/forked@canary/version", b"{}").value == 11
    lost = ask(forked, "POST", "/call/forked@canary/version", b"{}")
    assert (lost.status, lost.error["code"]) == (404, "unknown_version")
    assert "`swell app traffic forked --tag NAME:vN`" in lost.error["message"]
    there = ask(forked, "POST", "/call/team/forked@other/version", b"{}").error["message"]
    assert "`swell app traffic forked --namespace team --tag NAME:vN`" in there


def answered(swell: PrivateSwell, model: str, version: str = "", **headers: str) -> tuple[int, str]:
    """What it computed, and which version it says that it is."""
    path = f"/v2/models/{model}{f'/versions/{version}' if version else ''}/infer"
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer: dict[str, Any] = ask(swell, "POST", path, ASKED, sent).value
    return answer["outputs"][0]["data"][0], answer["model_version"]


def test_a_models_versions_are_asked_for_by_each_name(forked: PrivateSwell, split: str) -> None:
    name = "team--forked--model"
    revisions = ask(forked, "GET", f"/v2/models/{name}").value["versions"]
    assert len(revisions) == 3
    by_number = {11: "v1", 12: "v2", 13: "v3"}
    seen = dict(answered(forked, name, number) for number in by_number.values())
    assert sorted(seen) == [11, 12, 13]
    assert {*seen.values()} == {*revisions}
    for value, revision in seen.items():
        number = by_number[value]
        for version in (revision, number, number[1:], *(["canary"] if value == 11 else [])):
            assert answered(forked, name, version) == (value, revision)
            path = f"/v2/models/{name}/versions/{version}"
            assert ask(forked, "GET", path).value["versions"] == [revision]
            assert ask(forked, "GET", f"{path}/ready").value["ready"] is True
    assert {answered(forked, name, X_User=str(user))[0] for user in range(12)} == {12, 13}
    assert answered(forked, name, X_Variant="b")[0] == 11
    index = ask(forked, "POST", "/v2/repository/index").value
    assert {row["version"] for row in index if row["name"] == name} == {*revisions}
    lost = ask(forked, "GET", f"/v2/models/{name}/versions/v7")
    assert (lost.status, "v1, canary" in lost.value["error"]) == (404, True), lost.value
    assert ask(forked, "GET", "/v2/models/forked--model/versions/canary").status == 404


def test_a_version_is_asked_for_over_grpc(forked: PrivateSwell, split: str) -> None:
    port = json.loads((forked.home / "lock").read_text())["grpc_port"]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        made = []
        for version in ("v1", "2", "canary"):
            asked = pb.ModelInferRequest(model_name="team--forked--model", model_version=version)
            asked.inputs.add(name="x", datatype="INT64", shape=[1]).contents.int64_contents.append(0)
            answer = pb.ModelInferResponse.FromString(infer(asked.SerializeToString(), timeout=120))
            made.append(int.from_bytes(answer.raw_output_contents[0], "little"))
    assert made == [11, 12, 11]
