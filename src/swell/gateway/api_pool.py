"""How does a call of the control API reach control? As a request of a pool that takes everything and holds nothing."""

from __future__ import annotations

import math

from swell.gateway.pool import Pool
from swell.gateway.replicas import Replica
from swell.gateway.request import Request
from swell.gateway.shared import Shared
from swell.wire.link import Endpoint, PoolRow


class ApiPool(Pool):
    """A pool of one endpoint that is always there and is not counted."""

    def __init__(self, shared: Shared, address: str) -> None:
        super().__init__(
            shared,
            PoolRow(
                pool="api",
                max_inputs=1_000_000,
                timeout_s=math.inf,
                memory_mib=0,
                single_use=False,
                native=False,
                replicas=(),
            ),
        )
        self.dirty = True
        self.leased = False
        self.add(Control(self, Endpoint("control", address)))

    def _tally(self) -> None:
        """What it is asked is no workload's."""


class Control(Replica):
    """Control as the only endpoint: never backed off, and a lost request is not retried."""

    def __init__(self, pool: Pool, endpoint: Endpoint) -> None:
        super().__init__(pool, endpoint)
        # Its server closes idle connections when it likes, and a call of the API must not be lost to that.
        self.reuse_s = 0.0

    def rest(self, for_s: float) -> None:
        """It is asked again at once: nothing else can be."""

    def unreachable(self, request: Request) -> None:
        """It is down: say so at once."""
        message = "The control plane is not running now. It is started again by itself; try again in a moment."
        request.fail(503, "control_down", message, b"retry-after: 1\r\n")

    def died(self, request: Request, unread: bool) -> None:
        """It ended with the request; unless it never read it, what it did of it is not known."""
        request.upstream = None
        if unread:
            self.unreachable(request)
            return
        message = "Control ended during the request; check whether it took effect before retrying."
        request.fail(502, "control_down", message)
