"""WebSockets: an application of a framework, and a process of another library that listens by itself."""

import os
import subprocess
import sys

import swell

app = swell.App("sockets")

SERVER = """
import asyncio, os
from websockets.asyncio.server import serve

async def talk(socket):
    await socket.send(str(os.getpid()))
    async for message in socket:
        await socket.send(message)

async def main():
    async with serve(talk, "127.0.0.1", {port}, max_size=None):
        await asyncio.Future()

asyncio.run(main())
"""


@app.function(scaledown_window=2)
@swell.concurrent(max_inputs=150)
@swell.asgi_app(label="talk")
def talk():
    from fastapi import FastAPI, WebSocket, WebSocketDisconnect

    site = FastAPI()

    @site.websocket("/echo")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json({"pid": os.getpid()})
        try:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(message["code"])
                await socket.send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})
        except WebSocketDisconnect as gone:
            print("gone", gone.code)

    @site.get("/")
    async def page() -> str:
        return "a page"

    return site


@app.function(timeout=3)
@swell.concurrent(max_inputs=5)
@swell.asgi_app(label="short")
def short():
    return talk.local()


@app.function(scaledown_window=2)
@swell.concurrent(max_inputs=50)
@swell.web_server(port=18765, startup_timeout=60, label="process")
def process() -> None:
    subprocess.Popen([sys.executable, "-c", SERVER.format(port=18765)])
