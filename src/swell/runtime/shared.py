"""What do all inputs of one replica share? The loop, the threads, the slots, and where what they print goes."""

from __future__ import annotations

import asyncio
from contextvars import Context

import msgspec

from swell.runtime.keeping import Keeping
from swell.runtime.output import MarkedText
from swell.runtime.slots import Slots, Work
from swell.runtime.worker import Workers
from swell.wire.context import Input, current


class ReplicaContext(msgspec.Struct):
    """What every input of one replica shares."""

    loop: asyncio.AbstractEventLoop
    workers: Workers
    slots: Slots
    variables: Context
    """The context variables that async start-up hooks left: each input works on a copy."""
    output: tuple[MarkedText, MarkedText]
    patience_s: float = 0.0
    """An input has so long from its beginning, and from each report of progress; 0: all that was given for it."""
    keeping: Keeping = msgspec.field(default_factory=Keeping)

    def context_for(self, work: Input) -> Context:
        """A context for one async input."""
        own = self.variables.copy()
        own.run(current.set, work)
        return own

    def ended(self, work: Work) -> None:
        """An input's code is over: what it printed is known to be all, and its slot is free."""
        for stream in self.output:
            stream.end_input(work.request)
        self.slots.end(work)
