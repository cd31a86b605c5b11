"""Models of the Open Inference Protocol, in each way that one is declared."""

import time
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

import swell

app = swell.App("zoo")


@app.function()
def double(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x * 2


class Moments(TypedDict):
    mean: NDArray[np.float64]
    count: NDArray[np.int64]


@app.cls()
class Stats:
    @swell.enter()
    def load(self) -> None:
        self.loaded = True

    @swell.method()
    def moments(self, x: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Moments:
        return {"mean": x.mean(axis=1), "count": np.array([x.size])}


class Both(NamedTuple):
    texts: NDArray[np.object_]
    lengths: NDArray[np.int32]


@app.function()
@swell.tensors(inputs={"texts": ("BYTES", [-1])}, outputs={"texts": ("BYTES", [-1]), "lengths": ("INT32", [-1])})
async def upper(texts: NDArray[np.object_], suffix: str = "") -> Both:
    made = np.array([text.decode().upper() + suffix for text in texts] + [""], dtype=object)[:-1]
    return Both(made, np.array([len(text) for text in made], dtype=np.int32))


@app.function()
@swell.tensors(
    inputs={"a": ("INT32", [2, 2]), "b": ("INT32", [2, 2])},
    outputs={"sum": ("INT32", [2, 2]), "difference": ("INT32", [2, 2])},
)
def add(a, b=None):
    b = np.zeros_like(a) if b is None else b
    return a + b, a - b


@app.function()
def same(x: np.ndarray, parameters: dict[str, Any] | None = None) -> np.ndarray:
    """Whatever it is, and written to."""
    if parameters and parameters.get("boom"):
        raise ValueError(f"boom {parameters['boom']}")
    if x.size:
        x[...] = x
    return x


@app.function()
@swell.tensors(inputs={"x": ("BF16", [-1])}, outputs={"y": ("BF16", [-1])})
def halves(x):
    return x


@app.function()
@swell.cached(ttl_s=600)
@swell.batched(max_batch_size=4, wait_ms=0)
@swell.tensors(inputs={"x": ("INT64", [-1, 2])}, outputs={"total": ("INT64", [-1]), "at": ("FP64", [-1])})
async def total(x):
    return {"total": x.sum(axis=1), "at": np.full(len(x), time.time())}


@app.function(timeout=1)
def slow(x: NDArray[np.int64]) -> NDArray[np.int64]:
    time.sleep(float(x[0]))
    return x


@app.function()
def patient(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sleeps for so many tenths of a second."""
    for _ in range(int(x[0])):
        time.sleep(0.1)
    return x


@app.function()
@swell.tensors(inputs={"x": ("INT64", [-1])}, outputs={"y": ("INT64", [1])})
def wrong(x):
    return x.astype(complex) if len(x) > 3 else x


@app.function()
def made(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """Answered with another status than 200."""
    swell.current_request().set_status(int(x[0]))
    return x
