"""What stands around calls: hooks beside batches, and models whose requests are worked on together."""

import os
import time

import numpy as np

import swell

app = swell.App("shaped")


def wait_for(file: str) -> None:
    while file and not os.path.exists(file):
        time.sleep(0.005)


@app.cls(max_containers=1)
class Words:
    def split(self, text: str) -> list[str]:
        if not text:
            raise swell.exception.InvalidError("the text is empty")
        return text.split()

    def told(self, lengths: list[int]) -> dict:
        request = swell.current_request()
        request.set_header("X-Words", str(len(lengths)))
        return {"lengths": lengths, "caller": request.headers.get("x-caller", "")}

    @swell.batched(max_batch_size=8, wait_ms=5)
    @swell.transform(before=split, after=told)
    def count(self, words: list[list[str]]) -> list[list[int]]:
        return [[len(word) for word in each] for each in words]


def read(text: str) -> int:
    return int(text)


@app.function()
@swell.transform(before=read, after=str)
def twice(number: int) -> int:
    return 2 * number


@app.function(max_containers=1)
@swell.batched(max_batch_size=8, wait_ms=0)
@swell.tensors(inputs={"x": ("FP32", [-1, 2])}, outputs={"total": ("FP32", [-1]), "rows": ("INT64", [-1])})
def totals(x, gate: str = ""):
    wait_for(gate)
    print("rows", len(x))
    return x.sum(axis=1), np.full(len(x), len(x))


@app.function(max_containers=1)
@swell.batched(max_batch_size=8, wait_ms=0)
@swell.tensors(inputs={"x": ("FP32", [-1])})
def short(x):
    return x[1:]
