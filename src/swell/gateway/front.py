"""What is a request for, and may its caller have it? Routes, checks the key, and hands it to a pool."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from swell.decide.access import ANYTHING, may_call, may_see, may_visit
from swell.decide.inference import Told
from swell.decide.inference import inference as asked_inference
from swell.decide.openai import Asking, Listing, named
from swell.decide.openai import openai as asked_openai
from swell.decide.route import Destination, Found, NoRoute, Own, Routes, Unmade, route
from swell.decide.split import drawn
from swell.gateway.admission import admitted, bounded, caller_of, note_key, to_call
from swell.gateway.api_pool import ApiPool
from swell.gateway.cache import Cache, Cached
from swell.gateway.deployed import Deployed
from swell.gateway.door import Door, Pass
from swell.gateway.gate import Gate
from swell.gateway.heads import UPGRADE_LINES, header_of, request_start
from swell.gateway.inbound import KNOWN_HOST_MAX
from swell.gateway.openai import Gathering
from swell.gateway.own import OwnPaths
from swell.gateway.pool import Pool
from swell.gateway.queueing import Queueing, is_later
from swell.gateway.refusals import lead_nowhere, no_socket, not_posted, not_queued, not_told, refuse
from swell.gateway.request import Request
from swell.gateway.shared import Shared
from swell.model.errors import SwellError
from swell.model.hosts import is_host
from swell.model.key import Scope
from swell.model.openai import PATHS, Api
from swell.model.variant import is_variant
from swell.wire import inference, openai
from swell.wire.http import ROOT_PATH, WEB, ErrorShape, error_body

KNOWN_MAX = 4096
"""Calls whose route is remembered; beyond it all are forgotten and found again."""
VIEWS_MAX = 64
"""Keys' views of what is deployed that are kept; beyond it all are made again."""
KNOWN_TARGET_MAX = 1024
"""Bytes of a target with parameters with which one is."""

Sought = Destination | Told | Listing | Asking
"""What a request may ask for."""

ERROR_BODIES: dict[str, ErrorShape] = {
    "call": error_body,
    "trigger": error_body,
    "v1": openai.error_body,
    "v2": inference.error_body,
}
"""How callers in each protocol are told of errors."""


class Call:
    """A target of a call that was routed before: everything about it that is the same for every request."""

    __slots__ = ("app", "error_body", "events", "gates", "later", "led", "line", "method", "pool", "queued_only")

    def __init__(self, pool: Pool | Cached, found: Found, gates: tuple[Gate, ...], queued_only: bool) -> None:
        self.pool = pool
        """Or the way to it."""
        self.method = found.method if found.face == "call" else f"{found.face.upper()} {found.method}"
        self.line = request_start(b"POST", f"/{found.face}/{found.method}".encode())
        self.error_body = ERROR_BODIES[found.face]
        self.gates = gates
        """The limits of its workload, where it has any."""
        self.app = to_call(pool.workload)
        self.events = found.events
        self.led = found.led
        self.later = found.method if found.face == "call" and found.led.by != "tag" else ""
        """What is called where that may wait in the queue. That is for whichever version has the traffic by then."""
        self.queued_only = queued_only


class Front:
    """Where each request of the gateway's clients goes."""

    def __init__(self, shared: Shared, key: str, call_key: str, api: ApiPool) -> None:
        self.shared = shared
        self.door = Door(shared, key, call_key, lambda: self.deployed.end_sessions())
        shared.ended = self.door.ended
        self.gathering = {api: Gathering(shared, partial(self._ask, api=api)) for api in PATHS.values()}
        """Requests whose bodies say what they are for, while those are on their way."""
        self.queueing = Queueing(shared)
        """Calls that are to be worked on later, until they are in the queue."""
        self.known: dict[tuple[bytes, bytes], Call] = {}
        """Calls by the host and the target that named them."""
        self.views: dict[tuple[Scope, ...], Routes] = {}
        """What is deployed, as it is for those who may not see all of it: by the scopes of their keys."""
        self.cache = Cache(shared)
        self.deployed = Deployed(shared, self.door, self._changed, self._follow)
        self.own = OwnPaths(shared, self.door, self.deployed, api, key)

    def handle(self, request: Request) -> None:
        """Send a request on its way, or answer it."""
        call = self.known.get((request.host, request.target))
        if call is None:
            self._find(request)
        else:
            self._call(request, call)

    def _changed(self) -> None:
        """A target may mean something else now."""
        self.known.clear()
        self.views.clear()

    def _follow(self, request: Request) -> None:
        """Its pool lost the traffic while it waited: it comes in anew, by the same door, for what is deployed now."""
        self.cache.moved(request)
        request.extra = b""
        self.handle(request)

    def _find(self, request: Request) -> None:
        host, target = request.host.decode("latin-1"), request.target
        if not target.startswith(b"/"):
            scheme, _, rest = target.partition(b"://")
            authority, slash, below = rest.partition(b"/")
            if scheme.lower() not in (b"http", b"https") or not authority:
                request.fail(400, "bad_request", "The target of a request is a path that begins with a slash.")
                return
            if not is_host(authority):
                request.fail(400, "bad_request", "The target of a request names no host with an optional port.")
                return
            request.host = authority
            host, target = authority.decode("latin-1"), slash + below or b"/"
        raw_path, question, query = target.partition(b"?")
        asked = request.method.decode("latin-1"), host, raw_path.decode("latin-1"), query.decode("latin-1")
        face, found = _sought(self.deployed.routes, *asked)
        if face:
            request.error_body = ERROR_BODIES[face]
        if isinstance(found, NoRoute | Asking) and not self.deployed.told.is_set():
            not_told(request)
        elif isinstance(found, Found):
            plain = not question or (is_variant(found.workload) and len(target) <= KNOWN_TARGET_MAX)
            plain = plain and target is request.target and len(request.host) <= KNOWN_HOST_MAX
            if found.query is not None:
                question, query = b"?" if found.query else b"", found.query.encode("latin-1")
            self._lead(request, found, question + query, (request.host, target) if plain else None)
        elif isinstance(found, Unmade):
            self._want(request, found)
        elif isinstance(found, NoRoute):
            self._lose(request, found, lambda routes: _sought(routes, *asked)[1])
        elif isinstance(found, Asking):
            self._gather(request, found.api)
        elif isinstance(found, Told | Listing):
            self.own.tell(request, found)
        else:
            self.own.answer(request, found, target)

    def _lose(self, request: Request, found: NoRoute, seek: Callable[[Routes], object]) -> None:
        """Nothing is there. What names there are near it, each caller is told of what it may see; who needs a key and
        has none, or may be a foreign page, of nothing. `seek` looks for it again, among those."""
        shown = self.door.pass_of(request.authorization, ANYTHING)
        if shown.ours:
            if not admitted(request, shown.gates):
                return
        elif self.door.locked and (refused := may_call(caller_of(request, shown.holder), ANYTHING, key_needed=True)):
            refuse(request, refused)
            return
        caller = caller_of(request, shown.holder)
        page = not shown.ours and caller.may_be_page(request.method == b"POST", self.door.hosts)
        if shown.lacks is not None or (page and found.status == 404):
            again = seek(self._view(shown))
            found = again if isinstance(again, NoRoute) else found
        lead_nowhere(request, found)

    def _view(self, shown: Pass) -> Routes:
        """What is deployed, for who may not see all of it."""
        scopes = shown.holder.scopes
        view = self.views.get(scopes)
        if view is None:
            if len(self.views) >= VIEWS_MAX:
                self.views.clear()
            view = self.views[scopes] = self.deployed.routes.seen(partial(may_see, shown.holder))
        return view

    def _lead(self, request: Request, found: Found, query: bytes, known_by: tuple[bytes, bytes] | None) -> None:
        """To a method. `known_by`: what names it alone, and always."""
        splits = bool(found.choices)
        if splits:
            found = _chosen(request, found)
        pool = self.deployed.pools.get(found.pool)
        if pool is None:
            request.fail(503, "no_replica", f"{found.workload} was just deployed; try again.", b"retry-after: 1\r\n")
        elif found.web is None:
            call = Call(self.cache.way(pool, found), found, self._gates_of(found), pool.gang)
            if known_by is not None and not splits:
                self._remember(known_by, call)
            self._call(request, call)
        else:
            self._web(request, found, pool, query)

    def _want(self, request: Request, unmade: Unmade) -> None:
        """To a workload with parameters that it has no pool for: whoever may call it may have one made."""
        app, web = to_call(unmade.workload), unmade.found.web
        shown = self.door.pass_of(request.authorization, app)
        caller = caller_of(request, shown.holder)
        if web is not None:
            needed = self.door.locked or web.needs_key
            refused = may_visit(caller, app, key_needed=needed, allowed_hosts=self.door.hosts)
        else:
            refused = may_call(caller, app, key_needed=self.door.locked)
        if refused is not None:
            refuse(request, refused)
        elif web is None and request.method != b"POST":
            not_posted(request)
        elif web is not None and no_socket(request, web):
            return
        elif admitted(request, note_key(request, shown) + self._gates_of(unmade.found)) and bounded(request):
            self.deployed.wanting.submit(request, unmade)

    def _gather(self, request: Request, api: Api) -> None:
        """A request of the OpenAI API: its body says which model it is for."""
        shown = self.door.pass_of(request.authorization, ANYTHING)
        if self.door.overlooks(shown):
            request.authorization = None
        elif not shown.ours:
            refused = may_call(caller_of(request, shown.holder), ANYTHING, key_needed=self.door.locked)
            if refused is not None:
                refuse(request, refused)
                return
        # Before a byte more is kept: whoever may send no more, or no more at a time, need not be heard out.
        if admitted(request, shown.gates) and bounded(request):
            self.gathering[api].submit(request)

    def _ask(self, request: Request, api: Api) -> None:
        """The same, with its body."""
        try:
            model = openai.model_of(b"".join(request.body))
        except SwellError as error:
            refuse(request, error)
            return
        found = named(self.deployed.routes, api, model)
        if isinstance(found, Found):
            self._lead(request, found, b"", None)
        else:
            self._lose(request, found, lambda routes: named(routes, api, model))

    def _remember(self, named: tuple[bytes, bytes], call: Call) -> None:
        if len(self.known) >= KNOWN_MAX:
            self.known.clear()
        self.known[named] = call

    def _call(self, request: Request, call: Call) -> None:
        request.error_body = call.error_body
        gates = call.gates
        if self.door.locked or request.authorization is not None or request.origin is not None:
            shown = self.door.pass_of(request.authorization, call.app)
            if shown.ours:
                refused = shown.lacks
            else:
                locked = self.door.locked and call.events != "signed"
                refused = may_call(caller_of(request, shown.holder), call.app, key_needed=locked)
            if refused is not None:
                refuse(request, refused)
                return
            gates = note_key(request, shown) + gates
        # Whoever may not call it is not told that it is there.
        if request.method != b"POST":
            not_posted(request)
            return
        if gates and not admitted(request, gates):
            return
        if call.events:
            if bounded(request):
                self.queueing.take_event(request, call.pool.workload, call.events)
            return
        if (request.later or call.queued_only) and self._queued(request, call):
            return
        request.call = call.method
        request.led = call.led
        request.line = call.line
        self._submit(request, call.pool)

    def _queued(self, request: Request, call: Call) -> bool:
        """It is to wait in the queue, or asks for that in a way that makes no sense: then it goes no further here."""
        try:
            if not is_later(request.later):
                return call.queued_only and not_queued(request)
            if not call.later:
                words = "and no version alone (@), can wait in the queue: leave out Swell-Async."
                raise SwellError("bad_request", f"Only what is below /call/, {words}")
        except SwellError as error:
            refuse(request, error)
            return True
        if bounded(request, waits=False):
            self.queueing.take(request, call.pool.workload, call.later, trusted=bool(request.extra))
        return True

    def _web(self, request: Request, found: Found, pool: Pool, query: bytes) -> None:
        app = to_call(found.workload)
        shown = self.door.pass_of(request.authorization, app)
        needed = self.door.locked or (found.web is not None and found.web.needs_key)
        caller = caller_of(request, shown.holder)
        refused = may_visit(caller, app, key_needed=needed, allowed_hosts=self.door.hosts)
        if refused is not None:
            refuse(request, refused)
            return
        if no_socket(request, found.web):
            return
        if not admitted(request, note_key(request, shown) + self._gates_of(found)):
            return
        path = found.path.encode("latin-1")
        request.call = f"WEB {found.path}"
        request.led = found.led
        request.line = request_start(request.method, path + query)
        if not pool.native:
            request.extra = b""
        else:
            request.extra += f"{WEB}: {found.method}\r\n".encode()
            if found.root_path:
                request.extra += f"{ROOT_PATH}: {found.root_path}\r\n".encode("latin-1")
        if not shown.ours and request.authorization is not None:
            # Not our key, so it is for the endpoint itself.
            request.extra += b"authorization: %b\r\n" % request.authorization
        if request.websocket:
            request.extra += UPGRADE_LINES
        self._submit(request, pool)

    def _gates_of(self, found: Found) -> tuple[Gate, ...]:
        """The limits of a workload, where it has any."""
        gate = self.deployed.gate(found.workload)
        return () if gate is None else (gate,)

    def _submit(self, request: Request, pool: Pool | Cached) -> None:
        if bounded(request):
            request.pool = pool
            pool.submit(request)


_PROTOCOLS: dict[str, Callable[[Routes, str, str], Told | Listing | Asking | Found | NoRoute]] = {
    "v1": asked_openai,
    "v2": asked_inference,
}
"""What a method and a path below its first segment ask for, by that segment."""


def _sought(routes: Routes, http_method: str, host: str, path: str, query: str) -> tuple[str, Sought]:
    """The protocol that a request is of, where it is of one that has errors of its own; and what it asks for."""
    found = route(routes, host, path, query)
    if isinstance(found, Own) and found.name in _PROTOCOLS:
        return found.name, _PROTOCOLS[found.name](routes, http_method, path[3:])
    return "", found


def _chosen(request: Request, found: Found) -> Found:
    """What is found for this request, of the revisions that it may go to."""

    def header(name: str) -> str | None:
        return header_of(request.head, name)

    choice, led = drawn(found.choices, found.hash_header, header, partial(request.shared.lot, 8))
    method = choice.method
    return msgspec.structs.replace(
        found, pool=choice.pool, method=method.name, web=method.web, choices=(), cache=method.cache, led=led
    )
