"""What does a member of a gang know of the others? Its port is held for its code; with the call come rank and peers."""

from __future__ import annotations

import os
import random
import socket
from contextlib import suppress

from swell.runtime.request import Request
from swell.wire import context
from swell.wire.context import Cluster
from swell.wire.http import PEERS, RANK, lower

PORTS = range(20_000, 32_768)
"""Below those that a system gives, as a rule, to who asks for any: so nobody has one by chance while it is free."""
TRIES = 100
"""Then it is one of these after all."""
_RANK, _PEERS = map(lower, (RANK, PEERS))


class Meeting:
    """The port at which the code of one member may meet the others. Nobody listens there before the code does."""

    def __init__(self) -> None:
        self._held = _bound()
        self.port: int = self._held.getsockname()[1]

    def begin(self, request: Request) -> None:
        """The call is here: tell its code of the gang, and leave the port to it."""
        self._held.close()
        cluster = cluster_of(request)
        if cluster is None:
            return
        context.cluster[:] = [cluster]
        os.environ.update(variables(cluster))
        folder = context.checkpoint_dir(request.id)
        if folder:
            os.environ["SWELL_CHECKPOINT_DIR"] = folder
            with suppress(OSError):
                # Where that fails, the code is told once it writes there.
                os.makedirs(folder, exist_ok=True)


def cluster_of(request: Request) -> Cluster | None:
    """What a request tells of the gang; None where it tells nothing."""
    rank, peers = request.header(_RANK), request.header(_PEERS).decode("latin-1").split(",")
    if not rank.isdigit() or int(rank) >= len(peers):
        return None
    # Each member has a token of its own, by its rank: so this is the same for all, and another one in each attempt.
    return Cluster(f"{request.id}-{request.token - int(rank)}", int(rank), tuple(peers))


def follows(request: Request) -> bool:
    """Does another member of its gang say how far it is, and is ended by `timeout=` for all?"""
    return request.header(_RANK) not in (b"", b"0")


def variables(cluster: Cluster) -> dict[str, str]:
    """What torch.distributed and jax.distributed find in the environment. Each member is a node to them, with one
    process that has all its devices."""
    rank, size = str(cluster.rank), str(len(cluster.peers))
    host, _, port = cluster.peers[0].rpartition(":")
    return {
        "RANK": rank,
        "WORLD_SIZE": size,
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "NODE_RANK": rank,
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        "JAX_COORDINATOR_ADDRESS": cluster.peers[0],
        "JAX_NUM_PROCESSES": size,
        "JAX_PROCESS_ID": rank,
    }


def _bound() -> socket.socket:
    """A TCP socket that has a port, and does not listen."""
    # Forks of one template must not draw the same numbers.
    draw = random.SystemRandom()
    for port in (*(draw.choice(PORTS) for _ in range(TRIES)), 0):
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            held.bind(("", port))
        except OSError:
            held.close()
            if not port:
                raise
        else:
            return held
    raise AssertionError("the last one is bound, or raises")
