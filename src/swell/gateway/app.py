"""What is the gateway process? Accepts clients on one listener and serves them until it is closed."""

from __future__ import annotations

import asyncio
import logging
import math
import resource
import socket
from collections.abc import Callable
from contextlib import suppress

from swell.gateway.api_pool import ApiPool
from swell.gateway.client import REFUSED_MAX, Client
from swell.gateway.front import Front
from swell.gateway.link import BEAT_S, Link
from swell.gateway.metrics import Scraping
from swell.gateway.request import Request
from swell.gateway.shared import Shared
from swell.model.hosts import is_loopback
from swell.wire.settings import Settings
from swell.wire.websocket import GOING_AWAY

log = logging.getLogger("swell.gateway")

BACKLOG = 2048
OWN_DESCRIPTORS = 64
"""For everything but clients and replicas."""
API_DRAIN_S = 1.0
"""How long an end waits for calls of the API."""
SAY_AFTER_S = 0.3
"""What an end waits for is told after this long…"""
SAY_EVERY_S = 2.0
"""…and again, when it changed, so often at most."""
TABLE_WAIT_S = 5.0
"""Clients are not accepted before control told what there is; without control, after this long all the same."""


class Gateway:
    """The data plane. `key` and `call_key` are the two secrets that make a caller trusted.

    `incarnation` is new at each start of the process; request ids begin with it. `name` says which of the server's
    gateways it is.
    """

    def __init__(
        self,
        settings: Settings,
        key: str,
        incarnation: str,
        call_key: str = "",
        version: str = "0",
        name: str = "0",
    ) -> None:
        self.settings = settings
        self.key = key
        self.call_key = call_key
        self.incarnation = incarnation
        self.version = version
        self.name = name
        self.table_wait_s = TABLE_WAIT_S
        self.beat_s = BEAT_S
        self.clients: set[Client] = set()
        self._closed: asyncio.Event | None = None
        self._shared: Shared | None = None
        self._server: asyncio.Server | None = None
        self._link: Link | None = None
        self._front: Front | None = None
        self._cut = False

    async def serve(self, listener: socket.socket, accepting: Callable[[], None] = lambda: None) -> None:
        """Serve clients of a bound, listening socket until cancelled or `close` is done. Runs once.

        `accepting` is called once it does. Until then clients wait in the socket's own queue: a gateway that
        knows no app yet would refuse what the one before it served.
        """
        loop = asyncio.get_running_loop()
        home = self.settings.paths
        shared = self._shared = Shared(self.settings, self.incarnation, loop)
        shared.connections_max = connections_max(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        front = self._front = Front(shared, self.key, self.call_key, ApiPool(shared, f"unix:{home.api_socket}"))
        front.door.locked = is_open(listener)
        self._closed = asyncio.Event()
        self._link = Link(shared, front.deployed, front.queueing, home.control_socket, self.incarnation, self.beat_s)
        front.own.scraped = Scraping(shared, front.deployed, self._link, self.clients, self.version, self.name).answer
        link_task = loop.create_task(self._link.run())
        listener.setblocking(False)
        with suppress(TimeoutError):
            await asyncio.wait_for(front.deployed.told.wait(), self.table_wait_s)
        self._server = await loop.create_server(
            lambda: Client(shared, self.clients, front.handle), sock=listener, backlog=BACKLOG
        )
        accepting()
        try:
            await self._closed.wait()
        finally:
            self._server.close()
            shared.closing = True
            self._cut_all(shared, front)
            self._link.flush()
            link_task.cancel()
            await asyncio.gather(link_task, return_exceptions=True)
            for task in [*shared.tasks]:
                task.cancel()

    async def close(self, grace_s: float, say: Callable[[str], None] = lambda _line: None) -> None:
        """Accept no more, let requests finish for at most `grace_s` or until `cut`, end the others, and end `serve`.

        `say` is told what is waited for.
        """
        if self._closed is None or self._shared is None or self._front is None:
            return
        if self._server is None:
            self._front.deployed.told.set()
            self._closed.set()
            return
        loop = asyncio.get_running_loop()
        self._server.close()
        self._shared.closing = True
        self._part()
        now = loop.time()
        until, api_until, say_at, said = now + grace_s, now + min(grace_s, API_DRAIN_S), now + SAY_AFTER_S, 0
        while self.clients and now < until and not self._cut:
            for client in [c for c in self.clients if c.current is None and not c.inbound.queue]:
                client.transport.close()
            calls = sum(self._is_waited_for(client) for client in self.clients)
            if not calls and now >= api_until:
                break
            if now >= say_at and calls not in (0, said):
                said, say_at = calls, now + SAY_EVERY_S
                say(
                    # With what `swell down` puts in front of it, no wider than a terminal: the way out is at its end.
                    f"{calls} request{'s run' if calls > 1 else ' runs'}, at most {until - now:.0f} s; "
                    "`swell down --now` cuts"
                )
            await asyncio.sleep(min(0.02, until - now))
            now = loop.time()
        self._closed.set()

    def cut(self) -> None:
        """Wait no longer for requests: `close` ends them, now or as soon as it is called."""
        self._cut = True

    def _is_waited_for(self, client: Client) -> bool:
        """What follows a log by the API would never end by itself; calls and web endpoints have a deadline."""
        request = client.current
        if request is None or request.done:
            return False
        return self._front is None or request.pool is not self._front.own.api

    def _part(self) -> None:
        """A WebSocket has no end of its own to wait for: both of its sides are told to come to one."""
        for client in [*self.clients]:
            if client.tunnel is not None:
                client.tunnel.leave(GOING_AWAY, "The server is being stopped.")

    def _cut_all(self, shared: Shared, front: Front) -> None:
        self._part()
        # Told first, in words of their own: they wait for control's, and may have been begun, or accepted.
        front.queueing.lost()
        shared.deaths.listen(False)
        for client in [*self.clients]:
            if client.current is not None:
                _cut(client.current)
            client.transport.close()


def _cut(request: Request) -> None:
    """Only what was not begun can be tried again without harm."""
    if request.upstream is None:
        message = "The server is being stopped, and this was not begun. Try again in a moment."
        request.fail(503, "stopping", message, b"retry-after: 1\r\n")
    else:
        message = "The server was stopped while this ran: it was cut off. What it had done by then is done."
        request.fail(503, "stopping", message)


def connections_max(descriptors: int) -> float:
    """Clients that so many descriptors are enough for: each may need a second one, to a replica."""
    if descriptors == resource.RLIM_INFINITY:
        return math.inf
    return max((descriptors - OWN_DESCRIPTORS - REFUSED_MAX) // 2, 1)


def is_open(listener: socket.socket) -> bool:
    """Whether other machines can reach the listener."""
    return listener.family in (socket.AF_INET, socket.AF_INET6) and not is_loopback(listener.getsockname()[0])
