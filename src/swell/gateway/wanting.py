"""Which requests wait for parameters nobody has asked for before, until there is a pool for those?

Control makes it a pool, in the table a moment later; then they come in anew, by the same door.
"""

from __future__ import annotations

from collections.abc import Callable

from swell.decide.route import Unmade
from swell.gateway.held import Held
from swell.gateway.request import PoolSide, Request
from swell.gateway.shared import Shared
from swell.wire.link import NoVariant


class Want(PoolSide):
    """The requests for one set of parameters: to each of their connections, the pool that it is in."""

    def __init__(self, shared: Shared, key: str, over: Callable[[], None]) -> None:
        """`over` is called when nobody waits any longer."""
        self.shared = shared
        self._over = over
        self.key = self.workload = key
        self.held = Held(shared)

    def submit(self, request: Request) -> None:
        """One more; or it is refused, where too many wait already."""
        refusal = self.held.refusal(request, self.workload, "", 1)
        if refusal is not None:
            request.refuse(refusal)
            self._left()
            return
        request.pool = self
        self.held.add(request, first=False)
        request.wait_at_most(self.shared.settings.hold_s)

    def grown(self, request: Request) -> None:
        self.held.grown(request)

    def overdue(self, request: Request, now: float) -> None:
        """End one that control did not make room for in all the time that it may wait."""
        if now >= request.until:
            waited = f"The deadline of {request.callers_limit} passed while control was asked for these parameters."
            request.fail(504, "deadline", waited)
        else:
            words = "Control did not answer who calls with these parameters for the first time. Try again."
            request.fail(503, "control_down", words, b"retry-after: 1\r\n")

    def drop(self, request: Request) -> None:
        """It is over."""
        if request in self.held:
            self.held.take(request)
        self._left()

    def _left(self) -> None:
        if not self.held:
            self._over()

    def take(self) -> list[Request]:
        """All that still wait, oldest first, and none of them any longer."""
        requests = list(self.held)
        for request in requests:
            self.held.take(request)
            request.pool = None
        return requests


class Wanting:
    """All of them, by the key of what they wait for."""

    def __init__(self, shared: Shared, again: Callable[[Request], None]) -> None:
        self.shared = shared
        self.again = again
        """Is given each request whose parameters may have a pool now."""
        self.ask: Callable[[Unmade, str], bool] = lambda _unmade, _key: False
        """Asks control, with the id of the caller's API key; False where that is away."""
        self.wants: dict[str, Want] = {}

    def submit(self, request: Request, unmade: Unmade) -> None:
        """Take in a request, and ask for what it is for, unless that was done."""
        want = self.wants.get(unmade.key)
        if want is None:
            if not self.ask(unmade, request.key):
                words = "Nobody has called it with these parameters yet, and control, which would make room for them, "
                request.fail(503, "control_down", f"{words}is away. Try again in a moment.", b"retry-after: 1\r\n")
                return
            # Whoever comes after all have left asks anew: control may never answer.
            want = self.wants[unmade.key] = Want(self.shared, unmade.key, lambda: self._forget(unmade.key))
        want.submit(request)

    def _forget(self, key: str) -> None:
        self.wants.pop(key, None)

    def refused(self, told: NoVariant) -> None:
        """Control said why not."""
        want = self.wants.pop(told.key, None)
        retry = b"retry-after: 1\r\n" if told.status in (429, 503) else b""
        for request in want.take() if want is not None else ():
            request.fail(told.status, told.code, told.message, retry)

    def changed(self) -> None:
        """Other workloads are known now: all come in anew, and who is still too early asks again."""
        wants, self.wants = self.wants, {}
        for want in wants.values():
            for request in want.take():
                self.again(request)
