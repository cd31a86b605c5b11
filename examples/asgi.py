"""Any ASGI app, here one by hand: it answers at once, echoes, and streams.

`swell deploy examples/asgi.py`, then `curl -N http://127.0.0.1:8470/web/asgi-site/lines/3`.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import swell

app = swell.App("asgi")

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def site(scope: Message, receive: Receive, send: Send) -> None:
    """`/` says what there is, `/echo` sends the body back, `/lines/{n}` streams n lines."""
    if scope["type"] != "http":
        return
    path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
    if path == "/":
        await answer(send, 200, json.dumps({"paths": ["/", "/echo", "/lines/{n}"]}).encode())
    elif path == "/echo":
        await answer(send, 200, await body(receive))
    elif path.startswith("/lines/") and path[7:].isdigit():
        await lines(send, int(path[7:]))
    else:
        await answer(send, 404, json.dumps({"error": f"nothing at {path}"}).encode())


async def body(receive: Receive) -> bytes:
    """The whole request body."""
    whole, more = b"", True
    while more:
        message = await receive()
        whole += message.get("body", b"")
        more = message.get("more_body", False)
    return whole


async def answer(send: Send, status: int, content: bytes) -> None:
    """One answer of known length."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def lines(send: Send, count: int) -> None:
    """An answer that is sent while it is made."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for number in range(1, count + 1):
        await send({"type": "http.response.body", "body": f"line {number}\n".encode(), "more_body": True})
        await asyncio.sleep(0.05)
    await send({"type": "http.response.body", "body": b""})


@app.function()
@swell.concurrent(max_inputs=50)
@swell.asgi_app(label="asgi-site")
def web() -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """Called once in each replica; what it returns serves the requests."""
    return site
