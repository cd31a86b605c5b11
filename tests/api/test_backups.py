"""Who gets a backup, and what becomes of one whose client leaves or takes nothing?"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, MutableMapping
from typing import Any

import httpx2
import pytest

from api.served import CALL_KEY, KEY, Server, error
from swell.api.answers import ByteStream
from swell.wire.archive import Reader

WAIT_S = 60.0


def test_it_is_a_backup(client: httpx2.Client, server: Server) -> None:
    for query, keys in (("", ()), ("?key_files=true", ("key",))):
        response = client.get(f"/api/backup{query}")
        assert response.headers["content-type"] == "application/octet-stream"
        reader = Reader(io.BytesIO(response.content).read, "it")
        assert [name for name, pieces in reader.members() if [*pieces]] == ["control.db", *keys]
        assert not server.held.locked()


def test_only_who_may_do_everything_gets_one(client: httpx2.Client) -> None:
    for scope in ("admin:default/*", "deploy:*/*"):
        made = client.post("/api/keys", json={"name": scope.partition(":")[0], "scopes": [scope]}).json()
        headers = {"Authorization": f"Bearer {made['key']}"}
        assert error(client.get("/api/backup", headers=headers), 403)["code"] == "no_scope"
    assert error(client.get("/api/backup", headers={"Authorization": f"Bearer {CALL_KEY}"}), 403)["code"] == "no_scope"
    assert error(client.get("/api/backup", headers={"Authorization": "Bearer x"}), 401)["code"] == "bad_key"
    assert client.get("/api/backup", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


class Endless:
    """A source that has always more."""

    def __init__(self) -> None:
        self.closed = 0

    async def stream(self) -> AsyncGenerator[bytes, None]:
        while True:
            yield b"x" * 1000

    async def close(self) -> None:
        self.closed += 1


async def never() -> Any:
    await asyncio.Event().wait()


@pytest.mark.parametrize("takes", [0, 1, 5])
def test_a_client_that_takes_nothing_is_given_up(takes: int) -> None:
    source, sent = Endless(), []

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body" and len(sent) > takes:
            await never()
        sent.append(message)

    asyncio.run(asyncio.wait_for(ByteStream(source, stall_s=0.05)({}, never, send), WAIT_S))
    assert source.closed == 1
    assert all(message.get("more_body", True) for message in sent), "it did not end well"


def test_a_client_that_leaves_closes_it() -> None:
    source, sent = Endless(), asyncio.Event()

    async def receive() -> MutableMapping[str, Any]:
        await sent.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        await asyncio.sleep(0)
        if message["type"] == "http.response.body":
            sent.set()

    asyncio.run(asyncio.wait_for(ByteStream(source)({}, receive, send), WAIT_S))
    assert source.closed == 1
