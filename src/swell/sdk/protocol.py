"""Which HTTP request is a call, and what does its answer mean? No I/O: bytes in, values out (docs/wire.md)."""

from __future__ import annotations

import base64
import json
import math
import pickle
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import msgspec

from swell.model.errors import SwellError
from swell.sdk.frames import RemoteTraceback, users
from swell.sdk.here import remaining_s
from swell.sdk.queueing import IN_TURN, Queueing
from swell.wire import http

RETRIED = frozenset({"exception", "deadline", "replica_died"})
"""Failures of a call that its function's `retries` cover: user code raised, took longer than `timeout`, which each
try has anew, or its replica went away."""

HELD_TOO_LONG = "held_too_long"
"""Of a call that waited for a replica as long as any may. Nothing of it was begun: to send it again is no retry."""
LIMITED = frozenset({"rate_limited", "too_many_in_flight", "too_many_variants"})
"""Of a call that a limit kept out. Nor was anything of it begun."""
WAIT_MAX_S = 60.0
"""However long a server asks its caller to wait before that. A limit that asks for longer is told instead."""


@dataclass(frozen=True)
class Request:
    """One HTTP request, without the server's address."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    until: float = math.inf
    """After that (monotonic clock) nobody waits for the answer. The server is told what is left when it is sent."""
    plain: Callable[[], Request] | None = None
    """The same without pickles, for callers whose key does not let them send any."""
    anew: Callable[[], Awaitable[Request]] | None = None
    """The same where it is now, should the server have forgotten the variant that it is for (`chosen.py`)."""
    stream: Callable[[], AsyncIterator[bytes]] | None = None
    """The body, where it is too long to be held: asked for each time it is sent."""
    largest: Callable[[], str] | None = None
    """Says which of its arguments has the most bytes: where it has too many, that is the one to look at."""


@dataclass(frozen=True)
class Answer:
    """One HTTP answer. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def call(target: str, args: Sequence[Any], kwargs: Mapping[str, Any], stream: bool = False) -> Request:
    """A call of `target` ("app/function" or "namespace/app/Class.method?parameter=1") with pickled arguments.

    Made while an input is worked on, it has no more time than that has left.
    """
    accept = f"{http.FRAMES}, {http.PICKLE}" if stream else http.PICKLE
    headers = {"content-type": http.PICKLE, "accept": accept}
    left_s = remaining_s()
    until = math.inf if left_s is None else time.monotonic() + left_s
    path, name = f"/call/{target}", target.partition("?")[0]
    plain = partial(_plain, path, name, tuple(args), dict(kwargs), stream, until)
    largest = partial(_largest, name, tuple(args), dict(kwargs))
    body = _pickle(name, tuple(args), dict(kwargs))
    return Request("POST", path, headers, body, until, plain, largest=largest)


def _plain(path: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], stream: bool, until: float) -> Request:
    """A call with its arguments as plain data: no types but those of JSON, and bytes and times."""
    if args and kwargs:
        raise SwellError(
            "bad_argument",
            f"A key that may only call sends plain data: give {name} all arguments by position, or all by name.",
        )
    try:
        body = msgspec.msgpack.encode(args or kwargs)
    except (TypeError, ValueError, OverflowError) as error:
        raise SwellError(
            "cannot_pickle",
            f"An argument of {name} cannot be sent with a key that may only call, which sends plain data: {error}. "
            "Pass plain data, or use a key that may deploy the app.",
        ) from error
    headers = {"content-type": http.MSGPACK, "accept": f"{http.FRAMES}, {http.MSGPACK}" if stream else http.MSGPACK}
    return Request("POST", path, headers, body, until, largest=partial(_largest, name, args, kwargs))


def queued(request: Request, key: str, how: Queueing = IN_TURN) -> Request:
    """A call to be worked on later. `key`: by which the server knows it again, however often and in whatever form it is
    sent. It has all the time there is: nobody waits for its answer."""

    def plain() -> Request:
        assert request.plain is not None
        return queued(request.plain(), key, how)

    async def anew() -> Request:
        assert request.anew is not None
        return queued(await request.anew(), key, how)

    return replace(
        request,
        headers={**request.headers, http.ASYNC: "true", http.IDEMPOTENCY_KEY: key, **how.headers},
        until=math.inf,
        plain=plain if request.plain is not None else None,
        anew=anew if request.anew is not None else None,
    )


def grouped(
    requests: Sequence[Request], group: str, first: int, keep_s: float = 0.0, how: Queueing = IN_TURN
) -> Request:
    """Calls to one function that are put into the queue together, as those of a group, with numbers from `first` on.
    `keep_s`: how long each is kept after its end; 0: as long as usual. `how`: all of them."""
    lead = requests[0]

    def plain() -> Request:
        plains = [each.plain() for each in requests if each.plain is not None]
        assert len(plains) == len(requests), "each input has its number by its place"
        return grouped(plains, group, first, keep_s, how)

    async def anew() -> Request:
        assert lead.anew is not None
        path = (await lead.anew()).path
        moved = [replace(each, path=path, anew=None) for each in requests]
        return grouped(moved, group, first, keep_s, how)

    def largest() -> str:
        at, each = max(enumerate(requests), key=lambda numbered: len(numbered[1].body))
        which = f"Input {first + at} is the largest of them. " if len(requests) > 1 else f"It is input {first}. "
        return which + (each.largest() if each.largest is not None else "")

    headers = {
        "content-type": http.FRAMES,
        "accept": lead.headers["accept"],
        http.ITEM_TYPE: lead.headers["content-type"],
        http.ASYNC: "true",
        http.GROUP: group,
        http.FIRST: str(first),
        **how.headers,
        **({http.KEEP: f"{keep_s:g}"} if keep_s else {}),
    }
    return Request(
        "POST",
        lead.path,
        headers,
        b"".join(b"%bi%b" % ((len(each.body) + 1).to_bytes(4, "big"), each.body) for each in requests),
        plain=plain if lead.plain is not None else None,
        anew=anew if lead.anew is not None else None,
        largest=largest,
    )


def _pickle(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    with suppress(Exception):
        return pickle.dumps((args, kwargs), protocol=5)
    for argument, value in _named(args, kwargs).items():
        try:
            pickle.dumps(value, protocol=5)
        except Exception as error:
            error.__traceback__ = users(error.__traceback__)
            raise SwellError(
                "cannot_pickle",
                f"Argument {argument} of {name} ({type(value).__name__}) cannot be sent: {error}. Pass plain data, "
                "or objects of classes that the function's source can import.",
            ) from error
    # Each can be sent, and all together cannot: let Python say why.
    return pickle.dumps((args, kwargs), protocol=5)


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments, by what they are called in messages."""
    return {**{f"number {at + 1}": value for at, value in enumerate(args)}, **kwargs}


def _largest(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Which argument of a function takes the most bytes, in words; empty where there are none."""
    found = _named(args, kwargs)
    sizes = {argument: len(pickle.dumps(value, protocol=5)) for argument, value in found.items()}
    if not sizes:
        return ""
    argument = max(sizes, key=sizes.__getitem__)
    what = f"Argument {argument} of {name} ({type(found[argument]).__name__})"
    return f"{what} has {sizes[argument]} bytes" + (", the most of them." if len(sizes) > 1 else ".")


def naming(request: Request, answer: Answer) -> Answer:
    """The same answer, which names the argument that is to blame where it says that a call is too large."""
    if answer.status != 413 or request.largest is None:
        return answer
    error = error_of(answer)
    if error.code != "body_too_large":
        return answer
    with suppress(Exception):
        words = f"{error.message} {request.largest()}".rstrip()
        body = msgspec.json.encode(http.ErrorEnvelope(msgspec.structs.replace(error, message=words)))
        return replace(answer, headers={**answer.headers, "content-type": http.JSON}, body=body)
    # Objects of the user's own may not be pickled a second time.
    return answer


def frames(head: Answer, target: str) -> Frames:
    """The items a call gives, whose answer has this head. Raises what the function raised, or SwellError."""
    if not head.ok:
        raise failure(head)
    if head.content_type != http.FRAMES:
        raise SwellError("not_generator", f"{target} gives one result: use .remote() instead of .remote_gen().")
    return Frames(head)


def result(answer: Answer, target: str) -> Any:
    """The value a call returned. Raises what the function raised, or SwellError."""
    if not answer.ok:
        raise failure(answer)
    if answer.content_type in (http.SSE, http.FRAMES):
        raise SwellError("is_generator", f"{target} gives a stream of items: use .remote_gen() instead of .remote().")
    return value(answer.content_type, answer.body)


def value(content_type: str, body: bytes) -> Any:
    """One value in its type on the wire."""
    if content_type == http.PICKLE:
        return _unpickle(body)
    if content_type == http.MSGPACK:
        return msgspec.msgpack.decode(body)
    if content_type == http.OCTETS:
        return body
    return json.loads(body) if body else None


def _unpickle(body: bytes) -> Any:
    try:
        return pickle.loads(body)
    except Exception as error:
        raise SwellError(
            "cannot_unpickle",
            f"The result cannot be made here ({type(error).__name__}: {error}). Return plain data, or objects of "
            "classes that can be imported on both sides.",
        ) from error


def failure(answer: Answer) -> Exception:
    """The exception an answer stands for."""
    return exception(error_of(answer), answer.status)


def error_of(answer: Answer) -> http.ErrorBody:
    """What an answer says went wrong, also where it was not Swell that answered."""
    try:
        return msgspec.json.decode(answer.body, type=http.ErrorEnvelope).error
    except msgspec.MsgspecError:
        said = answer.body[:200].decode("utf-8", "replace").strip()
        request = answer.headers.get(http.REQUEST_ID.lower(), "")
        return http.ErrorBody("bad_answer", f"The server answered {answer.status}: {said or 'nothing more'}", request)


def forgotten(answer: Answer) -> bool:
    """Does the server not know, or not any more, what was asked for?"""
    return answer.status == 404 and error_of(answer).code == "unknown_variant"


def wait_s(answer: Answer) -> float | None:
    """Seconds after which a call that was kept out is sent again: held for too long, or by a limit for a short while.
    None for any other answer."""
    if answer.status not in (429, 503):
        return None
    code = error_of(answer).code
    told = answer.headers.get("retry-after", "")
    seconds = float(told) if told.isdecimal() else 1.0
    if code == HELD_TOO_LONG:
        return min(seconds, WAIT_MAX_S)
    return seconds if code in LIMITED and seconds <= WAIT_MAX_S else None


def failed_request(error: http.ErrorBody, status: int) -> SwellError:
    """An error body as the server's own error."""
    made = SwellError(error.code, error.message, status=status, detail=error.detail, request=error.request)
    made.problems = tuple((each.path, each.message) for each in error.problems)
    return made


def exception(error: http.ErrorBody, status: int) -> Exception:
    """An error body as the user's own exception where it carries one, else as a SwellError.

    Its cause is the traceback in the replica, its notes say where to learn more.
    """
    raised = _own_exception(error, status)
    if error.traceback:
        raised.__cause__ = RemoteTraceback(error.traceback)
    if error.detail:
        raised.add_note(error.detail.rstrip())
    if error.request:
        told = status < 500 or "`swell why " in error.message
        way = "" if told else f"; `swell why {error.request}` tells more"
        raised.add_note(f"(request {error.request}{way})")
    return raised


def _own_exception(error: http.ErrorBody, status: int) -> Exception:
    failed = failed_request(error, status)
    if not error.exception:
        return failed
    try:
        raised = pickle.loads(base64.b64decode(error.exception))
    except Exception as reason:
        failed.add_note(f"(This is its text alone: the exception itself cannot be made here: {reason})")
        return failed
    return raised if isinstance(raised, Exception) else failed


class Frames:
    """Items out of the bytes of an `application/x-swell-frames` body, whose answer has this head."""

    def __init__(self, head: Answer) -> None:
        self._item_type = head.headers.get(http.ITEM_TYPE.lower()) or http.JSON
        self._buffer = bytearray()
        self._request = head.headers.get(http.REQUEST_ID.lower(), "")
        self.ended = False

    def feed(self, data: bytes) -> Iterator[Any]:
        """The items that `data` completes. Raises the exception of an error frame."""
        buffer = self._buffer
        buffer += data
        while not self.ended and len(buffer) >= 4:
            end = 4 + int.from_bytes(buffer[:4], "big")
            if len(buffer) < end:
                return
            kind, payload = bytes(buffer[4:5]), bytes(buffer[5:end])
            del buffer[:end]
            if kind == b"i":
                yield value(self._item_type, payload)
            elif kind == b"e":
                self.ended = True
                raise failure(Answer(500, {}, payload))
            else:
                self.ended = True

    def close(self) -> None:
        """The body is over: was the stream?"""
        if not self.ended:
            words = "The stream ended before the function did; its replica may have died."
            cut = http.ErrorBody("stream_cut", words, self._request)
            raise exception(cut, 502)


class Bytes:
    """A body as it comes; an answer that is an error is raised."""

    def __init__(self, head: Answer) -> None:
        if not head.ok:
            raise failure(head)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What came, as it came."""
        yield data

    def close(self) -> None:
        """Where it ends is the connection's to say."""


class Lines:
    """Values out of the bytes of an `application/x-ndjson` body. `empty` is called at each empty line."""

    def __init__(self, kind: type[Any], empty: Callable[[], None] | None = None) -> None:
        self._decoder = msgspec.json.Decoder(kind)
        self._empty = empty
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """The values that `data` completes."""
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = bytearray(rest)
        for line in lines:
            if line.strip():
                yield self._decoder.decode(line)
            elif self._empty is not None:
                self._empty()

    def close(self) -> None:
        """The body is over. A line that has no end yet is not one."""
