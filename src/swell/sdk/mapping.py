"""How are many calls kept going at once? A bounded number in flight, results in order or as they come."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from threading import Lock
from typing import Any

from swell.sdk.bridge import Pending
from swell.sdk.inputs import END, Inputs
from swell.sdk.protocol import Answer

IN_FLIGHT_MAX = max(16, 4 * (os.cpu_count() or 1))
"""Calls of one map that are under way at the same time, and so the largest batch that it can fill alone. Not more:
replicas are started for each, the gateway holds the arguments of all until they are there (`hold_bytes_max`), and each
takes the more CPU time the more there are (1.5 ms with 16 or 32, half as much again with 64)."""
AHEAD_MAX = 2 * IN_FLIGHT_MAX
"""Inputs taken whose results the consumer has not had yet."""


class Arrivals:
    """Futures in the order in which they finish."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._finished: deque[Future[Any]] = deque()
        self._bell: Future[None] | None = None

    def expect(self, future: Future[Any]) -> None:
        """Give it out once it has finished."""
        future.add_done_callback(self._arrived)

    def _arrived(self, future: Future[Any]) -> None:
        with self._lock:
            self._finished.append(future)
            bell, self._bell = self._bell, None
        if bell is not None and bell.set_running_or_notify_cancel():
            bell.set_result(None)

    async def next(self) -> Future[Any]:
        """The next one that has finished."""
        while True:
            with self._lock:
                if self._finished:
                    return self._finished.popleft()
                bell = self._bell = Future()
            await Pending(bell)


async def run(
    inputs: Inputs,
    submit: Callable[[tuple[Any, ...]], Future[Answer]],
    read: Callable[[Answer], Any],
    *,
    ordered: bool,
    return_exceptions: bool,
) -> AsyncGenerator[Any, None]:
    """The result of each input. Inputs are taken as there is room; what is in flight at the end is cancelled."""
    arrivals = Arrivals()
    places: dict[Future[Any], int] = {}
    outcomes: dict[int, Any] = {}
    taken = given = 0
    more = True
    taking: Future[Any] | None = None
    try:
        while True:
            if more and taking is None and len(places) < IN_FLIGHT_MAX and taken - given < AHEAD_MAX:
                taking = await inputs.take()
                arrivals.expect(taking)
            if taking is None and not places:
                return
            future = await arrivals.next()
            if future is taking:
                taking = None
                args = future.result()
                if args is END:
                    more = False
                    continue
                answer = submit(args)
                places[answer] = taken
                taken += 1
                arrivals.expect(answer)
                continue
            outcomes[places.pop(future)] = _outcome(future, read, return_exceptions)
            while outcomes and (not ordered or given in outcomes):
                yield outcomes.pop(given if ordered else next(iter(outcomes)))
                given += 1
    finally:
        for future in places:
            future.cancel()
        await inputs.close()


def _outcome(future: Future[Answer], read: Callable[[Answer], Any], return_exceptions: bool) -> Any:
    try:
        return read(future.result())
    except Exception as error:
        if return_exceptions:
            return error
        raise
