"""Functions that write down when they worked, and in which process."""

import asyncio
import os
import time
from pathlib import Path

import swell

app = swell.App("crowd")


def note(file: str, began: float) -> int:
    """One line, in one write: process, begin and end (monotonic seconds, the same for all processes)."""
    with open(file, "ab", buffering=0) as notes:
        notes.write(f"{os.getpid()} {began} {time.monotonic()}\n".encode())
    return os.getpid()


@app.function(max_containers=5, scaledown_window=2)
def alone(file: str, seconds: float) -> int:
    began = time.monotonic()
    time.sleep(seconds)
    return note(file, began)


@app.function(max_containers=5, scaledown_window=60)
def meet(file: str, number: int) -> int:
    """Ends once this many are at work at the same time; alone it waits for the others."""
    pid = note(file, time.monotonic())
    while len(Path(file).read_text().splitlines()) < number:
        time.sleep(0.01)
    return pid


@app.function(max_containers=1)
@swell.concurrent(max_inputs=8)
def together(file: str, seconds: float) -> int:
    began = time.monotonic()
    time.sleep(seconds)
    return note(file, began)


@app.function(max_containers=1)
@swell.concurrent(max_inputs=8)
async def together_async(file: str, seconds: float) -> int:
    began = time.monotonic()
    await asyncio.sleep(seconds)
    return note(file, began)


@app.function(single_use_containers=True, max_containers=4)
def once(file: str, seconds: float) -> int:
    began = time.monotonic()
    time.sleep(seconds)
    return note(file, began)
