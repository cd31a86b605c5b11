"""Was the same asked a moment ago? Answers of methods that are declared `@cached`, and who waits for one under way.

What an answer depends on is its key: the pool (so the revision), the method, the protocol, the body, the headers that
say how either is written, and those that its author named. Who asks the same while a call runs waits for that one's
answer, within a deadline of its own. Should that not come, or not be one to keep, each goes on by itself; also where
what they were for has gone elsewhere meanwhile.
"""

from __future__ import annotations

from functools import partial

from swell.decide.cache import ANSWER_MAX, BODY_MAX, Kept, Wish, key_of, may_keep, wish_of
from swell.decide.route import Found
from swell.gateway.bodies import Bodies
from swell.gateway.heads import CRLF
from swell.gateway.pool import Pool
from swell.gateway.request import Framing, Request, TunnelSide
from swell.gateway.shared import Shared
from swell.model.caching import Caching
from swell.model.limits import UNLIMITED
from swell.wire.http import PICKLE
from swell.wire.inference import HEADER_LENGTH

_DEPENDS = (b"content-type", b"accept", b"content-encoding", HEADER_LENGTH.lower().encode())
"""Headers of a request that say how its body, or its answer, is written."""
_CONTROL = b"cache-control"
_KEY = b"authorization"
"""Named by an author, it stands for the key that came: by its id, since one is written in more than one way."""
_ANEW = frozenset({b"age", b"connection", b"content-length", b"content-type", b"server-timing"})
"""Header lines of an answer that are written anew, as all of Swell's own are."""
_APART = b"\n"
"""Between the values of lines of one name: what is in none."""
_PICKLE = PICKLE.encode()
_GOOD = b"HTTP/1.1 200 "


class Cache:
    """What one gateway keeps."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.store = shared.kept
        self.flights: dict[bytes, Flight] = {}
        self.gathered_bytes = 0
        """Of answers that are on their way: no more than may be kept."""

    def moved(self, request: Request) -> None:
        """It comes in anew, since its pool lost the traffic: what it is answered is another revision's."""
        if isinstance(request.client, Flight):
            request.client.dissolve()

    def way(self, pool: Pool, found: Found) -> Pool | Cached:
        """How requests for a method get to its pool."""
        if found.cache is None or not self.store.bytes_max:
            return pool
        return Cached(self, pool, found, found.cache)


class Cached(Bodies):
    """The way to a method whose answers are kept. Requests are in it while their bodies come, and while they wait for
    the answer of another."""

    def __init__(self, cache: Cache, pool: Pool, found: Found, caching: Caching) -> None:
        super().__init__(cache.shared)
        self.cache = cache
        self.pool = pool
        self.caching = caching
        self.vary = tuple(name.encode() for name in caching.vary)
        self.headers = frozenset({*_DEPENDS, _CONTROL, *self.vary}) - {_KEY}
        self.place = f"{pool.key} {found.face} {found.method}".encode()
        # As whoever counts and ends requests knows a pool.
        self.key, self.workload, self.memory_mib = pool.key, pool.workload, pool.memory_mib
        self.timeout_s, self.limit, self.limit_line = pool.timeout_s, pool.limit, pool.limit_line
        self.tally = pool.tally

    def submit(self, request: Request) -> None:
        """Take in a request, with as much of its body as came with it."""
        if request.length > BODY_MAX or request.size > BODY_MAX:
            self._pass_on(request)
        elif request.complete:
            self._ask(request)
        else:
            self.gather(request)

    def grown(self, request: Request) -> None:
        """More of its body came."""
        self.count(request)
        too_much = request.size > BODY_MAX or self.full
        if not (too_much or request.complete) or self._moved(request):
            return
        if too_much:
            self._pass_on(request)
        else:
            self._ask(request)

    def overdue(self, request: Request, now: float) -> None:
        """It waited for its body, or for the answer of another, for as long as it may. Of its own a call may take
        longer than anybody waits for one."""
        if not request.complete:
            request.body_overdue(now)
        elif now >= request.until:
            words = f"The deadline of {request.callers_limit} passed while it waited for the answer of an equal call."
            request.fail(504, "deadline", words)
        else:
            seat = request.gates[-1]
            seat.leave()
            self._go_on(request, None)

    def _moved(self, request: Request) -> bool:
        """Whether its pool lost the traffic while it was here; it came in anew then."""
        self.drop(request)
        request.pool = self.pool
        if self.pool.moved(request):
            return True
        request.pool = self
        return False

    def _pass_on(self, request: Request) -> None:
        self.drop(request)
        request.pool = self.pool
        self.pool.submit(request)

    def _ask(self, request: Request) -> None:
        """It is all here: answer it with what is kept, have it wait for the same, or pass it on."""
        key, wish = self._key(request)
        now = self.shared.now()
        kept = self.cache.store.get(key, now)
        if kept is not None and now - kept.at <= wish.age_max_s:
            self.give(request, kept)
            return
        flight = self.cache.flights.get(key)
        if flight is not None and wish.age_max_s >= 0 and flight.join(request):
            return
        if flight is None and wish.keep:
            self.lead(request, key)
        self._pass_on(request)

    def _key(self, request: Request) -> tuple[bytes, Wish]:
        said = _values(request.head, self.headers)
        parts = [self.place, *(said.get(name, b"") for name in _DEPENDS)]
        parts += [request.key.encode() if name == _KEY else said.get(name, b"") for name in self.vary]
        if _PICKLE in parts[1].lower() or _PICKLE in parts[2].lower():
            # Pickles are for those alone who may send them.
            parts.append(request.extra)
        return key_of(parts, request.body), wish_of(said.get(_CONTROL, b"").replace(_APART, b",").decode("latin-1"))

    # -- whoever asks the same ----------------------------------------------------------------

    def lead(self, request: Request, key: bytes) -> None:
        """Its answer is to be kept."""
        self.cache.flights[key] = Flight(self, key, request)

    def give(self, request: Request, kept: Kept) -> None:
        """Answer it with what is kept."""
        self.drop(request)
        if self.tally is not None:
            self.tally.count.hits += 1
        request.reuse(kept)

    def landed(self, flight: Flight, kept: Kept | None, waiting: list[Request]) -> None:
        """A call is over: what becomes of those who waited for its answer."""
        for request in waiting:
            # Meanwhile it may have ended, or gone on.
            if request.done or not flight.seats(request):
                continue
            if kept is not None:
                request.gates = request.gates[:-1]
                self.give(request, kept)
            else:
                self._go_on(request, flight.key)

    def _go_on(self, request: Request, key: bytes | None) -> None:
        """It waits for the answer of another no more. `key`: others may, for its own."""
        request.gates = request.gates[:-1]
        if not self._moved(request):
            if key is not None and key not in self.cache.flights:
                self.lead(request, key)
            self._pass_on(request)


class Flight:
    """A call whose answer is to be kept, and those who wait for it.

    To what answers the call it is its client, so it sees what that is told; among what the call counts at until it ends
    it is one more, so it hears of the end, whatever that is.
    """

    who = ""
    limits = UNLIMITED

    def __init__(self, way: Cached, key: bytes, request: Request) -> None:
        self.way = way
        self.key = key
        self.request = request
        self.client = request.client
        self.waiting: dict[Request, None] = {}
        self.pieces: list[bytes] | None = []
        """Of the answer so far; None: it is none to keep."""
        self.size = 0
        request.client = self
        request.gates = (*request.gates, self)

    # -- as its client ------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self.client.write(data)
        if self.pieces is not None:
            self._note(data)

    def _note(self, data: bytes) -> None:
        assert self.pieces is not None
        cache, size = self.way.cache, len(data)
        begins_well = self.pieces or (self.request.framing is Framing.LENGTH and data.startswith(_GOOD))
        room = self.size + size <= ANSWER_MAX and cache.gathered_bytes + size <= cache.store.bytes_max
        if begins_well and room:
            self.pieces.append(data)
            self.size += size
            cache.gathered_bytes += size
        else:
            # Nobody waits for the end of what is not kept: it may be a long stream.
            self.dissolve()

    def answered(self, request: Request) -> None:
        self.client.answered(request)

    def cut(self, request: Request) -> None:
        self.client.cut(request)

    def switch(self, tunnel: TunnelSide) -> None:
        self.client.switch(tunnel)

    def stop_reading(self, why: int) -> None:
        self.client.stop_reading(why)

    def read_on(self, why: int) -> None:
        self.client.read_on(why)

    @property
    def write_paused(self) -> bool:
        """Others do not wait for how slowly the first one reads: what is kept is bounded anyway."""
        return self.client.write_paused and not self.waiting

    # -- as what it counts at -----------------------------------------------------------------

    def leave(self) -> None:
        """It is over. Nothing of it is told any more but the end of an error, which is not kept."""
        shared, caching = self.way.shared, self.way.caching
        now = shared.now()
        data = b"".join(self.pieces) if self.pieces else b""
        kept = kept_of(data, self.request.id.decode(), now, now + caching.ttl_s)
        if kept is not None:
            self.way.cache.store.put(self.key, kept)
        self._land(kept)

    def dissolve(self) -> None:
        """Its answer is none to keep, or one of another pool."""
        self.request.gates = tuple(each for each in self.request.gates if each is not self)
        self._land(None)

    def _land(self, kept: Kept | None) -> None:
        self.pieces = None
        self.way.cache.gathered_bytes -= self.size
        self.request.client = self.client
        self.way.cache.flights.pop(self.key, None)
        if self.waiting:
            waiting, self.waiting = [*self.waiting], {}
            # Not within what ended it, which has its own slot and connection to see to first.
            self.way.shared.loop.call_soon(partial(self.way.landed, self, kept, waiting))

    # -- for those who wait -------------------------------------------------------------------

    def seats(self, request: Request) -> bool:
        """Does it wait for this one's answer? Its seat is what it took last."""
        last = request.gates[-1] if request.gates else None
        return isinstance(last, Seat) and last.flight is self

    def join(self, request: Request) -> bool:
        """Have one more wait for its answer; False: as many do as may."""
        way, settings = self.way, self.way.shared.settings
        if len(self.waiting) >= settings.hold_max:
            return False
        if way.shared.held_bytes + request.size - request.held_bytes > settings.hold_bytes_max:
            return False
        way.count(request)
        self.waiting[request] = None
        request.gates = (*request.gates, Seat(self, request))
        request.wait_at_most(settings.hold_s)
        if self.client.write_paused and self.request.upstream is not None:
            self.request.upstream.resume()
        return True


class Seat:
    """A request's wait for the answer of another: who ends before that waits no more."""

    who = ""
    limits = UNLIMITED

    def __init__(self, flight: Flight, request: Request) -> None:
        self.flight = flight
        self._request = request

    def leave(self) -> None:
        self.flight.waiting.pop(self._request, None)


def kept_of(data: bytes, request: str, at: float, until: float) -> Kept | None:
    """An answer, as a client was told it, to be given again; None where it is not whole, or not for others."""
    head, _, body = data.partition(b"\r\n\r\n")
    content_type, length = b"", -1
    lines: list[bytes] = []
    for line in head.split(CRLF)[1:]:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name == b"content-type":
            content_type = value.strip()
        elif name == b"content-length":
            length = int(value)
        elif name == b"set-cookie" or (name == _CONTROL and not may_keep(value.decode("latin-1"))):
            return None
        if name not in _ANEW and not name.startswith(b"swell-"):
            lines += (line, CRLF)
    if length != len(body):
        return None
    return Kept(content_type, b"".join(lines), body, request, at, until)


def _values(head: bytes, names: frozenset[bytes]) -> dict[bytes, bytes]:
    """What a head says under these names; of several lines under one, all: not as one line, which may mean another."""
    found: dict[bytes, bytes] = {}
    for line in head.split(CRLF):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in names:
            value = value.strip()
            found[name] = b"%b%b%b" % (found[name], _APART, value) if name in found else value
    return found
