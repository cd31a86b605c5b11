"""How are entries of a Redis stream taken and acknowledged?

By a consumer of a group. First come its own entries that it never acknowledged, then new ones; in between those that
somebody has had for too long: another consumer, or a connection of this one that had broken when they were sent there.
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from swell.model.source import Message, RedisStream

CONNECT_S = 10.0
BLOCK_S = 5.0
"""How long a read waits where nothing comes."""
ANSWER_S = 15.0
"""For any answer; that of a read that waits, too."""

Fields = dict[bytes, bytes]


class RedisSource:
    """The port, for a stream."""

    def __init__(self, config: RedisStream, password: str = "") -> None:
        self._config = config
        self._password = password
        self._seen = False
        """The group was there once, while this runs: should it have gone, all that is there now is new."""

    @asynccontextmanager
    async def connect(self, after: str) -> AsyncIterator[_Group]:
        """See the port. The group remembers what was acknowledged: there are no watermarks."""
        del after
        password: dict[str, Any] = {"password": self._password} if self._password else {}
        # Nothing is tried again behind our back: whether an answer came is to be known.
        never = Retry(NoBackoff(), 0)
        client = Redis.from_url(
            self._config.url,
            **password,
            protocol=2,
            retry=never,
            socket_connect_timeout=CONNECT_S,
            socket_timeout=ANSWER_S,
            client_name="swell",
        )
        try:
            await self._make_group(client)
            yield _Group(self._config, client)
        finally:
            await client.aclose()

    async def _make_group(self, client: Any) -> None:
        begin = "0" if self._seen or self._config.since == "all" else "$"
        try:
            await client.xgroup_create(self._config.stream, self._config.group, begin, mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self._seen = True


class _Group:
    """Over one connection: how far the consumer's own entries were read, and when others' are looked at next."""

    def __init__(self, config: RedisStream, client: Any) -> None:
        self._config = config
        self._client = client
        self._own: bytes | None = b"0"
        """Of its own entries the last one seen; None: it has seen all."""
        self._claim_at = 0.0
        self._claim_from: bytes | str = "0-0"
        self.hold_s = config.claim_s / 3

    async def take(self, most: int) -> Sequence[Message]:
        """See the port."""
        config = self._config
        if self._own is not None:
            came = await self._read(self._own, most)
            self._own = came[-1][0] if came else None
            return await self._messages(came)
        if time.monotonic() >= self._claim_at:
            claimed = await self._claim(most)
            if claimed:
                return await self._messages(claimed)
        return await self._messages(await self._read(">", most, block_s=min(BLOCK_S, config.claim_s / 2)))

    async def _read(
        self, after: bytes | str, most: int, block_s: float | None = None
    ) -> list[tuple[bytes, Fields | None]]:
        config = self._config
        block_ms = None if block_s is None else int(block_s * 1000)
        answer = await self._client.xreadgroup(
            config.group, config.consumer, {config.stream: after}, count=most, block=block_ms
        )
        return answer[0][1] if answer else []

    async def _claim(self, most: int) -> list[tuple[bytes, Fields | None]]:
        """Some of what others have had for too long. Where the list of all is at its end it is looked at later."""
        config = self._config
        answer = await self._client.xautoclaim(
            config.stream,
            config.group,
            config.consumer,
            min_idle_time=int(config.claim_s * 1000),
            start_id=self._claim_from,
            count=most,
        )
        self._claim_from = answer[0]
        if self._claim_from in (b"0-0", "0-0"):
            self._claim_at = time.monotonic() + config.claim_s / 2
        return list(answer[1])

    async def _messages(self, entries: list[tuple[bytes, Fields | None]]) -> list[Message]:
        gone = [id for id, fields in entries if not fields]
        if gone:
            # Deleted, or trimmed away, before anybody read them: there is nothing left to deliver.
            await self._client.xack(self._config.stream, self._config.group, *gone)
        return [self._message(id.decode(), fields) for id, fields in entries if fields]

    def _message(self, id: str, fields: Fields) -> Message:
        field = self._config.field.encode()
        if field:
            body, content_type = fields.get(field, b""), self._config.content_type
        else:
            body = msgspec.json.encode({text(name): value(each) for name, each in fields.items()})
            content_type = "application/json"
        at = int(id.partition("-")[0]) / 1000
        return Message(id, body, content_type, at, self._config.stream)

    async def waiting(self) -> int | None:
        """See the port. Redis counts them from 7.0 on, and not where entries before the group's were deleted."""
        groups = await self._client.xinfo_groups(self._config.stream)
        lags: dict[bytes, int | None] = {each["name"]: each.get("lag") for each in groups}
        return lags.get(self._config.group.encode())

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """See the port."""
        await self._client.xack(self._config.stream, self._config.group, *(each.id for each in messages))

    async def hold(self, messages: Sequence[Message]) -> None:
        """See the port. Claimed by who has it, an entry is not idle any more."""
        config = self._config
        ids = [each.id for each in messages]
        await self._client.xclaim(config.stream, config.group, config.consumer, 0, ids, justid=True)


def text(name: bytes) -> str:
    """Of a field's name."""
    return name.decode("utf-8", "backslashreplace")


def value(each: bytes) -> str | dict[str, str]:
    """As JSON has it: text, or {"base64": …} of what is none."""
    try:
        return each.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(each).decode()}
