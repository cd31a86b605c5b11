"""Do methods with @swell.openai answer the client of the OpenAI API, which is not ours?"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest

from journey.callers import APPS, ask, command, why
from private_swell import PrivateSwell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TOOLS: Any = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


def said(text: str) -> Any:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


@pytest.fixture(scope="module")
def deployed(own_swell: PrivateSwell) -> PrivateSwell:
    own_swell.run("deploy", str(APPS / "chat.py"))
    return own_swell


def client_of(swell: PrivateSwell, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://127.0.0.1:{swell.port}/v1", api_key=key, max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def client(deployed: PrivateSwell) -> Iterator[openai.OpenAI]:
    with client_of(deployed) as client:
        yield client


def test_models_are_listed(deployed: PrivateSwell, client: openai.OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert {"echo", "org/talker", "lists"} <= models.keys()
    assert (models["echo"].object, models["echo"].owned_by) == ("model", "chat")
    assert client.models.retrieve("org/talker").id == "org/talker"
    assert ask(deployed, "GET", "/v1/models/org/talker").value["id"] == "org/talker"
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("ecko")
    assert (raised.value.code, "Did you mean echo" in raised.value.message) == ("model_not_found", True)


@pytest.mark.shows("openai", "api", "model")
def test_a_model_at_zero_answers(deployed: PrivateSwell, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="echo", messages=said("hi"), temperature=0.5, seed=3, max_tokens=9)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "hi at 0.5", "stop")
    assert (answer.object, answer.model, answer.usage) == ("chat.completion", "echo", None)
    assert abs(answer.created - time.time()) < 300
    told = why(deployed, answer.id.removeprefix("chatcmpl-"))
    assert "V1 echo" in json.dumps(told)


def test_a_stream_comes_in_chunks(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="org/talker", messages=said("count"), stream=True, stream_options={"include_usage": True}
    )
    chunks = [*stream]
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content] == [
        *("one ", "two ", "three")
    ]
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 8


def test_a_generator_answers_whole_and_a_text_as_a_stream(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="org/talker", messages=said("count"), max_tokens=2)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("one two ", "length")
    assert whole.usage is not None
    assert whole.usage.total_tokens == 8
    chunks = [*client.chat.completions.create(model="echo", messages=said("hi"), stream=True)]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "hi at 1"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_tools_are_called(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="caller", messages=said("go"), tools=TOOLS).choices[0]
    assert whole.finish_reason == "tool_calls"
    assert whole.message.content is None
    calls: list[Any] = [*(whole.message.tool_calls or ())]
    assert [(each.id, each.function.name, each.function.arguments) for each in calls] == [
        ("call_0", "look", '{"x":0}'),
        ("call_1", "look", '{"x":1}'),
    ]
    with client.chat.completions.stream(model="caller", messages=said("go"), tools=TOOLS) as stream:
        final: Any = stream.get_final_completion().choices[0]
    assert [each.function.arguments for each in final.message.tool_calls] == ['{"x":0}', '{"x":1}']


def test_completions(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="org/talker", prompt="abc de")
    assert (whole.object, whole.choices[0].text, whole.choices[0].finish_reason) == (
        "text_completion",
        "cba ed ",
        "stop",
    )
    chunks = [*client.completions.create(model="org/talker", prompt="abc de", stream=True)]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "cba ed "
    with pytest.raises(openai.BadRequestError, match="prompt"):
        client.completions.create(model="org/talker", prompt=["a", "b"])


@pytest.mark.parametrize("coding", [None, "float", "base64"])
def test_embeddings(client: openai.OpenAI, coding: Any) -> None:
    """The client asks for base64 by itself where nothing is said, and unpacks it then."""
    more: Any = {} if coding is None else {"encoding_format": coding}
    answer = client.embeddings.create(model="org/talker", input=["aab", "b"], **more)
    rows: Any = [each.embedding for each in answer.data]
    if coding == "base64":
        assert all(isinstance(row, str) for row in rows)
        return
    assert [row[:2] for row in rows] == [[pytest.approx(2 / 3), pytest.approx(1 / 3)], [0, pytest.approx(1 / 3)]]
    assert [each.index for each in answer.data] == [0, 1]


def test_embeddings_of_a_text_of_tokens_and_with_usage(client: openai.OpenAI) -> None:
    one = client.embeddings.create(model="lists", input="four", dimensions=3)
    assert (one.data[0].embedding, one.usage.prompt_tokens, one.usage.total_tokens) == ([4, 4, 4], 1, 1)
    assert [e.embedding for e in client.embeddings.create(model="lists", input=[1, 2, 3]).data] == [[3, 3]]
    assert [e.embedding for e in client.embeddings.create(model="lists", input=[[1], [2, 3]]).data] == [[1, 1], [2, 2]]
    with pytest.raises(openai.BadRequestError, match="input"):
        client.embeddings.create(model="org/talker", input=[[1], [2]])
    with pytest.raises(openai.InternalServerError, match="1 vectors were given for 2 inputs"):
        client.embeddings.create(model="short", input=["a", "b"])


def test_fields_are_passed_left_out_or_refused(client: openai.OpenAI) -> None:
    many = client.chat.completions.create(model="any", messages=said("x"), n=2, extra_body={"own": 1})
    assert [choice.message.content for choice in many.choices] == [f"{at}: messages model n own" for at in range(2)]
    for field in ({"n": 2}, {"tools": TOOLS}, {"stop": "x"}, {"response_format": {"type": "json_object"}}):
        more: Any = field
        with pytest.raises(openai.BadRequestError, match=f"takes no argument '{next(iter(field))}'") as raised:
            client.chat.completions.create(model="echo", messages=said("x"), **more)
        assert raised.value.param == next(iter(field))
    with pytest.raises(openai.BadRequestError, match="'own', which is no field"):
        client.chat.completions.create(model="echo", messages=said("x"), extra_body={"own": 1})
    client.chat.completions.create(model="echo", messages=said("x"), n=1, response_format={"type": "text"})
    with pytest.raises(openai.BadRequestError, match="temperature") as raised:
        client.chat.completions.create(model="echo", messages=said("x"), extra_body={"temperature": "hot"})
    assert raised.value.param == "temperature"


def test_errors_are_the_clients_exceptions(deployed: PrivateSwell, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-9", messages=said("x"))
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert missing.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError, match="/v1/embeddings"):
        client.chat.completions.create(model="lists", messages=said("x"))
    with pytest.raises(openai.InternalServerError, match="ValueError: not today") as raised:
        client.chat.completions.create(model="faulty", messages=said("raise"))
    assert (raised.value.code, raised.value.type) == ("exception", "server_error")
    with pytest.raises(openai.InternalServerError, match="a value of type int was given"):
        client.chat.completions.create(model="faulty", messages=said("number"))
    was = _made(deployed, "was", "call:*/*")
    deployed.run("key", "revoke", "was")
    with client_of(deployed, was) as other, pytest.raises(openai.AuthenticationError) as refused:
        other.chat.completions.create(model="echo", messages=said("x"))
    assert (refused.value.code, refused.value.type) == ("key_revoked", "authentication_error")
    for body, code in (
        (b"no json", "bad_body"),
        (b"[1]", "bad_body"),
        (b"{}", "bad_arguments"),
        (b'{"model": 5}', "bad_body"),
        (b'{"model": "echo"}', "bad_arguments"),
        (b'{"model": "echo", "messages": [], "stream": "yes"}', "bad_arguments"),
    ):
        answer = ask(deployed, "POST", "/v1/chat/completions", body)
        assert (answer.status, answer.error["code"]) == (400, code), body
    for method, path, status, word in (
        ("GET", "/v1/chat/completions", 405, "POST"),
        ("POST", "/v1/models", 405, "GET"),
        ("POST", "/v1/images", 404, "/v1/chat/completions"),
    ):
        answer = ask(deployed, method, path, b"{}" if method == "POST" else None)
        assert (answer.status, word in answer.error["message"]) == (status, True)
        assert answer.error["type"] == "invalid_request_error"


def _made(swell: PrivateSwell, name: str, scope: str) -> str:
    return swell.run("key", "create", name, "--scope", scope).strip()


@pytest.mark.parametrize("what", ["late", "wrong"])
def test_a_stream_that_breaks_is_an_error(client: openai.OpenAI, what: str) -> None:
    stream = client.chat.completions.create(model="faulty", messages=said(what), stream=True)
    assert next(stream).choices[0].delta.content == "so far "
    with pytest.raises(openai.APIError) as raised:
        next(stream)
    assert ("in the middle" if what == "late" else "a value of type int was given") in raised.value.message
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="faulty", messages=said(what))


def test_who_leaves_a_stream_stops_the_work(client: openai.OpenAI, tmp_path: Path) -> None:
    note = tmp_path / "note"
    stream = client.chat.completions.create(model="endless", messages=said(str(note)), stream=True)
    assert next(iter(stream)).choices[0].delta.content == "on "
    assert not note.exists()
    stream.close()
    until = time.monotonic() + 60
    while not note.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert note.read_text() == "stopped"


def test_the_asynchronous_client_is_served(deployed: PrivateSwell) -> None:
    async def all_at_once() -> list[str]:
        url = f"http://127.0.0.1:{deployed.port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=120) as client:

            async def one(number: int) -> str:
                stream = await client.chat.completions.create(
                    model="org/talker", messages=said(str(number)), stream=True, max_tokens=3
                )
                return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

            return await asyncio.gather(*map(one, range(16)))

    assert asyncio.run(all_at_once()) == ["one two three"] * 16


def test_a_long_body_is_read_before_its_model_is_known(deployed: PrivateSwell, client: openai.OpenAI) -> None:
    long = "x" * 3_000_000
    whole = client.chat.completions.create(model="echo", messages=said(long))
    assert whole.choices[0].message.content == f"{long} at 1"
    with pytest.raises(openai.APIStatusError) as raised:
        client.chat.completions.create(model="echo", messages=said("x" * 5_000_000))
    assert (raised.value.status_code, raised.value.code) == (413, "body_too_large")
    # The model is named at the end, and in chunks whose length nobody said.
    body = b'{"messages": [{"content": "%b"}], "model": "echo"}'
    connection = http.client.HTTPConnection("127.0.0.1", deployed.port, timeout=120)
    with closing(connection):
        connection.request("POST", "/v1/chat/completions", iter([body[:9], body[9:] % b"hi"]), encode_chunked=True)
        answer = json.loads(connection.getresponse().read())
    assert answer["choices"][0]["message"]["content"] == "hi at 1"


def test_a_key_sees_and_calls_what_it_may(deployed: PrivateSwell) -> None:
    with client_of(deployed, _made(deployed, "other", "call:default/other")) as client:
        assert [*client.models.list()] == []
        with pytest.raises(openai.PermissionDeniedError) as raised:
            client.chat.completions.create(model="echo", messages=said("x"))
        assert raised.value.code == "no_scope"


def test_two_apps_cannot_have_one_name(deployed: PrivateSwell, tmp_path: Path) -> None:
    source = (APPS / "chat.py").read_text().replace('App("chat")', 'App("twin")')
    (tmp_path / "twin.py").write_text(source)
    refused = command(deployed, "deploy", str(tmp_path / "twin.py"))
    assert (refused.code, "belongs to app 'chat'" in refused.err) == (1, True)
