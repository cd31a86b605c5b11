"""A program as one writes it for Modal; only the import is another. Entry points print what came of it as JSON."""

import asyncio
import json
import os
import tempfile
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import swell as modal

app = modal.App("plain")
image = modal.Image.debian_slim().uv_pip_install("humanize==4.9.0").env({"GREETING": "hello"})

with image.imports():
    import humanize


class TooOdd(Exception):
    """Of the user's own making."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@app.function()
def square(x: int) -> int:
    return x * x


@app.function()
def power(x: int, exponent: int = 2) -> int:
    return x**exponent


@app.function()
def even(x: int) -> int:
    if x % 2:
        raise TooOdd(x)
    return x


@app.function()
def sum_of_squares(to: int) -> int:
    """Calls another function from inside a replica, one by one and side by side."""
    return square.remote(to) + sum(square.map(range(to)))


@app.function()
def count(to: int) -> Iterator[dict[str, int]]:
    for number in range(to):
        yield {"n": number}


@app.function()
async def count_async(to: int) -> AsyncIterator[int]:
    for number in range(to):
        yield number
        await asyncio.sleep(0)


@app.function(retries=modal.Retries(max_retries=2, initial_delay=0.1, backoff_coefficient=1.0))
def flaky(file: str, failures: int) -> int:
    """Fails this often, then says how often it was tried."""
    with open(file, "a") as tries:
        tries.write(".")
    tried = len(Path(file).read_text())
    if tried <= failures:
        raise ConnectionError(f"try {tried}")
    return tried


class Sour(Exception):
    """Made with something else than what it says."""

    def __init__(self, grade: int, *, fruit: str) -> None:
        super().__init__(f"{fruit} of grade {grade}")
        self.grade = grade


@app.function()
def taste(grade: int) -> None:
    bite(grade)


def bite(grade: int) -> None:
    raise Sour(grade, fruit="lemon")


@app.function()
def tastes() -> Iterator[int]:
    yield 1
    bite(2)


@app.function(image=image)
def sizes(number: int) -> str:
    return f"{os.environ['GREETING']} {humanize.naturalsize(number)}"


@app.function()
def normed(array: Any) -> Any:
    import numpy

    return array / numpy.linalg.norm(array)


@app.cls()
class Counter:
    @modal.enter()
    def begin(self) -> None:
        self.count = 0
        self.pid = os.getpid()

    @modal.method()
    def add(self, step: int = 1) -> tuple[int, int]:
        self.count += step
        return self.count, self.pid

    @modal.method()
    def upto(self, to: int) -> Iterator[int]:
        yield from range(self.count, to)

    @modal.exit()
    def leave(self) -> None:
        print(f"counter leaves at {self.count}")


def show(**found: Any) -> None:
    print(json.dumps(found))


@app.local_entrypoint()
def calls(n: int = 3, *, name: str = "nobody", loud: bool = False, ratio: float = 0.5) -> None:
    counter = Counter()
    show(
        flags=[n, name, loud, ratio],
        remote=square.remote(n),
        local=square.local(n),
        keyword=power.remote(2, exponent=n),
        inner=sum_of_squares.remote(n),
        remote_gen=list(count.remote_gen(n)),
        remote_gen_async=list(count_async.remote_gen(n)),
        methods=[counter.add.remote()[0], counter.add.remote(step=n)[0]],
        method_gen=list(counter.upto.remote_gen(n + 3)),
        packaged=sizes.remote(3_000_000),
    )


@app.local_entrypoint()
def maps() -> None:
    kept = list(even.map([0, 1, 2], return_exceptions=True))
    power.for_each([1, 2, 3])
    even.for_each([1, 3], ignore_exceptions=True)
    show(
        map=list(square.map(range(30))),
        unordered=sorted(square.map(range(10), order_outputs=False)),
        two=list(power.map([2, 3], [3, 2])),
        kwargs=list(power.map([2, 3], kwargs={"exponent": 1})),
        starmap=list(power.starmap([(2, 5), (3, 2)])),
        kept=[str(type(one).__name__) if isinstance(one, Exception) else one for one in kept],
    )


@app.local_entrypoint()
async def aios() -> None:
    counter = Counter()
    show(
        remote=await square.remote.aio(4),
        gathered=await asyncio.gather(*(square.remote.aio(n) for n in range(5))),
        remote_gen=[item["n"] async for item in count.remote_gen.aio(3)],
        map=[one async for one in square.map.aio([1, 2, 3])],
        starmap=[one async for one in power.starmap.aio([(2, 3)])],
        method=(await counter.add.remote.aio(5))[0],
    )
    await square.for_each.aio([1, 2])


@app.local_entrypoint()
def failures() -> None:
    found: dict[str, Any] = {}
    try:
        even.remote(7)
    except TooOdd as error:
        found["itself"] = error.number
    try:
        list(even.map([2, 3, 4]))
    except TooOdd as error:
        found["in_map"] = error.number
    folder = tempfile.mkdtemp()
    found["retried"] = flaky.remote(f"{folder}/tries", 2)
    try:
        flaky.remote(f"{folder}/more", 5)
    except ConnectionError as error:
        found["gave_up"] = str(error)
    found["spawned"] = modal.FunctionCall.gather(square.spawn(3), square.spawn(4))
    try:
        even.spawn(7).get()
    except TooOdd as error:
        found["in_a_call"] = error.number
    found["spawned_map"] = list(square.spawn_map([3, 4]).iter())
    try:
        modal.Sandbox.create()
    except modal.Error as error:
        found["sandbox"] = str(error)
    show(**found)


@app.local_entrypoint()
def tracebacks() -> None:
    def told(call: Callable[[], Any]) -> dict[str, Any]:
        try:
            call()
        except Sour as error:
            return {"grade": error.grade, "text": "".join(traceback.format_exception(error))}
        return {}

    show(
        call=told(lambda: taste.remote(3)),
        stream=told(lambda: list(tastes.remote_gen())),
        kept="".join(traceback.format_exception(next(iter(taste.map([4], return_exceptions=True))))),
    )


@app.local_entrypoint()
def arrays() -> None:
    import numpy

    result = normed.remote(numpy.array([3.0, 4.0], dtype="float32"))
    show(type=type(result).__name__, dtype=str(result.dtype), values=[round(float(one), 3) for one in result])
