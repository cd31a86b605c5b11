"""What is a request for, and may its caller have it? Routes, checks the key, and hands it to a pool."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from swell.decide.access import ANYTHING, Caller, Holder, Key, may_call, may_scrape, may_see, may_visit
from swell.decide.inference import Told
from swell.decide.inference import inference as asked
from swell.decide.openai import Asking, Listing, named
from swell.decide.openai import openai as asked_openai
from swell.decide.route import Destination, Found, NoRoute, Own, Routes, route
from swell.decide.split import choose
from swell.gateway.api_pool import ApiPool
from swell.gateway.door import Door, Pass
from swell.gateway.gate import Gate, let_in
from swell.gateway.heads import UPGRADE_LINES, header_of, request_start
from swell.gateway.inference import answer_of
from swell.gateway.openai import Gathering, listed
from swell.gateway.pool import Pool
from swell.gateway.request import Request
from swell.gateway.shared import Shared
from swell.model.errors import SwellError
from swell.model.hosts import is_host
from swell.model.key import Scope
from swell.model.limits import UNLIMITED
from swell.model.openai import PATHS, Api
from swell.model.workload import shown as shown_as
from swell.wire import inference, openai
from swell.wire.http import ROOT_PATH, TIMEOUT, TRUSTED, WEB, ErrorShape, error_body
from swell.wire.link import PoolRow, Route, Table, TableDelta

KNOWN_MAX = 4096
"""Calls whose route is remembered; beyond it all are forgotten and found again."""
KNOWN_HOST_MAX = 255
"""Bytes of a host with which one is remembered: no name is longer."""
_HEALTHY = b"ok\n"
_TRUSTED_LINE = f"{TRUSTED}: 1\r\n".encode()
_SOCKET_KINDS = ("asgi", "server")
_ASK_LINE = b"www-authenticate: Bearer\r\n"


ERROR_BODIES: dict[str, ErrorShape] = {
    "call": error_body,
    "v1": openai.error_body,
    "v2": inference.error_body,
}
"""How callers in each protocol are told of errors."""


class Call:
    """A target of a call that was routed before: everything about it that is the same for every request."""

    __slots__ = ("app", "error_body", "gate", "line", "method", "pool")

    def __init__(self, pool: Pool, found: Found, gate: Gate | None) -> None:
        self.pool = pool
        self.method = found.method if found.face == "call" else f"{found.face.upper()} {found.method}"
        self.line = request_start(b"POST", f"/{found.face}/{found.method}".encode())
        self.error_body = ERROR_BODIES[found.face]
        self.gate = gate
        """The limits of its workload, where it has any."""
        self.app = app_of(pool.workload)


class Front:
    """The gateway's table, and where it sends each request. Goes on with the last table when control is away."""

    def __init__(self, shared: Shared, key: str, call_key: str, api: ApiPool) -> None:
        self.shared = shared
        self.hosts = {host.lower() for host in shared.settings.allowed_hosts}
        """Names, beside those of this machine, that web endpoints answer to."""
        self.door = Door(shared, key, call_key)
        self.api = api
        self.locked = False
        """True: reachable from elsewhere, so that everything needs the key."""
        self.told = asyncio.Event()
        """A table was heard. Before that nothing can be said to be unknown."""
        self.version = 0
        self.rows: dict[str, Route] = {}
        self.routes = Routes()
        self.pools: dict[str, Pool] = {}
        self.leaving: dict[str, Pool] = {}
        """Pools control has removed that still run requests or owe a final report."""
        self.gathering = {api: Gathering(shared, partial(self._ask, api=api)) for api in PATHS.values()}
        """Requests whose bodies say what they are for, while those are on their way."""
        self.scraped: Callable[[Request], None] = _nobody
        """Answers those who ask for metrics."""
        self.known: dict[tuple[bytes, bytes], Call] = {}
        """Calls by the host and the target that named them."""
        self.gates: dict[str, Gate] = {}
        """Limits of workloads that have any, by the workload's key."""
        self.gateways = 1
        """How many share those."""

    # -- the table ------------------------------------------------------------------------

    def take_table(self, table: Table) -> None:
        """Replace everything. Pools that stay keep what they hold and run."""
        self.shared.prices = table.prices
        self.gateways = table.gateways
        self.door.take(table.keys, table.gateways, whole=True)
        listed = {row.pool for row in table.pools}
        gone = [pool for pool in self.pools if pool not in listed]
        self._take(table.pools, gone, {row.key: row for row in table.routes}, changed=True)
        self.version = table.version
        self.told.set()

    def take_delta(self, delta: TableDelta) -> bool:
        """Take in changed rows; False when it does not follow what is here, and a whole table is needed."""
        if delta.base != self.version:
            return False
        rows = self.rows
        changed = bool(delta.routes or delta.gone_routes)
        if changed:
            rows = {key: row for key, row in rows.items() if key not in delta.gone_routes}
            rows.update((row.key, row) for row in delta.routes)
        if delta.keys:
            self.door.take(delta.keys, self.gateways, whole=False)
        self._take(delta.pools, delta.gone_pools, rows, changed)
        self.version = delta.version
        return True

    def _take(
        self, pools: tuple[PoolRow, ...], gone: tuple[str, ...] | list[str], rows: dict[str, Route], changed: bool
    ) -> None:
        self.leaving = {name: pool for name, pool in self.leaving.items() if pool.in_flight or pool.dirty}
        for row in pools:
            # Reuse a leaving pool of that name: two would overwrite each other's demand.
            pool = self.pools.get(row.pool) or self.leaving.pop(row.pool, None)
            if pool is None:
                self.pools[row.pool] = Pool(self.shared, row, self._moved)
            else:
                self.pools[row.pool] = pool
                pool.update(row)
        left = [self.pools.pop(name) for name in gone if name in self.pools]
        if changed:
            before, self.rows = self.rows, rows
            self.routes = Routes(rows.values())
            self._set_gates()
            left += [self.pools[name] for name in _moved_off(before, rows) if name in self.pools]
            for key in before.keys() - rows.keys():
                self.shared.ledger.counts.retire(key)
        if changed or left:
            self.known.clear()
        for pool in left:
            pool.part()
            if pool.workload not in self.rows:
                self.shared.ledger.counts.retire(pool.workload)
            if pool.key not in self.pools:
                self.leaving[pool.key] = pool
                pool.close()
            for request in pool.take_held():
                self._follow(request)

    def _set_gates(self) -> None:
        """Limits as the routes have them now. What was used of those that stay is used."""
        before, self.gates = self.gates, {}
        now = self.shared.now()
        for key, row in self.rows.items():
            if row.limits != UNLIMITED:
                gate = self.gates[key] = before.get(key) or Gate(shown_as(key), row.limits, self.gateways, now)
                gate.set(row.limits, self.gateways, now)

    # -- requests -------------------------------------------------------------------------

    def handle(self, request: Request) -> None:
        """Send a request on its way, or answer it."""
        call = self.known.get((request.host, request.target))
        if call is None:
            self._find(request)
        else:
            self._call(request, call)

    def _moved(self, request: Request) -> bool:
        """Whether the pool it was in lost its workload's traffic; it came in anew then."""
        old = request.pool
        assert isinstance(old, Pool)
        row = self.rows.get(old.workload)
        if row is not None and old.key in self.pools and (row.pool == old.key or old.key in row.pools):
            return False
        self._follow(request)
        return True

    def _follow(self, request: Request) -> None:
        """Its pool lost the traffic while it waited: it comes in anew, by the same door, for what is deployed now."""
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
        path = raw_path.decode("latin-1")
        found: Destination | Told | Listing | Asking = route(self.routes, host, path)
        if isinstance(found, Own) and found.name in _PROTOCOLS:
            request.error_body = ERROR_BODIES[found.name]
            found = _PROTOCOLS[found.name](self.routes, request.method.decode("latin-1"), path[3:])
        if isinstance(found, NoRoute | Asking) and not self.told.is_set():
            message = "What is deployed is not known here yet: control has not been heard. Try again in a moment."
            request.fail(503, "control_down", message, b"retry-after: 1\r\n")
        elif isinstance(found, Found):
            plain = not question and target is request.target and len(request.host) <= KNOWN_HOST_MAX
            self._lead(request, found, question + query, (request.host, target) if plain else None)
        elif isinstance(found, NoRoute):
            self._lose(request, found)
        elif isinstance(found, Asking):
            self._gather(request, found.api)
        elif isinstance(found, Told | Listing):
            self._tell(request, found)
        else:
            self._own(request, found, target)

    def _lose(self, request: Request, found: NoRoute) -> None:
        """Nothing is there. What names there are near it is nobody's business who needs a key and has none."""
        if self.locked:
            shown = self.door.pass_of(request.authorization, ANYTHING)
            refused = None if shown.ours else may_call(_caller(request, shown.holder), ANYTHING, key_needed=True)
            if refused is not None:
                _refuse(request, refused)
                return
        _lost(request, found)

    def _lead(self, request: Request, found: Found, query: bytes, known_by: tuple[bytes, bytes] | None) -> None:
        """To a method. `known_by`: what names it alone, and always."""
        drawn = bool(found.choices)
        if drawn:
            found = _chosen(request, found)
        pool = self.pools.get(found.pool)
        if pool is None:
            request.fail(503, "no_replica", f"{found.workload} was just deployed; try again.", b"retry-after: 1\r\n")
        elif found.web is None:
            call = Call(pool, found, self.gates.get(found.workload))
            if known_by is not None and not drawn:
                self._remember(known_by, call)
            self._call(request, call)
        else:
            self._web(request, found, pool, query)

    def _gather(self, request: Request, api: Api) -> None:
        """A request of the OpenAI API: its body says which model it is for."""
        shown = self.door.pass_of(request.authorization, ANYTHING)
        if self._overlooked(shown):
            request.authorization = None
        elif not shown.ours:
            refused = may_call(_caller(request, shown.holder), ANYTHING, key_needed=self.locked)
            if refused is not None:
                _refuse(request, refused)
                return
        self.gathering[api].submit(request)

    def _overlooked(self, shown: Pass) -> bool:
        """Clients of the OpenAI API always send a key: where none is needed, any will do that is not one of ours."""
        return not self.locked and shown.holder.key is Key.OTHER

    def _ask(self, request: Request, api: Api) -> None:
        """The same, with its body."""
        try:
            found = named(self.routes, api, openai.model_of(b"".join(request.body)))
        except SwellError as error:
            _refuse(request, error)
            return
        if isinstance(found, Found):
            self._lead(request, found, b"", None)
        else:
            _lost(request, found)

    def _remember(self, named: tuple[bytes, bytes], call: Call) -> None:
        if len(self.known) >= KNOWN_MAX:
            self.known.clear()
        self.known[named] = call

    def _call(self, request: Request, call: Call) -> None:
        request.error_body = call.error_body
        if request.method != b"POST":
            request.fail(405, "method_not_allowed", "Functions are called with POST.", b"allow: POST\r\n")
            return
        key_gate = None
        if self.locked or request.authorization is not None or request.origin is not None:
            shown = self.door.pass_of(request.authorization, call.app)
            if shown.ours:
                refused = shown.lacks
            else:
                refused = may_call(_caller(request, shown.holder), call.app, key_needed=self.locked)
            if refused is not None:
                _refuse(request, refused)
                return
            key_gate = self._known_by(request, shown)
        if (key_gate is not None or call.gate is not None) and not self._let_in(request, key_gate, call.gate):
            return
        request.call = call.method
        request.line = call.line
        self._submit(request, call.pool)

    def _web(self, request: Request, found: Found, pool: Pool, query: bytes) -> None:
        app = app_of(found.workload)
        shown = self.door.pass_of(request.authorization, app)
        needed = self.locked or (found.web is not None and found.web.needs_key)
        caller = _caller(request, shown.holder)
        refused = may_visit(caller, app, key_needed=needed, allowed_hosts=self.hosts)
        if refused is not None:
            _refuse(request, refused)
            return
        if request.websocket and (found.web is None or found.web.kind not in _SOCKET_KINDS):
            message = (
                "Only @asgi_app and @web_server take WebSockets, and this is neither: use HTTP, or stream the answer."
            )
            request.fail(501, "no_websocket", message)
            return
        if not self._let_in(request, self._known_by(request, shown), self.gates.get(found.workload)):
            return
        path = found.path.encode("latin-1")
        request.call = f"WEB {found.path}"
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

    def _known_by(self, request: Request, shown: Pass) -> Gate | None:
        """Note whose key came with it; returns the limits of that, where it has any."""
        if not shown.ours:
            return None
        request.key = shown.holder.id
        if shown.trusted:
            request.extra = _TRUSTED_LINE
        return shown.gate

    def _let_in(self, request: Request, *met: Gate | None) -> bool:
        """Is there room for it by these limits? One that only moves to another pool was let in when it came."""
        gates = tuple(gate for gate in met if gate is not None)
        if not gates or request.pool is not None:
            return True
        refusal = let_in(gates, self.shared.now())
        if refusal is not None:
            retry = b"retry-after: %d\r\n" % refusal.retry_after_s
            request.fail(refusal.status, refusal.code, refusal.message, retry)
            return False
        request.gates = gates
        return True

    def _submit(self, request: Request, pool: Pool) -> None:
        request.body_max = self.shared.settings.body_max
        for gate in request.gates:
            request.within(gate.limits)
        # What came in chunks with its head was not counted yet.
        if request.length > request.body_max or request.size > request.body_max:
            request.fail(413, "body_too_large", request.body_limit)
            return
        if request.timeout is not None:
            wanted_s = _seconds(request.timeout)
            if wanted_s is None:
                request.fail(400, "bad_request", f"{TIMEOUT} takes a number of seconds above zero.")
                return
            request.wait_for(wanted_s)
        request.pool = pool
        pool.submit(request)

    def _own(self, request: Request, own: Own, target: bytes) -> None:
        if own.name == "api":
            request.call = "API"
            request.line = request_start(request.method, target)
            if request.authorization is not None:
                request.extra = b"authorization: %b\r\n" % request.authorization
            request.pool = self.api
            self.api.submit(request)
        elif request.method not in (b"GET", b"HEAD"):
            words = f"/{own.name} is read with GET."
            request.fail(405, "method_not_allowed", words, b"allow: GET, HEAD\r\n")
        elif own.name == "metrics":
            shown = self.door.pass_of(request.authorization, ANYTHING)
            caller = _caller(request, shown.holder)
            refused = may_scrape(caller, key_needed=self.locked, allowed_hosts=self.hosts)
            if refused is not None:
                _refuse(request, refused)
            else:
                self.scraped(request)
        else:
            request.answer(503 if self.shared.closing else 200, b"text/plain", _HEALTHY)

    def _tell(self, request: Request, told: Told | Listing) -> None:
        """What a protocol asks for and no replica is needed for."""
        app = ANYTHING if told.row is None else app_of(told.row.key)
        shown = self.door.pass_of(request.authorization, app)
        if isinstance(told, Listing) and self._overlooked(shown):
            shown = self.door.pass_of(None, app)
        # Of what is no model's, whoever has a key is told what that may see.
        if not told.open and not (shown.ours and told.row is None):
            refused = may_call(_caller(request, shown.holder), app, key_needed=self.locked)
            if refused is not None:
                _refuse(request, refused)
                return
        sees = partial(may_see, shown.holder) if shown.ours else _sees_all
        if isinstance(told, Listing):
            request.answer(*listed(told, self.routes, sees))
            return
        models = {n: (row, m) for n, (row, m) in self.routes.models.items() if sees(row.namespace, row.app)}
        knows = self.told.is_set() and not self.shared.closing
        request.answer(*answer_of(told, models, self.pools, knows))


_PROTOCOLS: dict[str, Callable[[Routes, str, str], Told | Listing | Asking | Found | NoRoute]] = {
    "v1": asked_openai,
    "v2": asked,
}
"""What a method and a path below its first segment ask for, by that segment."""


def _sees_all(_namespace: str, _app: str) -> bool:
    return True


def _lost(request: Request, found: NoRoute) -> None:
    allow = f"allow: {found.allow}\r\n".encode() if found.allow else b""
    request.fail(found.status, found.code, found.message, allow)


def app_of(workload: str) -> Scope:
    """What is needed to call something of a workload's app."""
    namespace, _, rest = workload.partition("/")
    return Scope("call", namespace, rest.partition("/")[0])


def _caller(request: Request, holder: Holder) -> Caller:
    origins = () if request.origin is None else (request.origin.decode("latin-1"),)
    return Caller(holder, request.host.decode("latin-1"), origins)


def _nobody(request: Request) -> None:
    """Until the gateway has all its parts."""
    request.fail(503, "control_down", "The gateway has only just begun. Try again in a moment.", b"retry-after: 1\r\n")


def _moved_off(before: dict[str, Route], after: dict[str, Route]) -> Iterator[str]:
    """Pools that requests of their workload go to no longer."""
    for key, row in before.items():
        now = after.get(key)
        if now is not row:
            yield from row.pools - (now.pools if now is not None else set())


def _chosen(request: Request, found: Found) -> Found:
    """What is found for this request, of the revisions that it may go to."""

    def header(name: str) -> str | None:
        return header_of(request.head, name)

    key = header(found.hash_header) if found.hash_header else None
    drawn = key.encode("latin-1") if key is not None else os.urandom(8)
    choice = choose(found.choices, drawn, header)
    method = choice.method
    return msgspec.structs.replace(found, pool=choice.pool, method=method.name, web=method.web, choices=())


def _refuse(request: Request, refused: SwellError) -> None:
    request.fail(refused.status, refused.code, refused.message, _ASK_LINE if refused.status == 401 else b"")


def _seconds(value: bytes) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0.0 < seconds < math.inf else None
