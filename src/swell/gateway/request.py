"""Where is one request on its way through the gateway, and how does it end?

A request is parsed by its client's connection, waits in a pool or has a slot in a replica, and is
answered through an upstream connection or by the gateway itself. Whatever happens, it ends exactly once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from swell.decide.admit import Refusal
from swell.decide.cache import Kept
from swell.decide.price import marginal
from swell.gateway.count import Tally
from swell.gateway.deaths import Lost
from swell.gateway.heads import (
    CLOSE_LINE,
    COLD_LINE,
    JOIN_MAX,
    JSON_TYPE,
    KEEP_ALIVE_LINE,
    answer_head,
    limit_line,
    own_times,
)
from swell.gateway.shared import Shared
from swell.gateway.wheel import Slot
from swell.model.limits import Limits
from swell.model.request import Led, RequestRecord, Reused, Together, failed
from swell.wire.http import CACHE, TIMEOUT, ErrorShape, error_body

REPLAY_MAX = 256 * 1024
"""Bytes of a body that are kept until the replica has taken it, so that a refusal as busy can be tried
elsewhere; also what one held request may take in before its client is made to wait."""
DRAIN_MAX = 256 * 1024
"""Bytes of an unwanted body that are read and thrown away to keep a connection; beyond it, it is closed."""


LAST_WORDS_S = 0.5
"""A replica has this long, after the deadline, to answer for it: it stops the code and knows what that used, and it can
end in words a stream that the gateway can only cut."""


Refused = tuple[int, str, str, bytes]
"""Status, code, message, and further header lines of a refusal."""
_HIT = f"age: %d\r\n{CACHE}: hit\r\n".encode()
_CALLERS = f"the caller's {TIMEOUT}"


class Framing(IntEnum):
    """How the client is told where the answer's body ends."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3


class ClientSide(Protocol):
    """The connection a request came on."""

    def write(self, data: bytes) -> None: ...
    def answered(self, request: Request) -> None: ...
    def cut(self, request: Request) -> None: ...
    def switch(self, tunnel: TunnelSide) -> None: ...
    def stop_reading(self, why: int) -> None: ...
    def read_on(self, why: int) -> None: ...
    @property
    def write_paused(self) -> bool: ...


class UpstreamSide(Protocol):
    """The connection a request was sent on."""

    def push_body(self) -> None: ...
    def late(self) -> bool:
        """Its deadline has passed: True if it may still say so by itself."""
        ...

    def abort(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class TunnelSide(UpstreamSide, Protocol):
    """An open WebSocket, as its client's connection knows it."""

    def take(self, data: bytes) -> None: ...
    def leave(self, code: int, reason: str) -> None: ...
    def nothing(self) -> bytes:
        """What means nothing to the client, where something may be said to it now."""
        ...

    def client_eof(self) -> None: ...
    def client_lost(self) -> None: ...


class PoolSide(Protocol):
    """The pool a request is for; what is said here is so where it waits only, and nothing is worked on."""

    key: str = ""
    native: bool = True
    memory_mib: int = 0
    timeout_s: float = 0.0
    limit: str = ""
    limit_line: bytes = b""
    tally: Tally | None = None

    def submit(self, request: Request) -> None: ...
    def drop(self, request: Request) -> None: ...
    def grown(self, request: Request) -> None: ...
    def overdue(self, request: Request, now: float) -> None:
        """It has waited there for as long as it may."""
        ...


class Counting(Protocol):
    """What counts a request from when it is let in to its end: a limit that holds for it, if it has one."""

    who: str
    limits: Limits

    def leave(self) -> None: ...


class ReplicaSide(Protocol):
    """The replica a request has a slot in."""

    id: str
    timings_ms: tuple[tuple[str, float], ...]


@dataclass(slots=True, eq=False)
class Request:
    """One request. Times are of the loop's clock."""

    shared: Shared
    client: ClientSide
    at: float
    """When it began to arrive."""
    method: bytes
    target: bytes
    id: bytes
    # As parsed
    http11: bool = True
    keep_alive: bool = True
    length: int = 0
    chunked: bool = False
    expects: bool = False
    websocket: bool = False
    """It is an opening handshake."""
    host: bytes = b"localhost"
    """Of HTTP/1.0 clients that name none, this."""
    authorization: bytes | None = None
    origin: bytes | None = None
    """The page that a browser sent it for."""
    timeout: bytes | None = None
    later: tuple[tuple[bytes, bytes], ...] = ()
    """The headers, by their lower-case names, of what is to be worked on later."""
    head: bytes = b""
    """Header lines to pass on, but for Host."""
    refusal: Refused | None = None
    """Set when it cannot be served whatever it is for."""
    # The body
    body: list[bytes] = field(default_factory=list)
    size: int = 0
    sent: int = 0
    """Pieces of `body` already written upstream."""
    complete: bool = False
    trailers: bytes = b""
    """Header lines that came behind a body in chunks."""
    replayable: bool = True
    body_max: float = math.inf
    # As routed
    pool: PoolSide | None = None
    call: str = ""
    """What it calls, for records: the method, or "WEB /path"."""
    led: Led | None = None
    """What led it to its pool, for records, too."""
    line: bytes = b""
    """The upstream request line and the name of the header that carries the id."""
    extra: bytes = b""
    """Further header lines, as its way in made them."""
    error_body: ErrorShape = error_body
    """How its caller is told of errors."""
    key: str = ""
    """Id of the API key it came with."""
    gates: tuple[Counting, ...] = ()
    """Where it counts until it ends: limits of its key, of its workload."""
    wanted_s: float = math.inf
    """How long its caller waits for the answer, by its own word or its key's."""
    until: float = math.inf
    """When that is over: it counts from when it came, waiting included."""
    # As placed
    deadline: float = math.inf
    """Of what works on it: the function's timeout from when it got its slot, or `until` if that is sooner."""
    limit: str = ""
    """What set the deadline: "1 s (timeout= of the function)"."""
    limit_line: bytes = b""
    """The same as a header for a replica of ours."""
    slot: Slot | None = None
    replica: ReplicaSide | None = None
    upstream: UpstreamSide | None = None
    held_bytes: int = 0
    assigned_at: float = 0.0
    sent_at: float = 0.0
    cold: bool = False
    waited: bool = False
    """It was held, be it for a moment."""
    attempts: int = 0
    # As answered
    framing: Framing = Framing.NONE
    answering: bool = False
    """The answer's head was sent: from now on failure can only be shown by cutting the connection."""
    done: bool = False

    def within(self, limits: Limits) -> None:
        """It is held to the size and the time that its key, or its workload, lets in."""
        if limits.body_max and limits.body_max < self.body_max:
            self.body_max = limits.body_max
        if limits.timeout_s:
            self.wait_for(limits.timeout_s)

    def wait_for(self, seconds: float) -> None:
        """Its answer is of use for so long since it came; for less, where that was said before."""
        if seconds < self.wanted_s:
            self.wanted_s = seconds
            self.until = self.at + seconds

    @property
    def body_limit(self) -> str:
        """How long its body may be, and by whose limit."""
        who = next((f" of {gate.who}" for gate in self.gates if gate.limits.body_max == self.body_max), "")
        return f"A body may have {self.body_max:.0f} bytes (body_max{who})."

    def wait_at_most(self, hold_s: float) -> None:
        """It is held: for so long since it came, or as long as its caller waits."""
        self.shared.wheel.add(self, min(self.at + hold_s, self.until))

    def allot(self, pool: PoolSide, now: float) -> None:
        """It has a slot: from now on its function's timeout counts, within what its caller leaves it."""
        deadline = now + pool.timeout_s
        if self.until < deadline:
            deadline = self.until
            self.limit = self.callers_limit
            self.limit_line = limit_line(self.limit)
        else:
            self.limit = pool.limit
            self.limit_line = pool.limit_line
        self.deadline = deadline
        if deadline < math.inf:
            self.shared.wheel.add(self, deadline)

    def due(self, now: float) -> None:
        """Its time is up: to wait, or to be worked on."""
        if self.replica is None and self.pool is not None:
            self.pool.overdue(self, now)
        elif now < self.deadline + LAST_WORDS_S and self.upstream is not None and self.upstream.late():
            self.shared.wheel.add(self, self.deadline + LAST_WORDS_S)
        else:
            self.expire()

    @property
    def callers_limit(self) -> str:
        """How long its answer is of use, and who says so."""
        who = next((f"timeout of {g.who}" for g in self.gates if g.limits.timeout_s == self.wanted_s), "")
        return f"{self.wanted_s:g} s ({who or _CALLERS})"

    def expire(self) -> None:
        """End it: the deadline of its work has passed."""
        if isinstance(self.replica, Lost):
            passed = "passed just after its replica had died while running it. Not retried: it may have had effects."
        elif self.upstream is not None:
            passed = "passed while it ran."
        else:
            passed = "passed while its replica was being reached."
        self.fail(504, "deadline", f"The deadline of {self.limit} {passed}")

    def lose(self, replica: ReplicaSide, now: float) -> None:
        """Its replica died with it: it works no more, and counts no more, though its caller is not told yet."""
        self._leave_gates()
        self.upstream = None
        self.replica = Lost(replica.id, replica.timings_ms, now)

    def _leave_gates(self) -> None:
        """It counts no more at any limit, once it is over or lost."""
        if not isinstance(self.replica, Lost):
            for gate in self.gates:
                gate.leave()

    def body_overdue(self, now: float) -> None:
        """End it: its body, which has to be here before it goes anywhere, is not, after all the time it may wait."""
        if now >= self.until:
            words = f"The deadline of {self.callers_limit} passed while its body was on its way."
            self.fail(504, "deadline", words)
        else:
            words = f"The body of the request did not arrive within {self.shared.settings.hold_s:g} s (hold_s)."
            self.fail(408, "slow_client", words)

    def fail(self, status: int, code: str, message: str, extra: bytes = b"") -> None:
        """End it with an error, wherever it is: being read, held, connecting, running or half answered."""
        if self.done:
            return
        now = self.shared.now()
        self.finish(now, status, code)
        if self.pool is not None:
            self.pool.drop(self)
            if self.pool.tally is not None:
                extra += self._metering(now)
        if self.answering:
            self.client.cut(self)
            return
        self._say(status, JSON_TYPE, self.error_body(code, message, self.id.decode()), extra)

    def refuse(self, refusal: Refusal) -> None:
        """End it: there is no room for it now, but later."""
        self.fail(refusal.status, refusal.code, refusal.message, b"retry-after: %d\r\n" % refusal.retry_after_s)

    def answer(self, status: int, content_type: bytes, body: bytes, extra: bytes = b"") -> None:
        """End it with an answer of the gateway's own. `extra`: further header lines."""
        if self.done:
            return
        self.finish(self.shared.now(), status)
        self._say(status, content_type, body, extra)

    def reuse(self, kept: Kept) -> None:
        """End it with what an equal one was answered."""
        if self.done:
            return
        now = self.shared.now()
        age_s = int(now - kept.at)
        self.finish(now, 200, reused=Reused(kept.request, age_s))
        total_ms = (now - self.at) * 1e3
        times = own_times((("cache", total_ms),), total_ms, free=True)
        self._say(200, kept.content_type, kept.body, b"%b%b%b" % (kept.lines, _HIT % age_s, times))

    def _say(self, status: int, content_type: bytes, body: bytes, extra: bytes) -> None:
        self.decide_keep_alive()
        if not self.keep_alive:
            extra += CLOSE_LINE
        elif not self.http11:
            extra += KEEP_ALIVE_LINE
        head = answer_head(status, self.id, content_type, len(body), extra)
        if self.method == b"HEAD":
            body = b""
        if len(body) > JOIN_MAX:
            # By itself: one that is kept is given to many, who read it as slowly as they like, without a copy for each.
            self.client.write(head)
            self.client.write(body)
        else:
            self.client.write(head + body)
        self.client.answered(self)

    def abandon(self) -> None:
        """The caller left."""
        if not self.done:
            self.finish(self.shared.now(), 499, "client_left")
            if self.pool is not None:
                self.pool.drop(self)

    def decide_keep_alive(self) -> None:
        """Settle, before an answer's head is sent, whether its connection can carry another request."""
        if self.shared.closing or self.refusal is not None:
            # Once its bytes could not be understood, nothing after them can be either.
            self.keep_alive = False
        elif not self.complete:
            # A client that was not told to continue may or may not send its body now: the next bytes cannot be read
            # safely. A long rest of a body is not worth reading.
            unsure = self.expects and not self.size
            if unsure or self.length - self.size > DRAIN_MAX:
                self.keep_alive = False

    def finish(
        self,
        now: float,
        status: int,
        error: str = "",
        cpu_us: int = -1,
        cost_usd: float = 0.0,
        run_ms: float = -1.0,
        batch: Together | None = None,
        reused: Reused | None = None,
    ) -> None:
        """It is over: count it, and remember it if it is worth that. Exactly once.

        `cpu_us` is -1 where its replica did not tell: what it used is then the memory for as long as it ran.
        """
        self.done = True
        self.shared.wheel.discard(self)
        self._leave_gates()
        pool = self.pool
        ledger = self.shared.ledger
        if pool is None or pool.tally is None:
            if error:
                ledger.refused.add(status, error)
            return
        total_ms = (now - self.at) * 1e3
        if self.waited:
            pool.tally.count.held.observe((self.assigned_at or now) - self.at)
        bad = failed(status, error)
        wanted = ledger.wants(pool.tally, total_ms, status, error, bad, self.cold)
        if not wanted and not self.key:
            return
        if not self.sent_at:
            cpu_us = 0
        elif cpu_us < 0:
            over = self.replica.at if isinstance(self.replica, Lost) else now
            cost_usd = marginal(self.shared.prices, 0.0, over - self.sent_at, pool.memory_mib)
        if self.key:
            ledger.used(self.key, pool.key, bad, cpu_us, cost_usd)
        if wanted:
            ledger.keep(
                RequestRecord(
                    id=self.id.decode(),
                    pool=pool.key,
                    method=self.call,
                    received_at=self.shared.wall() - total_ms / 1e3,
                    status=status,
                    total_ms=total_ms,
                    phases_ms=self._phases(total_ms, run_ms, batch) if reused is None else (("cache", total_ms),),
                    replica=self.replica.id if self.replica is not None else "",
                    cold=self.cold,
                    cpu_us=cpu_us,
                    cost_usd=cost_usd,
                    attempts=max(self.attempts, 1),
                    error=error,
                    key=self.key,
                    batch=batch,
                    reused=reused,
                    led=self.led,
                )
            )

    def _metering(self, now: float) -> bytes:
        """Header lines of an answer of our own: where its time went, and that it cost nothing where nothing was done.

        What a replica had begun used something that only it could have told.
        """
        total_ms = (now - self.at) * 1e3
        lines = own_times(self._phases(total_ms, -1.0), total_ms, free=not self.sent_at)
        return lines + COLD_LINE if self.cold else lines

    def _phases(self, total_ms: float, run_ms: float, batch: Together | None = None) -> tuple[tuple[str, float], ...]:
        if not self.assigned_at:
            return (("held", total_ms),)
        held_ms = (self.assigned_at - self.at) * 1e3
        if not self.sent_at:
            return (("held", held_ms), ("connect", total_ms - held_ms))
        connect_ms = (self.sent_at - self.assigned_at) * 1e3
        rest_ms = total_ms - held_ms - connect_ms
        if run_ms < 0.0:
            return (("held", held_ms), ("connect", connect_ms), ("run", rest_ms))
        if batch is not None:
            send_ms = max(rest_ms - batch.waited_ms - batch.run_ms, 0.0)
            within = (("batch", batch.waited_ms), ("run", batch.run_ms), ("send", send_ms))
            return (("held", held_ms), ("connect", connect_ms), *within)
        return (("held", held_ms), ("connect", connect_ms), ("run", run_ms), ("send", max(rest_ms - run_ms, 0.0)))
