"""Functions whose answers are kept: each says how often it has run."""

import time
from typing import Any

import swell

app = swell.App("kept")
runs = 0


@app.function()
@swell.cached(ttl_s=600, vary=["X-Tone"])
def counted(x: int = 0) -> list[int]:
    global runs
    runs += 1
    return [x, runs]


@app.function()
@swell.cached(ttl_s=0.001)
def fleeting() -> float:
    return time.time()


@app.function()
@swell.concurrent(max_inputs=20)
@swell.cached(ttl_s=600)
async def slow(x: int = 0) -> float:
    import asyncio

    await asyncio.sleep(1.0)
    return time.time()


@app.cls()
class Model:
    @swell.method()
    @swell.cached(ttl_s=600)
    @swell.openai("chat.completions", model="kept")
    def chat(self, messages: list[dict[str, Any]]):
        yield from ("at ", str(time.time()))
