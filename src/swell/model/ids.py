"""How are replicas numbered? "r{epoch}-{n}" in hex, unique for ever: the epoch is the incarnation of the control that
planned it."""

from __future__ import annotations


def replica_id(epoch: int, number: int) -> str:
    """The id of the n-th replica that a control planned."""
    return f"r{epoch:x}-{number:x}"


def epoch_of(replica: str) -> int:
    """Which control planned a replica."""
    return int(replica[1:].partition("-")[0], 16)
