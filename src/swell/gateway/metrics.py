"""What does a scraper of this gateway get? Its own numbers, and those that control gathers, as one text.

Without control it gets the gateway's alone. Each process writes its own part as text: a scrape of many workloads takes
little of the time in which requests are served.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator

from swell.gateway.client import Client
from swell.gateway.deployed import Deployed
from swell.gateway.link import Link
from swell.gateway.request import Request
from swell.gateway.shared import Shared
from swell.model.metrics import (
    BUILD_INFO,
    CACHE_BYTES,
    CACHE_HITS,
    COLD_REQUESTS,
    CONNECTIONS,
    HELD,
    HELD_BYTES,
    HELD_SECONDS,
    IN_FLIGHT,
    LINK,
    RECORDS_LOST,
    REFUSED,
    REQUEST_SECONDS,
    REQUESTS,
    Labels,
    Sample,
)
from swell.model.variant import base_of
from swell.wire.exposition import CONTENT_TYPE, Report, exposition, process_labels, report
from swell.wire.process import process_samples

WAIT_S = 2.0
"""How long others have to answer, where the scraper does not say how long it waits…"""
SHARE = 0.4
"""…and which share of that they have, where it does…"""
WAIT_MAX_S = 20.0
"""…but no longer: what a header says must not keep a question open for an hour."""

_PATIENCE = re.compile(rb"\r\nx-prometheus-scrape-timeout-seconds:[ \t]*(\d{1,4}(?:\.\d{1,6})?)[ \t]*\r", re.IGNORECASE)


class Scraping:
    """Answers those who ask this gateway for metrics."""

    def __init__(
        self, shared: Shared, deployed: Deployed, link: Link, clients: Collection[Client], version: str, name: str
    ) -> None:
        """`name` says which of the server's gateways this is."""
        self.shared = shared
        self.deployed = deployed
        self.link = link
        self.clients = clients
        self.version = version
        self.name = name
        link.asked_metrics = lambda ask: self.shared.do(self._tell(ask))

    def answer(self, request: Request) -> None:
        """Once the others have told theirs. Meanwhile all that came of a body would be kept: nobody reads one."""
        if request.length or request.chunked:
            request.fail(400, "bad_request", "/metrics is read without a body.")
            return
        self.shared.do(self._answer(request))

    async def _answer(self, request: Request) -> None:
        others = await self.link.ask_metrics(wait_s(request.head))
        reports = (await self._report(), *(others or (Report("control", "", answered=False),)))
        request.answer(200, CONTENT_TYPE.encode(), exposition(reports))

    async def _tell(self, ask: int) -> None:
        self.link.tell_metrics(ask, await self._report())

    async def _report(self) -> Report:
        """This gateway's own numbers."""
        return await report("gateway", self.name, self._samples())

    def _samples(self) -> Iterator[Sample]:
        shared, ledger = self.shared, self.shared.ledger
        for labels, count in ledger.counts.items():
            for ending, number in count.endings():
                yield Sample(REQUESTS, (*labels, *ending, self.name), number)
            yield count.seconds.sample(REQUEST_SECONDS, (*labels, self.name))
            yield count.held.sample(HELD_SECONDS, (*labels, self.name))
            yield Sample(COLD_REQUESTS, (*labels, self.name), count.cold)
            yield Sample(CACHE_HITS, (*labels, self.name), count.hits)
        yield from self._levels()
        for ending, number in ledger.refused.items():
            yield Sample(REFUSED, (*ending, self.name), number)
        yield Sample(HELD_BYTES, (self.name,), shared.held_bytes)
        yield Sample(CACHE_BYTES, (self.name,), shared.kept.bytes)
        yield Sample(CONNECTIONS, (self.name,), len(self.clients))
        yield Sample(RECORDS_LOST, (self.name,), ledger.lost_ever)
        yield Sample(LINK, process_labels("gateway", self.name), float(self.link.wire is not None))
        yield Sample(BUILD_INFO, (self.version, self.name), 1)
        yield from process_samples("gateway", self.name)

    def _levels(self) -> Iterator[Sample]:
        """What is in flight and held now: of each workload that is deployed, be it nothing."""
        counts = self.shared.ledger.counts
        in_flight: Counter[Labels] = Counter()
        held: Counter[Labels] = Counter()
        for pool in (*self.deployed.pools.values(), *self.deployed.leaving.values()):
            labels = counts.labels(base_of(pool.workload))
            in_flight[labels] += pool.in_flight
            held[labels] += pool.held_count
        for name, levels in ((IN_FLIGHT, in_flight), (HELD, held)):
            for labels, number in levels.items():
                yield Sample(name, (*labels, self.name), number)


def wait_s(head: bytes) -> float:
    """How long to wait for others, by what a scraper's header says of its patience."""
    found = _PATIENCE.search(b"\r\n" + head)
    return min(float(found[1]) * SHARE, WAIT_MAX_S) if found is not None and float(found[1]) > 0 else WAIT_S
