"""Are requests of the OpenAI API read as they were meant, and is a stream, put together, what the whole answer says?"""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.model.errors import SwellError
from swell.wire import openai
from swell.wire.openai import Asked, Wording, embeddings, read

TEXTS = st.text(max_size=8)
PIECES = st.one_of(
    TEXTS,
    st.fixed_dictionaries({"content": TEXTS}),
    st.builds(lambda text: {"reasoning_content": text}, TEXTS),
    st.builds(
        lambda index, text: {"tool_calls": [{"index": index, "function": {"arguments": text}}]},
        st.integers(0, 2),
        TEXTS,
    ),
    st.builds(lambda texts: [{"content": text} for text in texts], st.lists(TEXTS, min_size=1, max_size=3)),
)


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


@given(st.lists(PIECES, max_size=8))
def test_a_stream_put_together_is_the_whole_answer(pieces: list[Any]) -> None:
    streamed, whole = (Wording("chat.completions", "m", "r1", 5) for _ in range(2))
    chunks = [streamed.chunk(streamed.take(piece)) for piece in pieces] + [*streamed.last(include_usage=True)]
    for piece in pieces:
        whole.take(piece)
    document = whole.whole()
    assert {(chunk["id"], chunk["object"]) for chunk in chunks} == {("chatcmpl-r1", "chat.completion.chunk")}
    for choice in document["choices"]:
        mine = [each for chunk in chunks for each in chunk["choices"] if each["index"] == choice["index"]]
        for name in ("content", "reasoning_content"):
            said = "".join(each["delta"].get(name) or "" for each in mine)
            assert said == (choice["message"].get(name) or "")
        calls: dict[int, str] = {}
        for each in mine:
            for call in each["delta"].get("tool_calls", ()):
                calls[call["index"]] = calls.get(call["index"], "") + call["function"]["arguments"]
        told = [call["function"]["arguments"] for call in choice["message"].get("tool_calls", ())]
        assert told == [*calls.values()]
        assert [each["finish_reason"] for each in mine if each["finish_reason"]] == [choice["finish_reason"]]
    assert "".join(
        chunk["choices"][0]["delta"].get("role", "") for chunk in chunks[:1] if pieces and chunk["choices"]
    ) in (
        "",
        "assistant",
    )


def test_what_another_server_said_is_passed_on() -> None:
    """A method may hand on the chunks or the answer of a client of its own."""
    wording = Wording("chat.completions", "mine", "r", 1)
    for delta, finish in (({"role": "assistant", "content": "a"}, None), ({"content": "b"}, "length")):
        wording.take({"id": "theirs", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
    wording.take({"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 3}})
    document = wording.whole()
    assert (document["model"], document["usage"]["total_tokens"]) == ("mine", 5)
    assert document["choices"][0]["message"]["content"] == "ab"
    assert document["choices"][0]["finish_reason"] == "length"
    again = Wording("chat.completions", "mine", "r", 1)
    again.take(document)
    assert again.whole() == document


@pytest.mark.parametrize(
    ("api", "sent", "takes", "given"),
    [
        ("chat.completions", {"messages": [], "temperature": 1}, {"messages"}, {"messages": []}),
        ("chat.completions", {"messages": [], "top_p": 1}, {"messages", "top_p"}, {"messages": [], "top_p": 1}),
        ("chat.completions", {"messages": [], "tools": None, "n": 1}, {"messages"}, {"messages": []}),
        ("completions", {"prompt": "a", "stream": True}, {"prompt", "stream"}, {"prompt": "a", "stream": True}),
        ("completions", {"prompt": "a", "own": 1}, None, {"prompt": "a", "own": 1}),
        ("embeddings", {"input": "a"}, {"input"}, {"input": ["a"]}),
        ("embeddings", {"input": [1, 2]}, {"input"}, {"input": [[1, 2]]}),
        ("embeddings", {"input": ["a", "b"]}, {"input"}, {"input": ["a", "b"]}),
    ],
)
def test_fields_become_arguments(api: Any, sent: Any, takes: set[str] | None, given: Any) -> None:
    assert read(api, body(**sent), "f", None if takes is None else frozenset(takes)).arguments == given


@pytest.mark.parametrize(
    ("api", "sent", "words", "param"),
    [
        ("chat.completions", {}, "no 'messages'", "messages"),
        ("embeddings", {"input": []}, "not empty", "input"),
        ("embeddings", {"input": "a", "encoding_format": "hex"}, "base64", "encoding_format"),
        ("completions", {"prompt": "a", "stream": 2}, "'stream'", "stream"),
        ("completions", {"prompt": "a", "best_of": 3}, "'best_of'", "best_of"),
        ("completions", {"prompt": "a", "promt": 3}, "no field of the API", "promt"),
        ("embeddings", {"input": "a", "dimensions": 3}, "no argument 'dimensions': leave it out", "dimensions"),
        ("chat.completions", {"messages": [{}], "audio": {}}, "no argument 'audio': leave it out", "audio"),
        ("chat.completions", {"messages": [], "tools": [{}]}, "no argument 'tools': leave it out", "tools"),
    ],
)
def test_what_cannot_be_answered_is_refused(api: Any, sent: Any, words: str, param: str) -> None:
    with pytest.raises(SwellError, match=words) as raised:
        read(api, body(**sent), "f", frozenset({"messages", "prompt", "input"}))
    assert (raised.value.code, raised.value.status) == ("bad_arguments", 400)
    assert said_of(raised.value)["param"] == param


def test_a_body_that_is_an_object_is_not_said_to_be_none() -> None:
    with pytest.raises(SwellError, match=r"no request of the OpenAI API: .*\$\.model"):
        openai.model_of(b'{"model": 7}')


@given(st.binary(max_size=60))
def test_no_body_is_more_than_refused(junk: bytes) -> None:
    codes: set[str] = set()
    for attempt in (lambda: openai.model_of(junk), lambda: read("embeddings", junk, "f", None)):
        try:
            attempt()
        except SwellError as error:
            codes.add(error.code)
    assert codes <= {"bad_body", "bad_arguments"}


VECTORS = st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=4), max_size=4)


@given(VECTORS)
def test_vectors_are_the_same_packed_or_not(rows: list[list[float]]) -> None:
    plain = embeddings("m", rows, Asked({}, inputs=len(rows)))
    packed = embeddings("m", {"embeddings": rows}, Asked({}, inputs=len(rows), base64=True))
    assert [each["embedding"] for each in plain["data"]] == rows
    raw = [base64.b64decode(each["embedding"]) for each in packed["data"]]
    assert [[*struct.unpack(f"<{len(each) // 4}f", each)] for each in raw] == rows


@pytest.mark.parametrize("value", [None, 3, "ab", [["a"]], [1.0, 2.0], [{}, 1], [[1.0]]])
def test_what_is_no_list_of_vectors_is_told(value: Any) -> None:
    with pytest.raises(SwellError, match="vectors") as raised:
        embeddings("m", value, Asked({}, inputs=2))
    assert raised.value.code == "bad_result"


@pytest.mark.parametrize(
    ("place", "param"),
    [("$.temperature", "temperature"), ("$.messages[0].role", "messages[0].role"), ("$", None)],
)
def test_where_an_argument_does_not_fit_is_told_as_the_api_does(place: str, param: str | None) -> None:
    error = SwellError("bad_arguments", "no")
    error.problems = ((place, "no"), ("$.other", "neither"))
    assert said_of(error)["param"] == param


def said_of(error: SwellError) -> Any:
    return json.loads(openai.error_body(error.code, error.message, problems=error.problems))["error"]


def test_errors_say_what_clients_look_at() -> None:
    said = json.loads(openai.error_body("unknown_function", "no", "r1"))["error"]
    assert said == {
        "message": "no",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
        "request": "r1",
    }
    assert json.loads(openai.error_body("rate_limited", "slow"))["error"]["type"] == "rate_limit_error"
