"""Which model is a request of the OpenAI API for? Its body says, and is read whole first; and what models are there?"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from swell.decide.openai import Listing
from swell.decide.route import Routes
from swell.gateway.bodies import Bodies
from swell.gateway.heads import JSON_TYPE, header_of
from swell.gateway.refusals import refuse
from swell.gateway.request import Request
from swell.gateway.shared import Shared
from swell.model.errors import SwellError
from swell.model.workload import shown
from swell.wire.malformed import must_be_plain
from swell.wire.openai import BODY_MAX

_TOO_LARGE = (
    f"A request of the OpenAI API may have {BODY_MAX} bytes. Send what is larger by an address, or call the function "
    "itself: POST /call/{app}/{function}."
)
_TOO_MUCH = "The gateway holds as many bytes of requests as it may (hold_bytes_max). Try again in a moment."


class Gathering(Bodies):
    """Requests whose bodies are on their way, and say what they are for."""

    def __init__(self, shared: Shared, then: Callable[[Request], None]) -> None:
        super().__init__(shared)
        self.then = then
        """Is given each request whose body is here."""

    def submit(self, request: Request) -> None:
        """Take in a request, with as much of its body as came with it."""
        try:
            must_be_plain((header_of(request.head, "content-encoding") or "").encode("latin-1"))
        except SwellError as error:
            refuse(request, error)
            return
        if request.length > BODY_MAX or request.size > BODY_MAX:
            request.fail(413, "body_too_large", _TOO_LARGE)
            return
        if request.complete:
            self.then(request)
            return
        request.pool = self
        self.gather(request)

    def grown(self, request: Request) -> None:
        """More of its body came."""
        self.count(request)
        if request.size > BODY_MAX:
            request.fail(413, "body_too_large", _TOO_LARGE)
        elif self.full:
            request.fail(429, "too_many_held", _TOO_MUCH, b"retry-after: 1\r\n")
        elif request.complete:
            self.drop(request)
            request.pool = None
            self.then(request)

    def overdue(self, request: Request, now: float) -> None:
        """End one whose body is not here after all the time that a request may wait."""
        request.body_overdue(now)


def listed(asked: Listing, routes: Routes, sees: Callable[[str, str], bool]) -> tuple[int, bytes, bytes]:
    """(status, content type, body): the models of the apps that the caller `sees`, or the one that is asked for."""
    found = {
        model: {"id": model, "object": "model", "created": 0, "owned_by": shown(f"{row.namespace}/{row.app}")}
        for offers in routes.offers.values()
        for model, (row, _) in offers.items()
        if sees(row.namespace, row.app)
    }
    whole = {"object": "list", "data": [found[model] for model in sorted(found)]}
    return 200, JSON_TYPE, msgspec.json.encode(found[asked.model] if asked.model else whole)
