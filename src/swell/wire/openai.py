"""What is said in the OpenAI API? The fields of requests, and the documents that answer them, whole and in chunks."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from swell.model.errors import SwellError
from swell.model.openai import MAIN, Api
from swell.wire.http import Problems
from swell.wire.malformed import why_not_json

DONE = b"data: [DONE]\n\n"
"""The end of a stream that came whole."""
BODY_MAX = 4 * 1024 * 1024
"""Bytes of a request's body. All of it is read before it is known which model it is for."""

_MODEL_NOT_FOUND = "model_not_found"
_CODES = {"unknown_function": _MODEL_NOT_FOUND, "bad_key": "invalid_api_key", "no_key": "invalid_api_key"}
"""Codes that clients of the API know by another name."""
_PARAMS = {_MODEL_NOT_FOUND: "model"}
_TYPES = {
    **dict.fromkeys(("no_key", "bad_key", "key_expired", "key_revoked"), "authentication_error"),
    **dict.fromkeys(("no_scope", "bad_origin", "bad_host"), "permission_error"),
    **dict.fromkeys(("rate_limited", "too_many_in_flight", "too_many_held"), "rate_limit_error"),
    **dict.fromkeys(("exception", "bad_result", "replica_died", "control_down", "no_replica"), "server_error"),
    **dict.fromkeys(("held_too_long", "stopping", "busy", "deadline"), "server_error"),
}

_OURS = frozenset({"model", "stream", "stream_options", "encoding_format"})
"""Fields that are seen to here, whether the method takes them or not."""
_HINTS = frozenset(
    {
        *("temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty", "logit_bias"),
        *("max_tokens", "max_completion_tokens", "reasoning_effort", "verbosity", "prediction", "service_tier"),
        *("user", "safety_identifier", "metadata", "store", "prompt_cache_key", "prompt_cache_options"),
        "prompt_cache_retention",
        *("parallel_tool_calls", "tool_choice", "function_call"),
    }
)
"""Fields that a method may leave out: the answer is of the same form without them."""
_NEUTRAL: dict[str, Sequence[Any]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "echo": (False,),
    "stop": ([],),
    "tools": ([],),
    "functions": ([],),
    "suffix": ("",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "dimensions": (),
    "moderation": (),
    "web_search_options": (),
}
"""Fields that ask for another answer, and what they say where they do not. A method that takes none of them cannot give
that answer, so it is refused."""


class _Named(msgspec.Struct):
    model: str | None = None


_named = msgspec.json.Decoder(_Named).decode
_fields = msgspec.json.Decoder(dict[str, Any]).decode


def error_body(
    code: str,
    message: str,
    request: str = "",
    detail: str = "",
    exception: str = "",
    traceback: str = "",
    problems: Problems = (),
) -> bytes:
    """An error as clients of the API read it."""
    del detail, exception, traceback
    said = _CODES.get(code, code)
    kind = _TYPES.get(code, "invalid_request_error")
    # Of a JSON path what is below the root: `messages[0].role`.
    place = problems[0][0].removeprefix("$").removeprefix(".") if problems else ""
    param = place or _PARAMS.get(said)
    error = {"message": message, "type": kind, "param": param, "code": said, "request": request}
    return msgspec.json.encode({"error": error})


# -- requests ---------------------------------------------------------------------------------


def model_of(body: bytes) -> str:
    """The model that a body names; empty where it names none. Raises SwellError 400 bad_body."""
    try:
        return _named(body).model or ""
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _bad_body(body, error) from None


class Asked(msgspec.Struct):
    """One request."""

    arguments: dict[str, Any]
    """What the method is given, by name."""
    stream: bool = False
    include_usage: bool = False
    base64: bool = False
    inputs: int = 0
    """How many texts are to be embedded."""


def read(api: Api, body: bytes, name: str, takes: frozenset[str] | None) -> Asked:
    """A request for a method called `name`, which `takes` these arguments (None: any). Raises SwellError 400."""
    try:
        fields = _fields(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _bad_body(body, error) from None
    main = MAIN[api]
    if fields.get(main) is None:
        raise _misfit(main, f"The body has no {main!r}")
    asked = Asked({})
    if api == "embeddings":
        fields[main] = _inputs(fields[main])
        asked.inputs = len(fields[main])
        asked.base64 = _one_of("encoding_format", fields.get("encoding_format"), ("float", "base64")) == "base64"
    else:
        asked.stream = bool(_one_of("stream", fields.get("stream"), (False, True)))
        options = fields.get("stream_options")
        asked.include_usage = isinstance(options, dict) and options.get("include_usage") is True
    for field, value in fields.items():
        if takes is None or field in takes:
            asked.arguments[field] = value
        elif not (value is None or field in _OURS or field in _HINTS or value in _NEUTRAL.get(field, ())):
            known = "" if field in _NEUTRAL else ", which is no field of the API that is known here"
            raise _misfit(field, f"This model's method, {name}, takes no argument {field!r}{known}: leave it out")
    return asked


def _inputs(given: Any) -> list[Any]:
    """What is to be embedded, always as a list: of texts, or of lists of tokens."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise _misfit("input", "'input' is a text, or a list of texts or tokens, and not empty")
    return [given] if all(isinstance(each, int) for each in given) else given


def _one_of(field: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    if value is None:
        return allowed[0]
    if value not in allowed:
        raise _misfit(field, f"{field!r} is {msgspec.json.encode(value).decode()[:80]}: it is one of {allowed}")
    return value


# -- completions ------------------------------------------------------------------------------


class Piece(msgspec.Struct):
    """One choice of an answer, or some more of one."""

    said: dict[str, Any]
    """Fields of its message."""
    finish: str | None = None
    logprobs: Any = None


class Wording:
    """How the answer to one request is worded. Pieces are told to it in order, for a stream or as a whole."""

    def __init__(self, api: Api, model: str, request: str, created: int) -> None:
        self.chat = api == "chat.completions"
        self._head = {"id": f"{'chatcmpl' if self.chat else 'cmpl'}-{request}", "created": created, "model": model}
        self._kind = "chat.completion" if self.chat else "text_completion"
        self.choices: dict[int, Piece] = {}
        """What was told so far."""
        self.usage: dict[str, Any] | None = None

    def take(self, value: Any) -> list[tuple[int, Piece]]:
        """What a method gave, as pieces with the number of the choice that each is of. Raises SwellError bad_result."""
        if isinstance(value, Mapping) or hasattr(value, "model_dump"):
            fields = dict(value) if isinstance(value, Mapping) else value.model_dump()
            self._use(fields.pop("usage", None))
            if "choices" not in fields:
                given = [(0, self._piece(fields))] if fields else []
            else:
                given = [(int(each.get("index", at)), self._choice(each)) for at, each in enumerate(fields["choices"])]
        elif isinstance(value, list | tuple):
            given = [(at, self._piece(each)) for at, each in enumerate(value)]
        else:
            given = [(0, self._piece(value))]
        for index, piece in given:
            before = self.choices.get(index)
            if before is None:
                self.choices[index] = Piece(_merged({}, piece.said), piece.finish, piece.logprobs)
                if self.chat:
                    piece.said = {"role": "assistant", **piece.said}
            else:
                _merged(before.said, piece.said)
                before.finish = piece.finish or before.finish
                before.logprobs = piece.logprobs or before.logprobs
        return given

    def whole(self) -> dict[str, Any]:
        """The answer as one document."""
        choices = []
        for index in sorted(self.choices) or (0,):
            piece = self.choices.get(index) or Piece({})
            choice: dict[str, Any] = {"index": index, "finish_reason": _finish(piece), "logprobs": piece.logprobs}
            if self.chat:
                calls = piece.said.get("tool_calls")
                if calls:
                    without = [{name: part for name, part in call.items() if name != "index"} for call in calls]
                    piece.said["tool_calls"] = without
                choice["message"] = {"role": "assistant", "content": None, "refusal": None, **piece.said}
            else:
                choice["text"] = piece.said.get("text", "")
            choices.append(choice)
        used = {} if self.usage is None else {"usage": self.usage}
        return {**self._head, "object": self._kind, "choices": choices, **used}

    def chunk(self, given: Iterable[tuple[int, Piece]]) -> dict[str, Any]:
        """Some more of it, as a part of a stream."""
        choices = []
        for index, piece in given:
            said = {"delta": piece.said} if self.chat else {"text": piece.said.get("text", "")}
            choices.append({"index": index, **said, "finish_reason": piece.finish, "logprobs": piece.logprobs})
        kind = f"{self._kind}.chunk" if self.chat else self._kind
        return {**self._head, "object": kind, "choices": choices}

    def last(self, include_usage: bool) -> Iterator[dict[str, Any]]:
        """What a stream ends with: why each choice ended, where its method did not say, and what was used."""
        left = [index for index, piece in self.choices.items() if piece.finish is None] if self.choices else [0]
        if left:
            yield self.chunk((index, Piece({}, _finish(self.choices.get(index) or Piece({})))) for index in left)
        if include_usage and self.usage is not None:
            yield {**self.chunk(()), "usage": self.usage}

    def _use(self, usage: Any) -> None:
        if usage is not None:
            counted = {"prompt_tokens": 0, "completion_tokens": 0, **usage}
            self.usage = {"total_tokens": counted["prompt_tokens"] + counted["completion_tokens"], **counted}

    def _choice(self, choice: Mapping[str, Any]) -> Piece:
        """One of a document that is worded already."""
        said = choice.get("message") or choice.get("delta") or {}
        fields = {name: value for name, value in said.items() if value is not None and name != "role"}
        if not self.chat:
            fields = {"text": choice.get("text", "")}
        return Piece(fields, choice.get("finish_reason"), choice.get("logprobs"))

    def _piece(self, value: Any) -> Piece:
        text = "content" if self.chat else "text"
        if isinstance(value, str):
            return Piece({text: value})
        if not isinstance(value, Mapping):
            raise _no_answer(
                f"a value of type {type(value).__qualname__} was given, and it is to be a text, a dict with {text!r}, "
                "or for several choices a list of them"
            )
        said = dict(value)
        finish, logprobs = said.pop("finish_reason", None), said.pop("logprobs", None)
        said.pop("role", None)
        return Piece(said, finish, logprobs)


def _finish(piece: Piece) -> str:
    return piece.finish or ("tool_calls" if piece.said.get("tool_calls") else "stop")


_ONCE = frozenset({"id", "type", "name"})
"""Texts that are not continued by a later piece."""


def _merged(before: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`before`, with what a later piece adds to it: texts go on, and parts of lists are found by their "index"."""
    for name, value in more.items():
        have = before.get(name)
        if isinstance(value, Mapping):
            before[name] = _merged(have if isinstance(have, dict) else {}, value)
        elif isinstance(value, list) and all(isinstance(each, Mapping) for each in value):
            parts = before[name] = have if isinstance(have, list) else []
            for each in value:
                known = next((p for p in parts if "index" in each and p.get("index") == each["index"]), None)
                if known is None:
                    parts.append(_merged({}, each))
                else:
                    _merged(known, each)
        elif isinstance(value, str) and isinstance(have, str) and name not in _ONCE:
            before[name] = have + value
        elif value is not None or have is None:
            before[name] = value
    return before


# -- embeddings -------------------------------------------------------------------------------


def embeddings(model: str, value: Any, asked: Asked) -> dict[str, Any]:
    """The answer with these vectors: rows of numbers, or a dict with "embeddings" and "usage". Raises SwellError."""
    usage: Any = {}
    if isinstance(value, Mapping) and "embeddings" in value:
        value, usage = value["embeddings"], value.get("usage") or {}
    try:
        rows = [_vector(row, asked.base64) for row in value]
    except (TypeError, ValueError, ArithmeticError) as error:
        kind = type(value).__qualname__
        raise _no_answer(f"a value of type {kind} was given, and it is to be a list of vectors ({error})") from None
    if len(rows) != asked.inputs:
        raise _no_answer(f"{len(rows)} vectors were given for {asked.inputs} inputs")
    # Of a batch: a number for each input.
    usage = {name: sum(said) if isinstance(said, list) else said for name, said in usage.items()}
    tokens = usage.get("prompt_tokens", 0)
    data = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(rows)]
    used = {"prompt_tokens": tokens, "total_tokens": tokens, **usage}
    return {"object": "list", "data": data, "model": model, "usage": used}


def _vector(row: Any, packed: bool) -> Any:
    """A row of numbers as JSON has it, or as the bytes of its 32-bit floats, the lowest first, in base64."""
    if hasattr(row, "tolist"):
        row = row.tolist()
    numbers = array("f" if packed else "d", row)
    if not packed:
        return numbers.tolist()
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()


def _no_answer(said: str) -> SwellError:
    return SwellError("bad_result", said, status=500)


def _bad_body(body: bytes, error: Exception) -> SwellError:
    return SwellError("bad_body", f"The body is no request of the OpenAI API: {why_not_json(body, error)}.")


def _misfit(field: str, said: str) -> SwellError:
    error = SwellError("bad_arguments", f"{said}.", status=400)
    error.problems = ((f"$.{field}", said),)
    return error
