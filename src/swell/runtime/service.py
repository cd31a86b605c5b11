"""Which of the program's methods answers a request, and is there a slot for it?"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from swell.model.errors import SwellError
from swell.model.near import near_names
from swell.runtime import keeping
from swell.runtime.call import Callee
from swell.runtime.http import BUSY_LINE, ConnectionExchange, Exchange, Handler
from swell.runtime.keeping import Keep
from swell.runtime.request import Request
from swell.runtime.shared import ReplicaContext
from swell.runtime.slots import Work
from swell.runtime.turns import TARGET, Turn
from swell.wire.http import WEB, ErrorShape, error_body, lower

_WEB = lower(WEB)


class Admitted(Handler, Work, Protocol):
    """What an open request is: it handles its connection's news and fills a slot."""


class Endpoint(Protocol):
    """A web endpoint: makes the handler of a request, or refuses it and returns None."""

    def open(self, exchange: ConnectionExchange) -> Admitted | None: ...


class Service:
    """The routes of one replica. `single_use` is told of the one input, after which nothing is admitted."""

    def __init__(self, replica: ReplicaContext, single_use: Callable[[Request], None] | None = None) -> None:
        self._replica = replica
        self._calls: dict[bytes, Callee] = {}
        self._web: dict[bytes, Endpoint] = {}
        self._single_use = single_use

    def add_call(self, callee: Callee, face: str = "call") -> None:
        """Offer `POST /{face}/{name}`: a method may be called in more than one protocol."""
        self._calls[f"/{face}/{callee.name}".encode()] = callee

    def add_web(self, name: str, endpoint: Endpoint) -> None:
        """Offer a web endpoint to requests that name this method in `Swell-Web`."""
        self._web[name.encode()] = endpoint

    def accept(self, exchange: ConnectionExchange) -> Handler | None:
        """A handler for this request, or None when it was refused at once."""
        request = exchange.request
        slots = self._replica.slots
        callee = self._calls.get(request.target)
        name = request.header(_WEB)
        kept = self._replica.keeping
        if (request.target == keeping.TARGET and not name) or (request.token and kept.has(request)):
            return kept.fetch(exchange)
        endpoint = self._web.get(name) if name else None
        if endpoint is None and (callee is None or name or request.method != "POST"):
            if request.target == TARGET and not name and request.method == "POST":
                return self._turn(exchange)
            self._refuse_unknown(exchange, callee, name)
            return None
        if request.deadline <= time.monotonic():
            late = request.past_deadline("it was on its way to a replica")
            exchange.refuse(504, "deadline", late, shape=_shape(callee))
            return None
        if not slots.free() or (request.token and kept.full):
            exchange.refuse(503, "busy", self._why_busy(), BUSY_LINE)
            return None
        keep = Keep(kept, request) if request.token and endpoint is None else None
        try:
            if endpoint is not None:
                work = endpoint.open(exchange)
            else:
                assert callee is not None
                work = callee.open(self._replica, exchange if keep is None else keep.exchange)
        except SwellError as error:
            exchange.refuse(error.status, error.code, error.message, shape=_shape(callee))
            return None
        if work is not None:
            slots.take(work)
            if self._single_use is not None:
                self._single_use(request)
        return work if keep is None or work is None else keep.bring(exchange, work)

    def _turn(self, exchange: ConnectionExchange) -> Handler | None:
        """Somebody asks for a slot; a runner, which says so, for what is kept as well."""
        replica = self._replica
        if exchange.request.token and replica.keeping.full and not replica.slots.closed:
            exchange.refuse(503, "busy", keeping.FULL, BUSY_LINE)
            return None
        return Turn(exchange, replica.slots, self.accept)

    def _why_busy(self) -> str:
        slots = self._replica.slots
        if slots.closed:
            return f"This replica takes nothing new: {slots.closed}."
        if not slots.free():
            return f"This replica works on {slots.limit} of {slots.limit} inputs."
        return keeping.FULL

    def _refuse_unknown(self, exchange: Exchange, callee: Callee | None, name: bytes) -> None:
        if callee is not None and not name:
            exchange.refuse(405, "method_not_allowed", "Calls are sent with POST.", b"Allow: POST\r\n")
            return
        wanted = name.decode("latin-1") or exchange.request.target.decode("latin-1").rpartition("/")[2]
        offered = [key.decode() for key in self._web] if name else [*{each.name: None for each in self._calls.values()}]
        near = near_names(wanted, offered) or offered
        exchange.refuse(
            404, "unknown_function", f"There is no {wanted!r} here. There is: {', '.join(near) or 'nothing'}."
        )


def _shape(callee: Callee | None) -> ErrorShape:
    return error_body if callee is None else callee.error_body
