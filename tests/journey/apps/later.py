"""Functions that are called for later."""

from __future__ import annotations

import asyncio
import os
import time
from fractions import Fraction
from pathlib import Path

import swell

app = swell.App("later")


@app.function()
def add(a: int, b: int = 1) -> int:
    return a + b


@app.function()
def halved(number: Fraction) -> Fraction:
    return number / 2


@app.function()
def raises(number: int) -> None:
    raise LookupError(number)


@app.function(retries=swell.Retries(max_retries=2, initial_delay=0.0))
def at_third(log: str) -> int:
    """Fails twice. Each try writes a line."""
    with Path(log).open("a") as file:
        print(swell.current_function_call_id(), file=file)
    tries = len(Path(log).read_text().splitlines())
    if tries < 3:
        raise LookupError(tries)
    return tries


@app.function(retries=swell.Retries(max_retries=1, initial_delay=0.0))
@swell.concurrent(max_inputs=4)
def among(name: str) -> str:
    """One of them ends the process that they are in."""
    time.sleep(0.5 if name != "poison" else 0.2)
    if name == "poison":
        os._exit(3)
    return name


@app.function()
def zeros(size: int) -> bytes:
    return bytes(size)


@app.function()
def teapot(name: str) -> str:
    request = swell.current_request()
    assert request is not None
    request.set_status(418)
    request.set_header("X-Mine", name)
    return name


@app.function()
def who() -> tuple[str | None, str | None]:
    return swell.current_function_call_id(), swell.current_input_id()


@app.function()
@swell.concurrent(max_inputs=4)
def chain(number: int) -> swell.FunctionCall:
    """What it is given back is of a call that it made itself, and waited for."""
    call = add.spawn(number, b=10)
    assert call.get(timeout=120) == number + 10
    return call


@app.function(timeout=600)
async def forever(mark: str) -> None:
    """There is a file while it runs."""
    with open(mark, "w") as file:  # noqa: ASYNC230 (a line)
        file.write(str(os.getpid()))
    try:
        await asyncio.sleep(600)
    finally:
        os.unlink(mark)


@app.function(timeout=3, timeout_max=600)
def told(gate: str) -> int:
    """Goes on until there is a file."""
    step = 0
    while not os.path.exists(gate):
        step += 1
        swell.progress(step, 10**6, f"step {step}\0")
        time.sleep(0.02)
    return step


@app.function(timeout=2, timeout_max=4)
def never_done() -> None:
    while True:
        swell.progress(message="and on")
        time.sleep(0.02)


@app.function()
def numbers(to: int = 3):  # type: ignore[no-untyped-def]
    yield from range(to)


@app.cls()
class Scaler:
    factor: int = swell.parameter(default=2)

    @swell.method()
    def times(self, x: int) -> int:
        return self.factor * x


@app.function()
@swell.asgi_app()
def page():  # type: ignore[no-untyped-def]
    async def application(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    return application
