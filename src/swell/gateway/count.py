"""What happened at this gateway? Counts of every request, and records of those worth remembering."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Protocol

from swell.model.metrics import HELD_SECONDS, REQUEST_SECONDS, Bounded, code_label, error_label, histogram
from swell.model.request import KeyCount, PoolCount, RequestRecord, notable

ORDINARY_PER_FLUSH = 50
"""Records kept per pool between two flushes (1 s) of requests that are neither failed, cold nor slow."""
WAITING_MAX = 10_000
"""Records kept while control is away; beyond it the oldest are lost, the counts are not."""


class Busy(Protocol):
    """A replica: at work since `busy_since` while `in_flight` is above zero."""

    busy_since: float
    in_flight: int


class Endings:
    """How many requests ended in each way: with which status, and which error of Swell's own."""

    def __init__(self) -> None:
        self._plain: dict[tuple[int, str], int] = {}
        self._odd: dict[tuple[str, str], int] = {}

    def add(self, status: int, error: str) -> None:
        try:
            self._plain[status, error] += 1
        except KeyError:
            self._add_new(status, error)

    def _add_new(self, status: int, error: str) -> None:
        """Statuses and codes are a web application's to choose: what is kept apart is bounded."""
        labels = code_label(status), error_label(error)
        if labels == (str(status), error):
            self._plain[status, error] = 1
        else:
            self._odd[labels] = self._odd.get(labels, 0) + 1

    def items(self) -> Iterator[tuple[tuple[str, str], int]]:
        """By the labels code and error."""
        for (status, error), number in self._plain.items():
            yield (str(status), error), number
        yield from self._odd.items()


class Count:
    """One workload's requests since this gateway began: all that a request costs for the sake of `/metrics`."""

    __slots__ = ("cold", "held", "hits", "odd", "plain", "seconds")

    def __init__(self) -> None:
        self.plain = 0
        """Ended as most do: with status 200 and no error…"""
        self.odd = Endings()
        """…or otherwise."""
        self.seconds = histogram(REQUEST_SECONDS)
        self.held = histogram(HELD_SECONDS)
        self.cold = 0
        self.hits = 0
        """Answered with what was kept."""

    def add(self, status: int, error: str, seconds: float, cold: bool) -> None:
        """A request that has ended."""
        if status == 200 and not error:
            self.plain += 1
        else:
            self.odd.add(status, error)
        self.seconds.observe(seconds)
        if cold:
            self.cold += 1

    def endings(self) -> Iterator[tuple[tuple[str, str], int]]:
        """How many ended in each way, by the labels code and error."""
        if self.plain:
            yield ("200", ""), self.plain
        yield from self.odd.items()


class Tally:
    """One pool's counts since the last flush, and its workload's since ever."""

    def __init__(self, pool: str, replicas: Mapping[str, Busy], count: Count) -> None:
        self.pool = pool
        self.replicas = replicas
        self.count = count
        self.listed = False
        self.requests = 0
        self.errors = 0
        self.cold = 0
        self.ordinary = 0
        self.busy_s = 0.0
        """Of replicas that were at work and are idle now; the others are added at each flush."""


class KeyTally:
    """One key's counts at one pool since the last flush."""

    __slots__ = ("cost_usd", "cpu_us", "errors", "requests")

    def __init__(self) -> None:
        self.requests = self.errors = self.cpu_us = 0
        self.cost_usd = 0.0


class Ledger:
    """Counts and records that wait to be sent to control."""

    def __init__(self, slow_ms: float, ordinary_max: int, workloads_max: int) -> None:
        self.slow_ms = slow_ms
        self.ordinary_max = min(ordinary_max, ORDINARY_PER_FLUSH)
        self.records: deque[RequestRecord] = deque()
        self.lost = 0
        """Records thrown away, since too many waited: not told yet…"""
        self.lost_ever = 0
        """…and since this gateway began."""
        self.counts = Bounded(workloads_max, Count)
        """By workload."""
        self.refused = Endings()
        """Errors answered to requests that were for no workload."""
        self._active: list[Tally] = []
        self._by_key: dict[tuple[str, str], KeyTally] = {}
        """By the key's id and the pool."""

    def wants(self, tally: Tally, total_ms: float, status: int, error: str, failed: bool, cold: bool) -> bool:
        """Count a finished request; True when its record is to be kept."""
        if not tally.listed:
            self.list(tally)
        tally.requests += 1
        tally.count.add(status, error, total_ms / 1e3, cold)
        if cold:
            tally.cold += 1
        if notable(failed, cold, total_ms, self.slow_ms):
            tally.errors += failed
            return True
        tally.ordinary += 1
        return tally.ordinary <= self.ordinary_max

    def keep(self, record: RequestRecord) -> None:
        """Until the next flush; of too many the oldest is lost."""
        if len(self.records) >= WAITING_MAX:
            self.records.popleft()
            self.lost += 1
            self.lost_ever += 1
        self.records.append(record)

    def used(self, key: str, pool: str, failed: bool, cpu_us: int, cost_usd: float) -> None:
        """Count a finished request of an API key, and what it used."""
        tally = self._by_key.get((key, pool))
        if tally is None:
            tally = self._by_key[key, pool] = KeyTally()
        tally.requests += 1
        tally.errors += failed
        tally.cpu_us += max(cpu_us, 0)
        tally.cost_usd += cost_usd

    def flush_keys(self) -> tuple[KeyCount, ...]:
        """What was counted by key since the last time."""
        at = time.time()
        tallies, self._by_key = self._by_key, {}
        return tuple(
            KeyCount(key, pool, at, tally.requests, tally.errors, tally.cpu_us / 1e6, tally.cost_usd)
            for (key, pool), tally in tallies.items()
        )

    def list(self, tally: Tally) -> None:
        """It has something to tell at the next flush."""
        tally.listed = True
        self._active.append(tally)

    def flush(self, now: float) -> tuple[tuple[RequestRecord, ...], tuple[PoolCount, ...]]:
        """What was gathered since the last flush, and begin anew. `now` is of the loop's clock."""
        at = time.time()
        tallies, self._active = self._active, []
        counts = []
        for tally in tallies:
            tally.listed = False
            for replica in tally.replicas.values():
                if replica.in_flight:
                    tally.busy_s += now - replica.busy_since
                    replica.busy_since = now
                    tally.listed = True
            counts.append(
                PoolCount(
                    pool=tally.pool,
                    at=at,
                    requests=tally.requests,
                    errors=tally.errors,
                    cold=tally.cold,
                    busy_s=tally.busy_s,
                )
            )
            tally.requests = tally.errors = tally.cold = tally.ordinary = 0
            tally.busy_s = 0.0
            if tally.listed:
                self._active.append(tally)
        records = tuple(self.records)
        self.records.clear()
        return records, tuple(counts)
