"""Data-parallel training: two replicas, each with half of the rows, that average their gradients at every step.

`swell up -d`, then `swell job run examples/train.py::train --steps 300`. Kill one of its processes meanwhile (`swell ps
--json` has their pids): the next attempt goes on from the last checkpoint, and ends with the very same loss.
"""

import json
import math
import os
import random
import socket
import struct
import time
from pathlib import Path

import swell

app = swell.App("train")

ROWS, COLUMNS = 120, 6
RATE = 0.05


class Group:
    """All members, over plain sockets: each sends its numbers to rank 0 and gets back the sum of all.

    torch.distributed finds the same environment: `dist.init_process_group("gloo")` stands in its place there.
    """

    def __init__(self, within_s: float = 60.0) -> None:
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.others: list[socket.socket] = []
        if self.rank:
            self.others.append(_connected(address, within_s))
            self.others[0].sendall(struct.pack("!I", self.rank))
            return
        with socket.create_server(address) as door:
            door.settimeout(within_s)
            came: dict[int, socket.socket] = {}
            while len(came) < self.size - 1:
                sock, _ = door.accept()
                sock.settimeout(within_s)
                came[struct.unpack("!I", _read(sock, 4))[0]] = sock
            # In one order, whoever came first: a sum of floats depends on it.
            self.others = [came[rank] for rank in sorted(came)]

    def sum(self, numbers: list[float]) -> list[float]:
        """Of what all members give, number by number."""
        form = f"!{len(numbers)}d"
        size = struct.calcsize(form)
        if self.rank:
            self.others[0].sendall(struct.pack(form, *numbers))
            return list(struct.unpack(form, _read(self.others[0], size)))
        total = numbers
        for sock in self.others:
            total = [a + b for a, b in zip(total, struct.unpack(form, _read(sock, size)), strict=True)]
        for sock in self.others:
            sock.sendall(struct.pack(form, *total))
        return total

    def close(self) -> None:
        """The others see that this one is gone."""
        for sock in self.others:
            sock.close()


@app.function(nodes=2, cpu=0.25, memory=64, retries=swell.Retries(max_retries=3, initial_delay=0.1), timeout=600)
def train(steps: int = 100, every: int = 10, seconds_each: float = 0.0) -> float:
    """The loss after so many steps. `every`: steps between two checkpoints."""
    group = Group()
    chief, checkpoint = group.rank == 0, swell.checkpoint_dir() / "state.json"
    # Rank 0 says where all begin, as on several machines each has a folder of its own.
    begun = [float(number) for number in load(checkpoint)] if chief else [0.0] * (COLUMNS + 1)
    step, *weights = group.sum(begun)
    state, loss = (int(step), weights), math.inf
    print(f"rank {group.rank} of {group.size} begins at step {state[0]}")
    rows = [row(number) for number in range(group.rank, ROWS, group.size)]
    try:
        for done in range(state[0] + 1, steps + 1):
            if swell.stopping():
                raise InterruptedError("told to stop: the next attempt goes on from here")
            error, *gradient = group.sum(slope(rows, weights))
            loss = error / ROWS
            weights = [weight - RATE * each / ROWS for weight, each in zip(weights, gradient, strict=True)]
            # In one assignment: wherever a cancel interrupts this, what is kept is of one step.
            state = done, weights
            if chief and done % every == 0:
                save(checkpoint, *state)
            swell.progress(done, steps, f"loss {loss:.9f}")
            time.sleep(seconds_each)
    finally:
        if chief:
            save(checkpoint, *state)
        group.close()
    return loss


def row(number: int) -> tuple[list[float], float]:
    """One row of the data: what is known, and what is to be found out."""
    draw = random.Random(number)
    known = [draw.uniform(-1, 1) for _ in range(COLUMNS)]
    return known, sum((place + 1) * value for place, value in enumerate(known)) + draw.gauss(0, 0.1)


def slope(rows: list[tuple[list[float], float]], weights: list[float]) -> list[float]:
    """The squared error of these rows, and how it changes with each weight."""
    total = [0.0] * (COLUMNS + 1)
    for known, wanted in rows:
        off = sum(weight * value for weight, value in zip(weights, known, strict=True)) - wanted
        total[0] += off * off
        for place, value in enumerate(known):
            total[place + 1] += 2 * off * value
    return total


def load(checkpoint: Path) -> list[float]:
    """(steps done, weights…) of the last checkpoint, or of the beginning."""
    if not checkpoint.exists():
        return [0.0] * (COLUMNS + 1)
    state: list[float] = json.loads(checkpoint.read_text())
    return state


def save(checkpoint: Path, step: int, weights: list[float]) -> None:
    """Whole or not at all: whoever is killed in the middle leaves the one before. No two attempts write one file."""
    fresh = checkpoint.with_name(f"{swell.get_cluster_info().cluster_id}.tmp")
    fresh.write_text(json.dumps([step, *weights]))
    os.replace(fresh, checkpoint)


def _connected(address: tuple[str, int], within_s: float) -> socket.socket:
    """Rank 0 may listen a moment later."""
    until = time.monotonic() + within_s
    while True:
        try:
            return socket.create_connection(address, timeout=within_s)
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def _read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionError("a member is gone")
        data += piece
    return data
