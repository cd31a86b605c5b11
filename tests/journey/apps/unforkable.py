"""A module whose forks hang: what it holds is never given back in them."""

import os
import threading

import swell

app = swell.App("unforkable")

held = threading.Lock()
held.acquire()
os.register_at_fork(after_in_child=held.acquire)


@app.function(scaledown_window=60, max_containers=1)
def answer(x: int) -> int:
    return x + 1
