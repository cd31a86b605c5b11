"""Models of the OpenAI API, in each way that one is declared and answers."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import swell

app = swell.App("chat")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@app.function()
@swell.openai("chat.completions", model="echo")
def echo(messages: list[dict[str, Any]], temperature: float = 1.0) -> str:
    return f"{messages[-1]['content']} at {temperature:g}"


@app.cls()
@swell.concurrent(max_inputs=8)
class Talker:
    @swell.enter()
    def load(self) -> None:
        self.words = ["one ", "two ", "three"]

    @swell.method()
    @swell.openai("chat.completions", model="org/talker")
    def chat(self, messages: list[dict[str, Any]], max_tokens: int = 3) -> Iterator[Any]:
        yield from self.words[:max_tokens]
        yield {
            "finish_reason": "stop" if max_tokens > 2 else "length",
            "usage": {"prompt_tokens": 5, "completion_tokens": 3},
        }

    @swell.method()
    @swell.openai("completions", model="org/talker")
    async def complete(self, prompt: str) -> AsyncIterator[str]:
        for word in prompt.split():
            await asyncio.sleep(0)
            yield word[::-1] + " "

    @swell.method()
    @swell.openai("embeddings", model="org/talker")
    async def embed(self, input: list[str]) -> np.ndarray:
        return np.array([[text.lower().count(letter) for letter in LETTERS] for text in input], np.float32) / 3


@app.function()
@swell.openai("chat.completions", model="caller")
def caller(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None) -> Iterator[dict[str, Any]]:
    assert tools is not None
    name = tools[0]["function"]["name"]
    for index in range(2):
        start = {"name": name, "arguments": ""}
        yield {"tool_calls": [{"index": index, "id": f"call_{index}", "type": "function", "function": start}]}
        for part in ('{"x":', f"{index}}}"):
            yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}


@app.function()
@swell.openai("chat.completions", model="any")
def anything(**fields: Any) -> list[str]:
    return [f"{number}: {' '.join(sorted(fields))}" for number in range(fields.get("n", 1))]


@app.function()
@swell.openai("chat.completions", model="faulty")
def faulty(messages: list[dict[str, Any]]) -> Any:
    what = messages[-1]["content"]
    if what == "number":
        return 5
    if what == "raise":
        raise ValueError("not today")
    return _breaks(what)


def _breaks(what: str) -> Iterator[Any]:
    yield "so far "
    if what == "late":
        raise ValueError("in the middle")
    yield 5


@app.function(timeout=60)
@swell.openai("chat.completions", model="endless")
def endless(messages: list[dict[str, Any]]) -> Iterator[str]:
    """Leaves a note at the path that it is told, when it is stopped."""
    try:
        while True:
            yield "on "
            time.sleep(0.02)
    finally:
        Path(messages[-1]["content"]).write_text("stopped")


@app.function()
@swell.openai("embeddings", model="lists")
def lists(input: list[Any], dimensions: int = 2) -> dict[str, Any]:
    rows = [[float(len(each))] * dimensions for each in input]
    return {"embeddings": rows, "usage": {"prompt_tokens": len(input)}}


@app.function()
@swell.openai("embeddings", model="short")
def short(input: list[str]) -> list[list[float]]:
    return [[1.0]]
