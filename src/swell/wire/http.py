"""Which names are on the HTTP surface? Headers, content types, limits, and error bodies.

Headers are named here as they are written; `lower` is how they are compared.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

# Gateway → client
REQUEST_ID = "Swell-Request-Id"
COST_USD = "Swell-Cost-Usd"
SERVER_TIMING = "Server-Timing"
CACHE = "Swell-Cache"
"""hit: it was answered with what an equal request was answered; `Age` says how long ago."""
COLD = "Swell-Cold"
"""No replica was ready."""

# Gateway → replica
REMAINING_MS = "Swell-Remaining-Ms"
"""Time left of the request's deadline: relative, because clocks differ."""
LIMIT = "Swell-Limit"
"""What set that deadline, in words for whom it ends: "1 s (timeout= of the function)"."""
WEB = "Swell-Web"
"""A web request, for the method of that name."""
ROOT_PATH = "Swell-Root-Path"
"""The prefix that was cut off its path."""
TRUSTED = "Swell-Trusted"
"""The caller sent a key: pickles may be read."""

HAND_OUT = "Swell-Hand-Out"
"""From a runner: the token that a queued call was handed out with. Who closes the connection does not cancel it; its
answer is kept until the runner says that it has it safe. On `POST /slot` any: what is to come will be kept."""

RANK = "Swell-Rank"
"""With that, of a call that a gang works on: which of its members this replica is, from 0."""
PEERS = "Swell-Peers"
"""With that: where each member is, by rank, "host:port", with commas between."""

WAIT_MS = "Swell-Wait-Ms"
"""On `POST /slot`: how long to wait for a slot."""

HOLD = "Swell-Hold"
"""On the same: the slot is for as long as the connection is open, and no request will come on it."""

# Replica → gateway
FREE = "Swell-Free"
"""On the answer to that: the connection has a slot; so many are free beside it, and so many other gateways wait."""
BUSY = "Swell-Busy"
"""On a 503: refused before the body was read; safe to try another replica."""
CPU_US = "Swell-Cpu-Us"
"""CPU time of the input, µs: header when the body has a length, else the last chunk's trailer."""
RUN_US = "Swell-Run-Us"
"""Time in user code, µs; of a batch its share."""
BATCH = "Swell-Batch"
"""Of an input that was worked on in a batch: how many were, µs that it waited for that, µs of user code for all of
them, and the id of the request under which what the code prints is logged. Right behind what it used."""
ERROR = "Swell-Error"
"""Status and code of the error an input ended in ("504 deadline"): header, or the last chunk's trailer of a stream
whose own status had been sent before."""
TRAILERS = f"{CPU_US}, {RUN_US}".encode()
"""Trailers of every stream; that of one that failed has the error too."""
ITEM_TYPE = "Swell-Item-Type"
"""Content type of each item of a typed stream, or of a group's inputs (FRAMES)."""

# Client → gateway; every other Swell-* header from a client is dropped at the door
TIMEOUT = "Swell-Timeout"
"""Seconds the caller is willing to wait; the function's own timeout still holds."""
ASYNC = "Swell-Async"
"""true: the call is put into the queue, and answered with its id once it is on disk."""
PRIORITY = "Swell-Priority"
"""Of such a call: of those that wait the higher go first."""
DELAY = "Swell-Delay"
"""Of such a call: it is not begun before that has passed, in seconds or as in "10m"."""
GROUP = "Swell-Group"
"""Of such a call: those that are made together have one in common, "fg-…". The body is FRAMES then: an input
in each, and a call for each."""
FIRST = "Swell-First"
"""The number of the first of them in the group, from 0: what was accepted under its number is not accepted again."""
KEEP = "Swell-Keep"
"""Of such a call: how long it is kept after its end, in seconds or as in "1h"."""
IDEMPOTENCY_KEY = "Idempotency-Key"
"""Of such a call: where one came with the same already, that is the call. It is no header of ours alone."""
CALL_STATE = "Swell-Call-State"
"""On what is told of a call in the queue: its state. Where it stands, the answer is of the call itself."""

JSON = "application/json"
MSGPACK = "application/msgpack"
OCTETS = "application/octet-stream"
PICKLE = "application/x-swell-pickle"
"""Python objects, for the SDK. Taken only with the API key, since unpickling runs code."""
JSON_OR_PICKLE = f"{JSON}, {PICKLE}"
"""Accepted by control of what it calls by itself."""
FRAMES = "application/x-swell-frames"
"""A typed stream: each frame a 4-byte length, one kind byte (i item, e error, z end), payload."""
SSE = "text/event-stream"
FORM = "application/x-www-form-urlencoded"
"""What `curl -d` says that it sends, whatever that is: it is read as JSON."""
VALUES = (JSON, MSGPACK, OCTETS, PICKLE)
"""What arguments, and a result, are sent as."""

OWN_HEADERS = frozenset(
    {
        *("age", "connection", "content-encoding", "content-length", "content-type", "date", "keep-alive"),
        *("proxy-connection", "server-timing", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""Headers of an answer that say how it is written and sent, and what it took: no function may set them, nor any whose
name begins with "swell-"."""
RESULT_MAX = 64 * 1024 * 1024
"""Bytes of a queued call's result that is kept."""
RESULT_INLINE_MAX = 2 * 1024 * 1024
"""Bytes of one that stands in the call's row, and in what is told of ends. A larger one is in a file."""
KEPT_BYTES_MAX = 256 * 1024 * 1024
"""Bytes of the results of queued calls that a replica keeps for a runner to come: beyond that it begins none, and of
what ends while nobody listens only that is kept which is small, such as errors."""
HEADER_MAX = 64 * 1024
"""Bytes of a request's line and headers."""
HEADERS_MAX_COUNT = 100


def media_type(header: str) -> str:
    """What a `Content-Type` names, without its parameters."""
    return header.partition(";")[0].strip().lower()


def read_as(header: str) -> str:
    """The type that arguments with this `Content-Type` are taken for."""
    kind = media_type(header)
    return JSON if kind in ("", FORM) else kind


def lower(name: str) -> bytes:
    """A header's name as names are compared."""
    return name.lower().encode()


Problems = tuple[tuple[str, str], ...]
"""(path, message) of each."""


class Problem(msgspec.Struct, frozen=True):
    """One of several things that are wrong with what was sent."""

    path: str
    """In it, as JSON paths are written: "$.items[2].price"."""
    message: str


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every error Swell itself answers: {"error": {"code", "message", …}}."""

    code: str
    message: str
    request: str = ""
    detail: str = ""
    exception: str = ""
    """Base64 pickle of the user's exception, only to callers that may send pickles."""
    traceback: str = ""
    """The user's frames of that exception, as Python prints them, to the same callers."""
    problems: tuple[Problem, ...] = ()
    """Of arguments that do not fit: all that is wrong with them."""


class ErrorEnvelope(msgspec.Struct, frozen=True):
    error: ErrorBody


def result_too_large(most: int) -> str:
    """What is said instead of a queued call's result that has more bytes than that."""
    words = f"Its result has more than {most // 2**20} MiB, which is the most that is kept of a queued call."
    return f"{words} Write it to a volume and return where, or call it by .remote(), which has no such bound."


def error_body(
    code: str,
    message: str,
    request: str = "",
    detail: str = "",
    exception: str = "",
    traceback: str = "",
    problems: Problems = (),
) -> bytes:
    """An error as JSON bytes."""
    listed = tuple(Problem(*each) for each in problems)
    return msgspec.json.encode(ErrorEnvelope(ErrorBody(code, message, request, detail, exception, traceback, listed)))


class ErrorShape(Protocol):
    """How callers of one kind are told of errors: `error_body`, or what another protocol has for it."""

    def __call__(
        self,
        code: str,
        message: str,
        request: str = "",
        detail: str = "",
        exception: str = "",
        traceback: str = "",
        problems: Problems = (),
    ) -> bytes: ...
