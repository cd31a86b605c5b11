"""How long does the bare mechanism take: fork a process that has the model, connect, answer?

Runs beside the platform in a process with the same imports: `python -m bench.bare`. Each line on stdin
is one fork; the answer is its milliseconds, from asking for it to having the child's prediction.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("apps")))


def main() -> None:
    """Load, say so, then fork once per line."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    from wake_app import Model

    model = Model()
    pixels = [0.5] * 64
    model.predict(pixels)
    gc.collect()
    gc.disable()
    gc.freeze()
    with tempfile.TemporaryDirectory(prefix="swf", dir="/tmp") as folder:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"{folder}/s")
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for _ in sys.stdin:
            sys.stdout.write(f"{once(model, pixels, listener, folder) * 1000}\n")
            sys.stdout.flush()


def once(model: object, pixels: list[float], listener: socket.socket, folder: str) -> float:
    """Seconds for one fork that connects, is told the input, and answers."""
    begun = time.perf_counter()
    child = os.fork()
    if child == 0:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel.connect(f"{folder}/s")
        channel.recv(64)
        channel.send(str(model.predict(pixels)).encode())  # type: ignore[attr-defined]
        os._exit(0)
    channel, _ = listener.accept()
    channel.send(b"go")
    channel.recv(64)
    seconds = time.perf_counter() - begun
    channel.close()
    os.waitpid(child, 0)
    return seconds


if __name__ == "__main__":
    main()
