"""What is around triggers for events? A durable queue, apps that come and go, and sources that remember, or do not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager

from msgspec.structs import replace

from control.calls_place import Place, app_of
from swell.control.event_triggers import EventTriggers, Live
from swell.control.events import EventDesk
from swell.control.feeds import Feeds
from swell.control.own_sources import OwnSources
from swell.model.errors import SwellError
from swell.model.events import AppDeployed
from swell.model.ports import Store
from swell.model.retrying import Retrying
from swell.model.secret import SecretUse
from swell.model.source import Files, Message, NatsStream, SourceConfig, SourceState
from swell.model.source_ports import Feed as FeedPort
from swell.model.subscription import Subscription
from swell.model.workload import App
from swell.sources.feed import Feed

SOON = Retrying(initial_delay_s=0.01, max_delay_s=0.05)
BROKER = Subscription(NatsStream("nats://x", "S", "swell"))
"""Of it the source remembers what was acknowledged."""
LOG = Subscription(Files("/data"))
"""Of it nobody does but who reads it."""


class Origin:
    """Where messages come from: numbered, in one order."""

    def __init__(self, remembers: bool) -> None:
        self.remembers = remembers
        self.messages: list[Message] = []
        self.acknowledged: set[str] = set()
        self.up = True
        self.moved = asyncio.Event()
        self.incarnation = 0
        """Connections of an earlier one are cut."""
        self.connected: list[str] = []
        """The watermarks that it was connected to with."""

    def publish(self, body: bytes = b"", content_type: str = "application/json") -> str:
        n = len(self.messages)
        watermark = "" if self.remembers else f"{n:06}"
        body = body or json.dumps({"n": n}).encode()
        self.messages.append(Message(f"id{n}", body, content_type, 900.0 + n, f"s{n}", watermark))
        self.moved.set()
        return f"id{n}"

    def cut(self) -> None:
        """Who is connected is killed: nothing of it is heard any more."""
        self.incarnation += 1
        self.moved.set()

    @asynccontextmanager
    async def connect(self, after: str) -> AsyncIterator[Connection]:
        if not self.up:
            raise ConnectionError("away")
        self.connected.append(after)
        yield Connection(self, after)


class Connection:
    hold_s = None

    def __init__(self, origin: Origin, after: str) -> None:
        self._origin = origin
        self._after = after
        self._incarnation = origin.incarnation
        self._handed: set[str] = set()

    async def take(self, most: int) -> Sequence[Message]:
        origin = self._origin
        while True:
            if not origin.up or self._incarnation != origin.incarnation:
                raise ConnectionError("away")
            origin.moved.clear()
            waiting = [
                each
                for each in origin.messages
                if each.id not in self._handed
                and (each.id not in origin.acknowledged if origin.remembers else each.watermark > self._after)
            ]
            if waiting:
                self._handed |= {each.id for each in waiting[:most]}
                return waiting[:most]
            await origin.moved.wait()

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        if not self._origin.up or self._incarnation != self._origin.incarnation:
            raise ConnectionError("away")
        self._origin.acknowledged |= {each.id for each in messages}

    async def hold(self, messages: Sequence[Message]) -> None:
        raise AssertionError("nobody asked for it")

    async def waiting(self) -> int | None:
        return len(self._origin.messages) - len(self._handed) if self._origin.remembers else None


class EventPlace(Place):
    """Control as far as events and queued calls go, one incarnation after the other, over one store."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.deployed_at: dict[str, float] = {}
        self.origins: dict[str, Origin] = {"nats": Origin(True), "files": Origin(False)}
        self.secrets = {"hook": "k3y"}
        self.opened: list[str] = []
        """Passwords that sources were opened with."""
        self.waiting = 0
        self.task: asyncio.Task[None] | None = None

    def secret(self, use: SecretUse) -> str:
        if use.name not in self.secrets:
            raise SwellError("unknown_secret", f"There is no secret {use.name}.", status=404)
        return self.secrets[use.name]

    async def open(self) -> None:
        """A new incarnation of control."""
        await super().open()
        store, accept, clock = self.store.triggers, self.keeper.accept, self.clock
        feeds = Feeds(self.feed, accept, store, self.secret, lambda _: self.waiting, clock)
        own = OwnSources(self.keeper, self.store.call_records, clock)

        def read(live: Live) -> Coroutine[None, None, None]:
            return feeds.read(live) if live.trigger.subscription.read is not None else own.read(live)

        self.events = EventTriggers(store, clock, self.world, read, self.deployed_at, own.leave)
        self.desk = EventDesk(self.events, accept, self.secret, lambda _: self.waiting, clock)
        self.task = asyncio.create_task(self.events.run())

    def feed(
        self,
        name: str,
        config: SourceConfig,
        password: str,
        after: str,
        held_max: int,
        changed: Callable[[SourceState], None],
    ) -> FeedPort:
        self.opened.append(password)
        origin = self.origins[str(config.__struct_config__.tag)]
        return Feed(name, origin, after, held_max, reconnecting=SOON, changed=changed)

    async def close(self) -> None:
        """Control ends."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})
            self.task = None
        await super().close()

    async def crash(self) -> None:
        """As of any; neither is anything written that was under way, or that it would write at its end."""
        how, self.store.how = self.store.how, "before"
        await super().crash()
        self.store.how = how

    def subscribe(self, name: str, subscription: Subscription | None) -> None:
        """Deploy an app whose function is called for that."""
        made = app_of(name)
        self.put(replace(made, workloads=tuple(replace(each, subscription=subscription) for each in made.workloads)))

    def put(self, app: App) -> None:
        """Deploy it."""
        self.apps[app.name] = app
        self.deployed_at[app.key] = self.clock.at
        self.take(AppDeployed(self.clock.at, app))
        self.events.changed(app.key, self.clock.at)

    def stop(self, name: str) -> None:
        """As the API does."""
        super().stop(name)
        self.deployed_at.pop(f"default/{name}", None)
        self.events.changed(f"default/{name}", self.clock.at)
