"""Work that ends only when it is stopped, and tells of every step in a file."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO

import swell

app = swell.App("endless")

LIMIT_S = 2


def opened(file: str) -> BinaryIO:
    """Unbuffered: a line is in the file as soon as it is written."""
    return open(file, "ab", buffering=0)


def step(steps: BinaryIO) -> None:
    """One line: for which request."""
    steps.write(f"{swell.current_input_id()}\n".encode())


@app.function(timeout=LIMIT_S)
def loop(file: str, turns: int = 0) -> int:
    with opened(file) as steps:
        number = 0
        while not turns or number < turns:
            number += 1
            if number % 10_000 == 1:
                step(steps)
        return os.getpid()


@app.function(timeout=LIMIT_S)
async def wait(file: str, turns: int = 0) -> int:
    with opened(file) as steps:
        number = 0
        while not turns or number < turns:
            number += 1
            step(steps)
            await asyncio.sleep(0.01)
        return os.getpid()


@app.function(timeout=LIMIT_S)
def generate(file: str, turns: int = 0) -> Iterator[int]:
    with opened(file) as steps:
        number = 0
        while not turns or number < turns:
            number += 1
            step(steps)
            yield number
            time.sleep(0.01)


@app.function(timeout=LIMIT_S)
async def generate_async(file: str, turns: int = 0) -> AsyncIterator[int]:
    with opened(file) as steps:
        number = 0
        while not turns or number < turns:
            number += 1
            step(steps)
            yield number
            await asyncio.sleep(0.01)


@app.function()
async def spin(file: str, turns: int = 0) -> int:
    """Asynchronous in name only: the event loop never turns."""
    return loop.local(file, turns)


@app.function(max_containers=1)
@swell.concurrent(max_inputs=4)
async def block_beside(file: str, seconds: float = 0.0) -> int:
    with opened(file) as steps:
        step(steps)
        nap.local(seconds)
        step(steps)
        return os.getpid()


@app.function()
def nap(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return os.getpid()


@app.function(max_containers=1)
@swell.concurrent(max_inputs=4)
def nap_beside(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return os.getpid()
