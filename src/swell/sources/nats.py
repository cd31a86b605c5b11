"""How are messages of a NATS JetStream stream taken and acknowledged?

By a durable pull consumer. The library's own fetch waits until it has as many as it asked for; here a pull stands open,
and what comes is passed on as it comes. Reconnecting is `Feed`'s business, so a lost connection is an error here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import nats
from nats.errors import NoServersError
from nats.js import api
from nats.js.errors import NotFoundError

from swell.model.source import Message, NatsStream

CONNECT_S = 10.0
ANSWER_S = 3.0
"""For the server to answer anything."""
PULL_S = 20.0
"""How long a pull stands open where nothing comes."""
PING_S = 10.0
"""A server that answers two of these pings no more is lost."""
ACKNOWLEDGED_MAX = 256
"""Acknowledgements under way at once."""
_OVER = ("404", "408")
"""Statuses of a pull that ended as pulls do: there was nothing, or its time is up."""


class NatsSource:
    """The port, for a stream."""

    def __init__(self, config: NatsStream, password: str = "") -> None:
        """Without a user in the url the password is a token."""
        self._config = config
        self._password = password

    @asynccontextmanager
    async def connect(self, after: str) -> AsyncIterator[_Pull]:
        """See the port. The consumer remembers what was acknowledged: there are no watermarks."""
        del after
        lost = asyncio.Event()

        async def gone() -> None:
            lost.set()

        # Why it cannot be reached the library tells by a callback alone; what else it tells shows by what fails.
        why: list[Exception] = []

        async def told(error: Exception) -> None:
            why[:] = [error]

        client = await self._client(gone, told, why)
        try:
            await self._make_consumer(client)
            pull = _Pull(self._config, client, lost)
            await pull.open()
            yield pull
        finally:
            await client.close()

    async def _client(self, gone: Callable[[], Any], told: Callable[[Exception], Any], why: list[Exception]) -> Any:
        connecting = nats.connect(
            self._config.url,
            **self._identity(),
            name="swell",
            allow_reconnect=False,
            # It tries a server that it never reached for ever, or so often and once more.
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=CONNECT_S,
            ping_interval=PING_S,
            max_outstanding_pings=2,
            disconnected_cb=gone,
            closed_cb=gone,
            error_cb=told,
        )
        try:
            return await connecting
        except NoServersError:
            raise ConnectionError(str(why[0]) if why else "no server") from None

    def _identity(self) -> dict[str, str]:
        user = urlsplit(self._config.url).username
        if not self._password:
            return {}
        return {"user": unquote(user), "password": self._password} if user else {"token": self._password}

    async def _make_consumer(self, client: Any) -> None:
        """Where it is not there; one that is stays as it is."""
        config = self._config
        stream = client.jetstream(timeout=ANSWER_S)
        try:
            found = await stream.consumer_info(config.stream, config.consumer)
        except NotFoundError:
            # Of the consumer, or of the stream: then making it fails, in the server's words.
            policy = api.DeliverPolicy.ALL if config.since == "all" else api.DeliverPolicy.NEW
            wanted = api.ConsumerConfig(
                durable_name=config.consumer,
                ack_policy=api.AckPolicy.EXPLICIT,
                ack_wait=config.ack_wait_s,
                deliver_policy=policy,
                filter_subject=config.subject or None,
            )
            await stream.add_consumer(config.stream, wanted)
            return
        if found.config.deliver_subject:
            raise ConnectionError(f"the consumer {config.consumer} pushes; a pull consumer is needed")
        if (found.config.filter_subject or "") != config.subject:
            words = f"the consumer {config.consumer} is there, for the subject {found.config.filter_subject or '>'}"
            raise ConnectionError(f"{words} and not {config.subject or '>'}: give this source one of its own")


class _Pull:
    """Over one connection: a pull that stands open, and what came by it."""

    def __init__(self, config: NatsStream, client: Any, lost: asyncio.Event) -> None:
        self._config = config
        self._client = client
        self._lost = lost
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{config.stream}.{config.consumer}"
        self._inbox = client.new_inbox()
        self._came: deque[Message] = deque()
        self._asked = 0
        """Messages that the pull which stands open may still bring."""
        self._failed = ""
        """What the server has against pulls."""
        self._moved = asyncio.Event()
        self.hold_s = config.ack_wait_s / 3

    async def open(self) -> None:
        # What is asked for is bounded by who takes; the library drops what is above its own bounds.
        await self._client.subscribe(self._inbox, cb=self._hear, pending_msgs_limit=-1, pending_bytes_limit=-1)

    async def take(self, most: int) -> Sequence[Message]:
        """See the port."""
        if not self._came:
            if not self._asked:
                await self._pull(most)
            await self._wait()
        return [self._came.popleft() for _ in range(min(most, len(self._came)))]

    async def _pull(self, most: int) -> None:
        asked = {"batch": most, "expires": int(PULL_S * 1e9)}
        self._asked = most
        await self._client.publish(self._next, msgspec.json.encode(asked), reply=self._inbox)

    async def _wait(self) -> None:
        self._moved.clear()
        lost, moved = (asyncio.ensure_future(event.wait()) for event in (self._lost, self._moved))
        try:
            await asyncio.wait((lost, moved), timeout=PULL_S + ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            moved.cancel()
        if self._lost.is_set():
            raise ConnectionError("the server closed the connection")
        if self._failed:
            raise ConnectionError(self._failed)
        if not self._moved.is_set():
            # Not even that its time is up: the server does not know the pull any more.
            self._asked = 0

    async def _hear(self, message: Any) -> None:
        status = (message.headers or {}).get("Status") if not message.data else None
        if status is None:
            self._asked = max(0, self._asked - 1)
            self._came.append(self._message(message))
        else:
            self._asked = 0
            if status not in _OVER:
                self._failed = f"{status} {(message.headers or {}).get('Description', '')}".strip()
        self._moved.set()

    def _message(self, message: Any) -> Message:
        """Its id has its time in it: a stream that was deleted and made again counts from 1 again."""
        # $JS.ACK.stream.consumer.handed_out.sequence.… with a domain and an account in front, or without.
        tokens = message.reply.split(".")
        stream, sequence, at_ns = (tokens[i + (2 if len(tokens) > 9 else 0)] for i in (2, 5, 7))
        headers = message.headers or {}
        return Message(
            id=f"{stream[:120]}:{sequence}:{at_ns}",
            body=message.data,
            content_type=headers.get("Content-Type", self._config.content_type),
            at=int(at_ns) / 1e9,
            subject=message.subject,
            receipt=message.reply,
        )

    async def waiting(self) -> int | None:
        """See the port."""
        stream = self._client.jetstream(timeout=ANSWER_S)
        found = await stream.consumer_info(self._config.stream, self._config.consumer)
        return int(found.num_pending or 0) + len(self._came)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        """See the port."""
        for i in range(0, len(messages), ACKNOWLEDGED_MAX):
            some = messages[i : i + ACKNOWLEDGED_MAX]
            await asyncio.gather(*(self._client.request(d.receipt, b"+ACK", timeout=ANSWER_S) for d in some))

    async def hold(self, messages: Sequence[Message]) -> None:
        """See the port."""
        for each in messages:
            await self._client.publish(each.receipt, b"+WPI")
