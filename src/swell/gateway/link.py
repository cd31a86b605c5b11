"""How does the gateway speak with control? Takes the table, and tells levels and finished requests.

Everything is level: after a reconnect control sends its whole table and is sent every level that is not
zero; so it is when it asks, since it forgets those of a gateway that it does not hear. While control is away,
or does not read, the gateway goes on with the last table and keeps counting; what it would say then waits.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from swell.decide.route import Unmade
from swell.gateway.deployed import Deployed
from swell.gateway.queueing import UNSENT_MAX, Queueing
from swell.gateway.shared import HasLevel, Shared
from swell.model.errors import SwellError
from swell.wire.calls import NewCall, NewEvent, Submit, SubmitEvent, Submitted
from swell.wire.exposition import Report
from swell.wire.frames import Unpacker, pack
from swell.wire.link import (
    AskMetrics,
    AskVariant,
    DemandReport,
    Down,
    Elsewhere,
    Hello,
    KeepAlive,
    Level,
    Metrics,
    MetricsTold,
    NoVariant,
    ReplicaEnded,
    Requests,
    Table,
    TableDelta,
    TellAll,
    TellMetrics,
)

log = logging.getLogger("swell.gateway")

REPORT_S = 0.1
"""Levels are told at most this often, but for pools that wait."""
WAITING_S = 0.01
"""How often it is told that more requests of a pool wait; that the first one does, where nothing serves it, at once."""
BEAT_S = 1.0
"""Between two signs of life, and what finished meanwhile."""
TTL_S = 5.0
RETRY_S = 0.05
RETRY_MAX_S = 1.0


class Link:
    """The gateway's end of the control link; connects again for ever."""

    def __init__(
        self,
        shared: Shared,
        deployed: Deployed,
        queueing: Queueing,
        control_socket: Path,
        incarnation: str,
        beat_s: float,
    ) -> None:
        self.shared = shared
        self.deployed = deployed
        self.queueing = queueing
        self.path = str(control_socket)
        self.incarnation = incarnation
        self.beat_s = beat_s
        self.wire: Wire | None = None
        self.dirty: list[HasLevel] = []
        self.told: dict[str, Level] = {}
        """Levels as control knows them."""
        self._timer: asyncio.TimerHandle | None = None
        self._hurried = False
        """The timer was set for what waits."""
        self._reported_at = 0.0
        self.asked_metrics: Callable[[int], None] = lambda _ask: None
        """Somebody scrapes another gateway, and wants this one's numbers, too: `tell_metrics` answers."""
        self._asks: dict[int, Scrape] = {}
        self._numbers = itertools.count(1)
        shared.touched = self.touched
        shared.wanted = self.wanted
        deployed.wanting.ask = self.ask_variant
        queueing.tell = self.submit

    async def run(self) -> None:
        """Keep the link up, and say every `beat_s` that the gateway is there. Ends when cancelled."""
        retry_s = RETRY_S
        while True:
            try:
                _, wire = await self.shared.loop.create_unix_connection(lambda: Wire(self), self.path)
            except OSError:
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, RETRY_MAX_S)
                continue
            retry_s = RETRY_S
            self.told.clear()
            wire.send(Hello(role="gateway", incarnation=self.incarnation))
            self.wire = wire
            self.shared.deaths.listen(True)
            self._tell_all()
            try:
                await self._beat(wire)
            finally:
                self.wire = None
                wire.close()
                # What others have is not told any more.
                self.deployed.take_elsewhere(dict.fromkeys(self.deployed.pools, ()))
                self._answer_all()
                self.shared.deaths.listen(False)
                self.queueing.lost()

    async def _beat(self, wire: Wire) -> None:
        """Every `beat_s`, until the connection is lost."""
        while not wire.lost.is_set():
            try:
                await asyncio.wait_for(wire.lost.wait(), self.beat_s)
            except TimeoutError:
                self.flush()

    def flush(self) -> None:
        """Send what finished since the last time, and a sign of life."""
        wire = self.wire
        if wire is None or wire.write_paused:
            return
        ledger = self.shared.ledger
        if ledger.lost:
            log.warning("control took no records for a while: %d were lost, the requests are counted", ledger.lost)
            ledger.lost = 0
        records, counts = ledger.flush(self.shared.now())
        if records or counts:
            # Whoever came with a key is among the counts.
            wire.send(Requests(records=records, counts=counts, by_key=ledger.flush_keys()))
        wire.send(KeepAlive(levels=len(self.told)))

    # -- levels ---------------------------------------------------------------------------

    def touched(self, pool: HasLevel) -> None:
        """A pool's level changed: tell it soon."""
        self.dirty.append(pool)
        if self._timer is None:
            self._tell_in(REPORT_S)

    def wanted(self, pool: HasLevel) -> None:
        """One more request of a touched pool waits, or its replica is used up: tell it at once, or nearly so."""
        told = self.told.get(pool.key)
        # The only one that waits for a replica of its own is always the first: whoever was told of had theirs.
        alone = pool.single_use and pool.held_count == 1
        first = alone or ((not pool.ready or pool.single_use) and (told is None or not told.held))
        since_s = self.shared.now() - self._reported_at
        if first or since_s >= WAITING_S:
            self.report()
        elif not self._hurried:
            self._hurried = True
            self._tell_in(WAITING_S - since_s)

    def _tell_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.shared.loop.call_later(seconds, self.report)

    def report(self, every: bool = False) -> None:
        """Tell the levels that changed. Of what came and went between two reports, the peak is told first.

        With `every` those are told, too, that did not change.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._hurried = False
        if self.wire is not None and self.wire.write_paused:
            # It all would only be queued: it is told once control reads again, as it is then.
            return
        self._reported_at = self.shared.now()
        dirty, self.dirty = self.dirty, []
        levels: list[Level] = []
        for pool in dirty:
            pool.dirty = False
            in_flight = max(pool.peak, pool.in_flight)
            pool.peak = pool.in_flight
            level = Level(pool.key, pool.held_count, in_flight, pool.loads(), pool.in_flight)
            if in_flight != pool.in_flight:
                pool.dirty = True
                self.touched(pool)
            if level.held or level.in_flight:
                # Of a single-use pool the same again is news: inputs that ended are not in it any more.
                if every or level != self.told.get(pool.key) or pool.single_use:
                    self.told[pool.key] = level
                    levels.append(level)
            elif self.told.pop(pool.key, None) is not None:
                levels.append(level)
        if levels and self.wire is not None:
            self.wire.send(DemandReport(levels=tuple(levels), ttl_s=TTL_S))

    def _tell_all(self) -> None:
        """Every level, to a control that knows none."""
        known = {pool.key for pool in self.dirty}
        every = (*self.deployed.pools.values(), *self.deployed.leaving.values())
        self.dirty += [pool for pool in every if pool.key not in known]
        self.report(every=True)

    def ask_variant(self, unmade: Unmade, key: str) -> bool:
        """Have control make what is asked for; False where it is away."""
        if self.wire is None or self.wire.write_paused:
            return False
        self.wire.send(AskVariant(unmade.workload, unmade.parameters, key))
        return True

    # -- calls that are to wait in the queue -----------------------------------------------

    def submit(self, call: NewCall | NewEvent) -> int:
        """Have control accept a call, or an event; the number it will answer with, or 0 where it is away. That it reads
        more slowly than calls come is no reason, within bounds: one may be more than the system takes at once."""
        if self.wire is None or self.wire.unsent > UNSENT_MAX:
            return 0
        ask = next(self._numbers)
        self.wire.send(Submit(ask, call) if isinstance(call, NewCall) else SubmitEvent(ask, call))
        return ask

    # -- metrics --------------------------------------------------------------------------

    async def ask_metrics(self, within_s: float) -> Sequence[Report]:
        """What control told, and all that it asked; nothing where it is away or does not answer in time."""
        wire = self.wire
        if wire is None or wire.write_paused:
            return ()
        ask, scrape = next(self._numbers), Scrape()
        self._asks[ask] = scrape
        wire.send(AskMetrics(ask, within_s))
        try:
            # Control waits for others as long: that it then answers is another matter.
            async with asyncio.timeout(within_s * 1.5):
                await scrape.over.wait()
        except TimeoutError:
            return ()
        finally:
            del self._asks[ask]
        return scrape.reports

    def tell_metrics(self, ask: int, report: Report) -> None:
        if self.wire is not None:
            self.wire.send(MetricsTold(ask, report))

    def _answer_all(self) -> None:
        """Control went away with what it was asked."""
        for scrape in self._asks.values():
            scrape.reports.clear()
            scrape.over.set()

    # -- what control says ----------------------------------------------------------------

    def heard(self, message: Down, wire: Wire) -> None:
        if isinstance(message, Table):
            self.deployed.take_table(message)
        elif isinstance(message, TableDelta) and not self.deployed.take_delta(message):
            log.info("a change of the table was missed; asking for all of it")
            wire.close()
        elif isinstance(message, Elsewhere):
            self.deployed.take_elsewhere(dict(message.pools))
        elif isinstance(message, ReplicaEnded):
            self.shared.deaths.told(message.replica, message.why)
        elif isinstance(message, NoVariant):
            self.deployed.wanting.refused(message)
        elif isinstance(message, Submitted):
            self.queueing.told(message)
        elif isinstance(message, TellAll):
            self._tell_all()
        elif isinstance(message, TellMetrics):
            self.asked_metrics(message.ask)
        elif isinstance(message, Metrics) and message.ask in self._asks:
            self._asks[message.ask].take(message)


class Scrape:
    """What came of one question for metrics."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.over = asyncio.Event()

    def take(self, message: Metrics) -> None:
        self.reports.append(message.report)
        if message.last:
            self.over.set()


class Wire(asyncio.Protocol):
    """One connection to control."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.lost = asyncio.Event()
        self.unpacker: Unpacker[Down] = Unpacker(Down)
        self.transport: asyncio.Transport | None = None
        self.write_paused = False
        """Control does not read what it was sent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: uvloop's transports do not derive from asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def send(self, message: object) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(pack(message))

    @property
    def unsent(self) -> int:
        """Bytes that control has not read."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            for message in self.unpacker.feed(data):
                self.link.heard(message, self)
        except (SwellError, ValueError):
            # msgspec's errors are ValueErrors. The frame's content stays out of the log.
            log.exception("control sent a frame that cannot be read; connecting anew")
            self.close()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.link.wire is self:
            self.link.report()

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost.set()
