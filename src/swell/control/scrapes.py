"""What have all that control knows to tell a scraper? Asked of one gateway, and gathered here for it.

Who does not answer in time is told as such: a scrape never waits for a process that hangs.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from swell.model.metrics import LINK, Sample
from swell.wire.exposition import Report, process_labels, report
from swell.wire.frames import pack
from swell.wire.link import AskMetrics, Metrics, MetricsTold, TellMetrics


class Asked(Protocol):
    """A gateway's or runner's connection."""

    @property
    def name(self) -> str: ...
    def write(self, frame: bytes) -> None: ...


class Source(Protocol):
    """Control's own numbers, and the nodes it knows."""

    def metrics(self) -> Sequence[Sample]: ...
    def nodes(self) -> Iterable[str]: ...


class Known(Protocol):
    """Who is connected."""

    @property
    def listener(self) -> Source: ...
    @property
    def gateways(self) -> Mapping[str, Asked]: ...
    @property
    def runners(self) -> Mapping[str, Asked]: ...


class Scrapes:
    """The scrapes under way."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._told: dict[int, asyncio.Future[Report]] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, asker: Asked, message: AskMetrics) -> None:
        """Ask everybody else, and answer the gateway once all have, or time is up."""
        task = asyncio.get_running_loop().create_task(self._gather(asker, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def told(self, message: MetricsTold) -> None:
        """Somebody answered, perhaps too late."""
        future = self._told.get(message.ask)
        if future is not None and not future.done():
            future.set_result(message.report)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _gather(self, asker: Asked, message: AskMetrics) -> None:
        known = self._known
        # Where none was ever heard, one is missing all the same.
        nodes = sorted({*known.listener.nodes(), *known.runners}) or [""]
        runners = {node: known.runners.get(node) for node in nodes}
        answers = await asyncio.gather(
            *(
                self._ask(peer, Report("runner", node, answered=False), message.within_s)
                for node, peer in runners.items()
            ),
            *(self._ask(peer, None, message.within_s) for peer in known.gateways.values() if peer is not asker),
        )
        links = [Sample(LINK, process_labels("runner", node), float(node in known.runners)) for node in runners]
        own = await report("control", "", (*known.listener.metrics(), *links))
        for one in answers:
            if one is not None:
                asker.write(pack(Metrics(message.ask, one)))
        asker.write(pack(Metrics(message.ask, own, last=True)))

    async def _ask(self, peer: Asked | None, silent: Report | None, within_s: float) -> Report | None:
        """What it told; `silent`, as a report of one that did not answer, where it is away or too slow."""
        if peer is None:
            return silent
        ask = next(self._numbers)
        future: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        self._told[ask] = future
        peer.write(pack(TellMetrics(ask)))
        try:
            async with asyncio.timeout(within_s):
                return await future
        except TimeoutError:
            return silent
        finally:
            del self._told[ask]
