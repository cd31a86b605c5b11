"""Functions that are kept ready."""

import os
import time

import swell

app = swell.App("standing")


def work_until(file: str) -> int:
    """At work until the file is there; without one, not at all."""
    while file and not os.path.exists(file):
        time.sleep(0.01)
    return os.getpid()


@app.function(min_containers=1, max_containers=3, scaledown_window=2)
def kept(until: str = "") -> int:
    return work_until(until)


@app.function(buffer_containers=1, max_containers=5, scaledown_window=2)
def spared(until: str = "") -> int:
    return work_until(until)
