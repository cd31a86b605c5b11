"""A number and a mark of the run, which no two runs have in common; each run is noted in a file."""

import os
import secrets
import time

import swell

app = swell.App("bench-kills")


@app.function(max_containers=2, retries=0)
@swell.concurrent(max_inputs=8)
def marked(number: int, file: str) -> list:
    """[number, mark]"""
    mark = secrets.token_hex(8)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, f"{number} {mark} {os.getpid()}\n".encode())
    finally:
        os.close(descriptor)
    time.sleep(0.005)
    return [number, mark]
