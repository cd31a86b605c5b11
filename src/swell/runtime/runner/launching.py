"""What does a user's process find around it? Its environment variables, address and working folder."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from swell.model.orders import StartOrder
from swell.model.workload import Revision
from swell.runtime.runner import environment
from swell.wire.child import CHANNEL_FD, Launch, Mount
from swell.wire.paths import Home, local_url
from swell.wire.settings import Settings

log = logging.getLogger("swell.runner")

LISTENER_FD = 4

BACKLOG = 1024
"""Connections the kernel keeps for a replica that has not accepted them yet."""

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""For a replica of at most one core: more threads only wait for each other, and a thread pool that was
used before a fork hangs in the child."""

ALWAYS = {
    "PYTHONUNBUFFERED": "1",
    # Importing onnxruntime starts a telemetry thread otherwise, which hangs a forked child at its exit.
    "ORT_DISABLE_TELEMETRY": "1",
}


class ChildFds:
    """The descriptors a new process is to get. Leaving the block closes our copies."""

    def __init__(self, channel: socket.socket, listener: socket.socket | None, output: int) -> None:
        self.channel = channel
        self.listener = listener
        self.output = output
        self._nothing = os.open(os.devnull, os.O_RDONLY)

    def numbered(self) -> dict[int, int]:
        """For exec: number in the child → our descriptor."""
        numbered = {0: self._nothing, 1: self.output, 2: self.output, CHANNEL_FD: self.channel.fileno()}
        if self.listener is not None:
            numbered[LISTENER_FD] = self.listener.fileno()
        return numbered

    def three(self) -> list[int]:
        """For a fork: channel, listener, output."""
        assert self.listener is not None
        return [self.channel.fileno(), self.listener.fileno(), self.output]

    def __enter__(self) -> ChildFds:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._nothing)
        os.close(self.output)
        self.channel.close()
        if self.listener is not None:
            self.listener.close()


def launch(
    settings: Settings, order: StartOrder, address: str, folder: str, call_key: str, mounts: tuple[Mount, ...] = ()
) -> Launch:
    """The first message to an exec'ed process. `folder`: its unpacked source; `mounts`: its volumes."""
    isolation = order.revision.isolation
    reaches = isolation is None or (isolation.calls and isolation.network == "node")
    return Launch(
        replica=order.replica,
        pool=order.pool,
        role=order.role,
        revision=order.revision,
        bundle_dir=folder,
        runner_socket=str(settings.paths.runner_socket),
        address=address,
        listener_fd=LISTENER_FD if address else -1,
        gateway_url=local_url(settings.host, settings.port) if reaches else "",
        call_key=call_key if reaches else "",
        orphan_s=settings.orphan_s,
        cancel_grace_s=settings.cancel_grace_s,
        mounts=mounts,
        checkpoints=str(settings.paths.checkpoints) if isolation is None else "",
    )


def read_key(path: Path) -> str:
    """A key from its file; empty where it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError as error:
        log.warning("calls made in replicas will be refused (no_key): %s cannot be read: %s", path, error.strerror)
        return ""


def environ(
    revision: Revision, python: Path, server: Mapping[str, str], unseen: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    """The environment variables of a process that runs `revision`; the user's own win over all but `given`, which says
    which devices it was given. `unseen` says that it sees none."""
    plain = environment.plain_environ(server)
    plain["PATH"] = f"{python.parent}:{plain.get('PATH', '/usr/bin:/bin')}"
    caps = ONE_THREAD if revision.needs.cpu <= 1 else {}
    if revision.isolation is not None:
        # Nobody has no home; what would be kept there is kept as long as the sandbox.
        plain["HOME"] = "/tmp"
    own = dict(revision.environment.variables)
    return {"LANG": "C.UTF-8", **plain, **ALWAYS, **caps, **unseen, **own, **given}


def address(home: Home, replica: str, revision: Revision) -> str:
    """Where the replica listens: its own unix socket, or the port its foreign process listens on."""
    for method in revision.entry.methods:
        if method.web is not None and method.web.kind == "server" and method.web.port is not None:
            return f"tcp:127.0.0.1:{method.web.port}"
    return f"unix:{home.replica_socket(replica)}"


def listen(path: Path) -> socket.socket:
    """A bound and listening unix socket, so that whoever connects early waits instead of being refused."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen(BACKLOG)
    return listening
