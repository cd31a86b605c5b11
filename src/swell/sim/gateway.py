"""How would requests fare? The gateway that is shipped, but for its sockets, and those who wait for its answers.

From a request with its head and body read to its answer's bytes all is production: routes, the hold, connections to
replicas, questions for slots, levels, and the link to control. A replica's truth is its slots (`sim/slots`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from random import Random
from typing import Protocol

from swell.gateway.api_pool import ApiPool
from swell.gateway.app import TABLE_WAIT_S
from swell.gateway.front import Front
from swell.gateway.link import Link
from swell.gateway.pool import Pool
from swell.gateway.request import Request as Asked
from swell.gateway.shared import Shared
from swell.sim.clock import MachineClock, Timeline
from swell.sim.process import Process, process_of
from swell.sim.served import Doors, Request
from swell.wire.link import Route
from swell.wire.settings import Settings

BEAT_S = 2.0
"""A gateway says so often that it is there."""


class Surroundings(Protocol):
    """What gateways share."""

    time: Timeline
    machine: MachineClock
    settings: Settings
    doors: Doors
    bereft: set[str]
    """Pools whose last requests ended with their replica: nobody wants them any more."""

    def went(self, route: Route, pool: str) -> None:
        """A request of a workload went to that of its versions."""
        ...

    def to_control(
        self, gateway: SimGateway, process: Process, protocol: asyncio.Protocol
    ) -> asyncio.Transport | None: ...
    def broke(self, problem: str) -> None: ...


class Caller:
    """Who waits for the answer to one request."""

    write_paused = False

    def __init__(self, request: Request, over: Callable[[Request, str], None], broke: Callable[[str], None]) -> None:
        self._request = request
        self._over = over
        self._broke = broke
        self._said = b""

    def goes_to(self, pool: str) -> None:
        self._request.pool = pool

    def write(self, data: bytes) -> None:
        self._said += data

    def answered(self, _asked: Asked) -> None:
        status, body = self._said[9:12], self._said.partition(b"\r\n\r\n")[2]
        if status == b"200" and body != b"%d" % self._request.number:
            self._broke(f"request {self._request.number} was answered {body!r}")
        late = "held" if b"held_too_long" in body else "refused"
        self._over(self._request, {b"200": "answered", b"504": "deadline"}.get(status, late))

    def cut(self, _asked: Asked) -> None:
        self._over(self._request, "refused")

    def switch(self, tunnel: object) -> None:
        raise AssertionError(tunnel)

    def stop_reading(self, why: int) -> None:
        """All of it was read."""

    def read_on(self, why: int) -> None: ...


class _Watched(Front):
    """One that says to which pool each request went."""

    def __init__(self, shared: Shared, around: Surroundings) -> None:
        super().__init__(shared, "key", "", ApiPool(shared, f"unix:{shared.settings.paths.api_socket}"))
        self._around = around

    def handle(self, request: Asked) -> None:
        super().handle(request)
        pool = request.pool
        if isinstance(pool, Pool) and isinstance(request.client, Caller):
            request.client.goes_to(pool.key)
            self._around.went(self.deployed.rows[pool.workload], pool.key)
            if not request.done:
                self._around.bereft.discard(pool.key)


class SimGateway:
    """One gateway, one process after the other."""

    def __init__(self, name: str, around: Surroundings, chance: Random) -> None:
        self.name = name
        """Another one for each process of it."""
        self.around = around
        self.chance = chance
        self.finished: list[Request] = []
        self.down = False
        self._begun = 0
        self._early: list[Request] = []
        """Those that came before it accepts any: they wait in the socket."""
        self._open: dict[Request, None] = {}
        """Those that it has."""
        self.begin()

    # -- its life ----------------------------------------------------------------------------

    def begin(self) -> None:
        """The next one knows nothing, and nobody knows it."""
        around, base = self.around, self.name.partition("-")[0]
        self._begun += 1
        self.name, self.down, self._accepts = f"{base}-{self._begun}", False, False
        self.process = process_of(f"gateway {self.name}", around.time, around.broke, connect=self._connect)
        self.process.do(self._serve)

    def _serve(self) -> None:
        around, process = self.around, self.process
        settings, chance = around.settings, Random(self.chance.random())
        shared = Shared(settings, self.name, process, around.time.now, around.machine.now, chance)
        self.front = front = _Watched(shared, around)
        link = Link(shared, front.deployed, front.queueing, settings.paths.control_socket, self.name, BEAT_S)
        process.create_task(link.run())
        process.create_task(self._accept())

    async def _accept(self) -> None:
        """As the process does, once there is a table."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.front.deployed.told.wait(), TABLE_WAIT_S)
        self._accepts = True
        early, self._early = self._early, []
        for request in early:
            self._take(request)

    def _connect(self, process: Process, protocol: asyncio.Protocol, path: str) -> asyncio.Transport | None:
        if path == str(self.front.shared.settings.paths.control_socket):
            return self.around.to_control(self, process, protocol)
        return self.around.doors.connect(process, protocol, path.rpartition("/")[2])

    def crash(self) -> None:
        """Its process dies. Who waits for an answer sees the connection break, and so do replicas."""
        self.process.kill()
        self.down = True
        self.around.doors.killed(self.process)
        for request in [*self._early, *self._open]:
            self._over(request, "lost")
        self._early.clear()

    # -- requests ----------------------------------------------------------------------------

    def arrive(self, request: Request) -> None:
        if self._accepts and not self.down:
            self.process.do(partial(self._take, request))
        else:
            self._early.append(request)

    def _take(self, request: Request) -> None:
        """It was read, head and body."""
        shared, body = self.front.shared, b"%d" % request.number
        _, app, function = request.workload.split("/")
        asked = Asked(
            shared,
            Caller(request, self._over, self.around.broke),
            request.came_at,
            b"POST",
            f"/call/{app}/{function}".encode(),
            shared.next_id(),
            length=len(body),
            head=b"content-length: %d\r\n" % len(body),
            body=[body],
            size=len(body),
            complete=True,
        )
        if request.until < math.inf:
            asked.wait_for(request.until - request.came_at)
        self._open[request] = None
        self.front.handle(asked)

    def _over(self, request: Request, outcome: str) -> None:
        self._open.pop(request, None)
        if request.outcome:
            self.around.broke(f"request {request.number} ended twice: {request.outcome}, then {outcome}")
        request.outcome, request.ended_at = outcome, self.around.time.now()
        self.finished.append(request)

    # -- what is looked at -------------------------------------------------------------------

    @property
    def routes(self) -> dict[str, Route]:
        return self.front.deployed.rows

    @property
    def pools(self) -> dict[str, Pool]:
        return self.front.deployed.pools

    @property
    def held(self) -> dict[str, int]:
        """Pool → how many wait there."""
        return {} if self.down else {key: pool.held_count for key, pool in self.pools.items() if pool.held}

    def wants(self, pool: str) -> bool:
        return not self.down and any(each.held or each.in_flight for each in self._known(pool))

    def _known(self, pool: str) -> Iterator[Pool]:
        deployed = self.front.deployed
        for pools in (deployed.pools, deployed.leaving):
            if pool in pools:
                yield pools[pool]
