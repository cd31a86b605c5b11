"""Embeddings of which several requests are worked on together."""

import os
import time

import numpy as np

import swell

app = swell.App("rows")


def wait_for(file: str) -> None:
    while file and not os.path.exists(file):
        time.sleep(0.005)


@app.function(max_containers=1)
@swell.batched(max_batch_size=100, wait_ms=0)
@swell.openai("embeddings", model="rows")
def embed(input: list[str], gate: str = ""):
    wait_for(gate)
    vectors = np.array([[len(text), len(input)] for text in input], np.float32)
    return {"embeddings": vectors, "usage": {"prompt_tokens": [len(text) for text in input]}}
