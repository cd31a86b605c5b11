"""Functions that go wrong in every way a function can."""

import time

import swell

app = swell.App("moody")


@app.function()
def add(a: int, b: int = 1) -> int:
    return a + b


@app.function()
def fail(secret: str) -> None:
    print("before it fails")
    raise ValueError(f"{len(secret)} characters were too many")


@app.function()
def fail_midway(to: int):  # type: ignore[no-untyped-def]
    yield from range(to)
    raise RuntimeError("no further")


@app.function()
def lock() -> object:
    return time.sleep


@app.function()
def size(body: bytes) -> int:
    return len(body)


@app.cls(startup_timeout=2)
class Slow:
    @swell.enter()
    def load(self) -> None:
        time.sleep(60)

    @swell.method()
    def answer(self) -> int:
        return 42


@app.cls()
class Broken:
    @swell.enter()
    def load(self) -> None:
        raise FileNotFoundError("the model is not on this disk")

    @swell.method()
    def answer(self) -> int:
        return 42
