"""What does the gateway answer by itself, or have control answer? What is asked for beside the calls of functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from swell.decide.access import ANYTHING, may_call, may_list, may_scrape, may_see
from swell.decide.inference import Told
from swell.decide.openai import Listing
from swell.decide.route import Own
from swell.gateway.admission import admitted, caller_of, to_call
from swell.gateway.api_pool import ApiPool
from swell.gateway.deployed import Deployed
from swell.gateway.door import Door
from swell.gateway.heads import request_start
from swell.gateway.inference import answer_of
from swell.gateway.openai import listed
from swell.gateway.refusals import not_begun, refuse
from swell.gateway.request import Request
from swell.gateway.shared import Shared

_HEALTHY = b"ok\n"


class OwnPaths:
    """`/api`, `/calls`, `/metrics`, `/healthz`, and what protocols tell of models."""

    def __init__(self, shared: Shared, door: Door, deployed: Deployed, api: ApiPool, key: str) -> None:
        self.shared = shared
        self.door = door
        self.deployed = deployed
        self.api = api
        self.key_line = f"authorization: Bearer {key}\r\n".encode()
        self.scraped: Callable[[Request], None] = not_begun
        """Answers those who ask for metrics."""

    def answer(self, request: Request, own: Own, target: bytes) -> None:
        """What is asked for by one of these paths."""
        if own.name in ("api", "calls"):
            self._forward(request, own, target)
        elif request.method not in (b"GET", b"HEAD"):
            words = f"/{own.name} is read with GET."
            request.fail(405, "method_not_allowed", words, b"allow: GET, HEAD\r\n")
        elif own.name == "metrics":
            shown = self.door.pass_of(request.authorization, ANYTHING)
            caller = caller_of(request, shown.holder)
            refused = may_scrape(caller, key_needed=self.door.locked, allowed_hosts=self.door.hosts)
            if refused is not None:
                refuse(request, refused)
            elif admitted(request, shown.gates):
                self.scraped(request)
        else:
            request.answer(503 if self.shared.closing else 200, b"text/plain", _HEALTHY)

    def _forward(self, request: Request, own: Own, target: bytes) -> None:
        """To control, which judges it. That it may not come so often is said before it has to."""
        shown = self.door.pass_of(request.authorization, ANYTHING)
        if not admitted(request, shown.gates):
            return
        request.call = "API"
        if request.authorization is not None:
            request.extra = b"authorization: %b\r\n" % request.authorization
        if own.name == "calls":
            # Who may call without a key may have what became of its calls, too: their ids are known to nobody else.
            if request.authorization is None:
                refused = may_call(caller_of(request, shown.holder), ANYTHING, key_needed=self.door.locked)
                if refused is not None:
                    refuse(request, refused)
                    return
                request.extra = self.key_line
            target = b"/api" + target
        request.line = request_start(request.method, target)
        request.pool = self.api
        self.api.submit(request)

    def tell(self, request: Request, told: Told | Listing) -> None:
        """What a protocol asks for and no replica is needed for."""
        app = ANYTHING if told.row is None else to_call(told.row.key)
        shown = self.door.pass_of(request.authorization, app)
        if isinstance(told, Listing) and self.door.overlooks(shown):
            shown = self.door.pass_of(None, app)
        # Of what is no model's, whoever has a key is told what that may see.
        if not told.open and not (shown.ours and told.row is None):
            caller = caller_of(request, shown.holder)
            refused = may_list(caller, app, key_needed=self.door.locked, allowed_hosts=self.door.hosts)
            if refused is not None:
                refuse(request, refused)
                return
        if told.counts and not admitted(request, shown.gates):
            return
        sees = partial(may_see, shown.holder) if shown.ours else _sees_all
        if isinstance(told, Listing):
            request.answer(*listed(told, self.deployed.routes, sees))
            return
        models = {n: (row, m) for n, (row, m) in self.deployed.routes.models.items() if sees(row.namespace, row.app)}
        knows = self.deployed.told.is_set() and not self.shared.closing
        request.answer(*answer_of(told, models, self.deployed.pools, knows))


def _sees_all(_namespace: str, _app: str) -> bool:
    return True
