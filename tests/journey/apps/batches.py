"""Batched functions that tell with how many an input was worked on, once a file is there."""

import os
import time

import swell

app = swell.App("batches")


def wait_for(file: str) -> None:
    while file and not os.path.exists(file):
        time.sleep(0.005)


@app.function(max_containers=1)
@swell.concurrent(max_inputs=6)
@swell.batched(max_batch_size=2, wait_ms=60_000)
def pairs(gate: list[str]) -> list[int]:
    """With room for two batches beside each other, of two each."""
    wait_for(gate[0])
    return [len(gate)] * len(gate)


@app.cls(max_containers=1)
class Model:
    @swell.batched(max_batch_size=4, wait_ms=5)
    async def double(self, values: list[int], fail: list[bool] | None = None) -> list[int | Exception]:
        print("doubling", *values)
        return [ValueError(f"not {value}") if fail and fail[at] else 2 * value for at, value in enumerate(values)]


@app.function(max_containers=1)
@swell.batched(max_batch_size=8, wait_ms=0)
def broken(values: list[int], gate: str = "") -> list[int]:
    return values[1:]


@app.function(max_containers=4)
@swell.batched(max_batch_size=4, wait_ms=0)
def spread(gate: list[str]) -> list[tuple[int, int]]:
    wait_for(gate[0])
    return [(os.getpid(), len(gate))] * len(gate)


@app.local_entrypoint()
def main():
    assert list(Model().double.map([1, 2, 3])) == [2, 4, 6]
    assert Model().double.local([4], fail=[False]) is not None
    print("doubled")
