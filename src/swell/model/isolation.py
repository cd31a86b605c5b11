"""What keeps a sandboxed workload from the rest of its node? Layers: each stands by itself, or is told as lacking."""

from __future__ import annotations

from typing import Literal

import msgspec

LAYERS: dict[str, str] = {
    "mount": "a root of its own: read-only, of listed folders only, with a private /tmp",
    "pid": "sees and signals only processes of its own sandbox",
    "ipc": "System V shared memory and message queues, and the host's name, are its own",
    "network": "no network at all: its loopback is its own",
    "capabilities": "runs as nobody, without any privilege and without a way to gain one",
    "seccomp": "system calls that mount, trace, load code into the kernel or open raw sockets are refused",
    "landlock": "a second wall for files, and no signals or abstract sockets out of one replica",
    "cgroups": "bounds for memory and for the number of processes",
}
"""Layer → what it gives."""


class Isolation(msgspec.Struct, frozen=True):
    """A workload runs in a sandbox, made like this."""

    network: Literal["none", "node"] = "none"
    """none: only unix sockets that were handed to it; node: that of the node, its loopback included."""
    readable: tuple[str, ...] = ()
    """Folders of the node that it sees, read-only, besides the system's libraries and its own source."""
    writable: tuple[str, ...] = ()
    """Folders of the node that it may write to."""
    optional: tuple[str, ...] = ()
    """Layers it goes without where the node lacks them. All others are required."""
    calls: bool = True
    """It gets the key that calls of other functions need (`restrict_modal_access=True`: it does not)."""

    @property
    def layers(self) -> tuple[str, ...]:
        """What it is to have."""
        return tuple(layer for layer in LAYERS if layer != "network" or self.network == "none")

    @property
    def required(self) -> frozenset[str]:
        return frozenset(self.layers) - frozenset(self.optional)
