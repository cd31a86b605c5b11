"""What do those who queue calls do, and what do they see? As the SDK: the same key until there is an answer."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import msgspec

from swell.control.calls import CallKeeper
from swell.model.call import Body, Call, CallError
from swell.model.errors import SwellError
from swell.sim.queue import Queue
from swell.wire.calls import NewCall

ANSWER_S = 3.0
"""Who has no answer by then asks again."""
TRIES = 40
WAIT_S = 20.0
"""Who asks for a result waits so long for it."""
STOPPED = CallError("cancelled", "nobody wants it")


class Spawned(msgspec.Struct, eq=False):
    """One call, as its caller knows it."""

    new: NewCall
    ids: set[str] = set()
    """It was told these: one, however often it asked."""
    tries: int = 0
    refused: str = ""
    """Why it was not accepted, where that is no trouble of the server."""
    cancelled: bool = False
    """It was told so."""
    seen: Call | None = None
    """How it ended, as its caller was told first."""


class Callers:
    """All of a run."""

    def __init__(self, queue: Queue, chance: Random) -> None:
        self.spawned: list[Spawned] = []
        self._queue = queue
        self._chance = chance
        self._chance_at_work = queue.system.stream("cancels")
        self._time = queue.system.time
        queue.around.began = self._began

    def schedule(self, workloads: int, until_s: float) -> None:
        """All there will be."""
        chance, settings = self._chance, self._queue.settings
        for number in range(workloads):
            at = chance.expovariate(settings.rate)
            while at < until_s:
                self._spawn_at(at, f"default/app{number}/f")
                at += chance.expovariate(settings.rate) if chance.random() > 0.05 else chance.uniform(10, 40)

    def _spawn_at(self, at: float, workload: str) -> None:
        chance, settings = self._chance, self._queue.settings
        delay_s = chance.uniform(0.0, 30.0) if chance.random() < settings.delayed else 0.0
        number = len(self.spawned)
        new = NewCall(
            workload,
            "f",
            Body("application/json", b"%d" % number),
            priority=chance.choice([0, 0, 0, 5, -5]),
            delay_s=delay_s,
            idempotency_key=f"k{number}",
        )
        one = Spawned(new)
        self.spawned.append(one)
        self._time.at(at, lambda: self._try(one))
        if chance.random() < settings.cancelled:
            self._time.at(at + chance.expovariate(1.0), lambda: self._cancel(one))
        if chance.random() < 0.3:
            self._time.at(at + chance.uniform(0.1, 5.0), lambda: self._look(one, WAIT_S))

    def _try(self, one: Spawned) -> None:
        if one.tries >= TRIES or one.refused:
            return
        one.tries += 1
        tries = one.tries
        self._queue.accept(one.new, lambda told: self._told(one, told))
        self._time.after(ANSWER_S, lambda: self._try(one) if not one.ids and one.tries == tries else None)

    def _told(self, one: Spawned, told: Any) -> None:
        if isinstance(told, str):
            one.ids.add(told)
        elif isinstance(told, SwellError):
            if told.status < 500:
                one.refused = told.code
        else:
            self._queue.system.broke(f"who queued a call was told {told!r}")

    def _began(self, id: str) -> None:
        """A call of ours is at work: the worst moments to cancel it are while that ends."""
        chance, settings = self._chance_at_work, self._queue.settings
        call = self._queue.kept(id)
        if call is not None and chance.random() < settings.cancelled_at_work:
            one = self.spawned[int(call.idempotency_key.removeprefix("k"))]
            after_s = chance.choice([0.0, chance.uniform(0.0, 2 * settings.fates.work_s)])
            self._queue.system.count("cancel at work")
            self._time.after(after_s, lambda: self._cancel(one))

    def _cancel(self, one: Spawned, tries: int = TRIES) -> None:
        """Until there is an answer: that it is cancelled, or that it had ended, and how."""
        answered = False

        def told(call: Any) -> None:
            nonlocal answered
            answered = not isinstance(call, SwellError)
            if isinstance(call, Call):
                one.cancelled = True
            else:
                # It may be cancelled all the same, where that could not be said.
                self._look(one, 0.0)

        for id in one.ids:
            self._queue.ask(partial(_cancelled, id), told)
        if one.ids and tries:
            self._time.after(ANSWER_S, lambda: self._cancel(one, tries - 1) if not answered else None)

    def _look(self, one: Spawned, wait_s: float) -> None:
        """What came of it, once it has ended or after so long?"""

        def told(call: Any) -> None:
            if isinstance(call, Call) and call.ended_at is not None:
                one.seen = one.seen or call

        for id in one.ids:
            self._queue.ask(partial(_ended, id, wait_s), told)


async def _cancelled(id: str, keeper: CallKeeper) -> Call | None:
    return await keeper.cancel(id, STOPPED)


async def _ended(id: str, wait_s: float, keeper: CallKeeper) -> Call | None:
    return await keeper.ended(id, wait_s)
