"""Which requests wait for the rest of their bodies? Those of which nothing can be done before all of it is here."""

from __future__ import annotations

from swell.gateway.heads import CONTINUE
from swell.gateway.request import PoolSide, Request
from swell.gateway.shared import Shared


class Bodies(PoolSide):
    """The pool that such a request is in, to its client's connection. Its bytes are counted with those of all that is
    held."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared

    def gather(self, request: Request) -> None:
        """Take in a request, with as much of its body as came with it."""
        request.wait_at_most(self.shared.settings.hold_s)
        if request.expects and not request.size:
            request.client.write(CONTINUE)
            request.expects = False
        self.grown(request)

    def count(self, request: Request) -> None:
        """What came of its body is held here."""
        self.shared.held_bytes += request.size - request.held_bytes
        request.held_bytes = request.size

    @property
    def full(self) -> bool:
        """More bytes are held than may be."""
        return self.shared.held_bytes > self.shared.settings.hold_bytes_max

    def drop(self, request: Request) -> None:
        """It is over, or goes on."""
        self.shared.wheel.discard(request)
        self.shared.held_bytes -= request.held_bytes
        request.held_bytes = 0
