"""Which requests of a pool wait for a slot, in which order, and how much of their bodies is kept meanwhile?"""

from __future__ import annotations

from collections import OrderedDict

from swell.decide.admit import Refusal, admit
from swell.gateway.request import REPLAY_MAX, Request
from swell.gateway.shared import Shared

READING_HELD = 2
"""Why a client is not read: its request is not sent yet, and has enough of its body here already."""


class Held(OrderedDict[Request, None]):
    """The requests one pool holds, oldest first. Their bytes are counted in `shared`, with those of all pools."""

    def __init__(self, shared: Shared) -> None:
        super().__init__()
        self.shared = shared

    def refusal(self, request: Request, workload: str, closed: str, retry_after_s: int) -> Refusal | None:
        """Why one more may not wait; None: it may. `closed` says why waiting would be in vain."""
        settings = self.shared.settings
        return admit(
            workload,
            held=len(self),
            hold_max=settings.hold_max,
            held_bytes=self.shared.held_bytes,
            body_bytes=request.size,
            hold_bytes_max=settings.hold_bytes_max,
            closed=closed,
            retry_after_s=retry_after_s,
        )

    def add(self, request: Request, first: bool) -> None:
        """Hold it, before (`first`) or behind the others."""
        self[request] = None
        if first:
            self.move_to_end(request, last=False)
        request.held_bytes = 0
        self.grown(request)

    def grown(self, request: Request) -> None:
        """More of the body of a request that is not sent yet has arrived, whether it waits or is being connected."""
        if request in self:
            more = request.size - request.held_bytes
            request.held_bytes += more
            self.shared.held_bytes += more
        if request.size > REPLAY_MAX or self.shared.held_bytes > self.shared.settings.hold_bytes_max:
            request.client.stop_reading(READING_HELD)

    def take(self, request: Request) -> None:
        """It waits no longer."""
        del self[request]
        self.shared.held_bytes -= request.held_bytes
        request.held_bytes = 0
        request.client.read_on(READING_HELD)
