"""Functions that are kept ready."""

import os
import time

import swell

app = swell.App("standing")


@app.function(min_containers=1, max_containers=3, scaledown_window=2)
def kept(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return os.getpid()


@app.function(buffer_containers=1, max_containers=5, scaledown_window=2)
def spared(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return os.getpid()
