"""Web endpoints of every kind, in an environment without FastAPI and, where there is one, with it."""

import asyncio
import importlib.util
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import swell

bare = swell.Image.debian_slim().uv_pip_install("six")
app = swell.App("pages")

Message = dict[str, Any]


@app.function(image=bare)
@swell.fastapi_endpoint(label="square")
def square(x: int, times: int = 1) -> dict[str, Any]:
    return {"x": x, "square": x * x * times, "fastapi": importlib.util.find_spec("fastapi") is not None}


@app.function(image=bare)
@swell.fastapi_endpoint(method="POST", label="total")
def total(values: list[float], name: str = "sum") -> dict[str, float]:
    return {name: sum(values)}


@app.function(image=bare)
@swell.fastapi_endpoint(label="ticks")
def ticks(to: int) -> Iterator[int]:
    for number in range(to):
        yield number
        time.sleep(0.05)


@app.cls(image=bare)
class Shelf:
    @swell.enter()
    def fill(self) -> None:
        self.books = {"1": "Emma"}

    @swell.fastapi_endpoint(label="book")
    def book(self, number: str) -> dict[str, Any]:
        return {"title": self.books.get(number), "pid": os.getpid()}

    @swell.fastapi_endpoint(method="POST", label="add-book")
    def add(self, number: str, title: str) -> int:
        self.books[number] = title
        return os.getpid()


@app.function()
@swell.fastapi_endpoint(label="square-with-fastapi")
def square_with_fastapi(x: int) -> dict[str, Any]:
    return {"square": x * x, "fastapi": importlib.util.find_spec("fastapi") is not None}


@app.function()
@swell.fastapi_endpoint(label="locked", requires_proxy_auth=True)
def locked() -> str:
    return "inside"


@app.function()
@swell.concurrent(max_inputs=2)
@swell.asgi_app(label="halting")
def halting() -> Callable[..., Awaitable[None]]:
    """Two lines; the second one once somebody has asked for /go-on."""
    gate = asyncio.Event()

    async def site(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[..., Any]) -> None:
        if scope["type"] != "http":
            return
        headers = [(b"content-type", b"text/plain"), (b"x-root", scope.get("root_path", "").encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"before\n", "more_body": True})
        if scope["path"].endswith("/go-on"):
            gate.set()
        await gate.wait()
        await send({"type": "http.response.body", "body": b"after\n"})

    return site


@app.function()
@swell.asgi_app(label="summed")
def summed() -> Callable[..., Awaitable[None]]:
    """Says behind its body how many bytes came."""

    async def site(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[..., Any]) -> None:
        if scope["type"] != "http":
            return
        message, size = await receive(), 0
        while message["more_body"]:
            size += len(message["body"])
            message = await receive()
        headers = [(b"trailer", b"x-size")]
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
        await send({"type": "http.response.body", "body": b"taken"})
        trailers = [(b"x-size", str(size + len(message["body"])).encode())]
        await send({"type": "http.response.trailers", "headers": trailers})

    return site


@app.function()
@swell.concurrent(max_inputs=4)
@swell.wsgi_app(label="flask-site")
def flask_site():  # type: ignore[no-untyped-def]
    from flask import Flask, request

    site = Flask(__name__)

    @site.route("/echo", methods=["POST"])
    def echo() -> bytes:
        return request.get_data() + f" at {request.script_root}{request.path}".encode()

    @site.route("/lines")
    def lines() -> Iterator[str]:
        return (f"{number}\n" for number in range(3))

    return site


@app.function(timeout=2)
@swell.concurrent(max_inputs=10)
@swell.asgi_app(label="raw")
def raw() -> Callable[..., Awaitable[None]]:
    async def site(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[..., Any]) -> None:
        if scope["type"] != "http":
            return
        headers = [(b"content-type", b"text/plain"), (b"x-root", scope.get("root_path", "").encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        lines = float(scope["query_string"] or b"inf")
        number = 0
        while number < lines:
            number += 1
            await send({"type": "http.response.body", "body": f"{number}\n".encode(), "more_body": True})
            await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b""})

    return site
