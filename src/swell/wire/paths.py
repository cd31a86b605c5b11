"""Where things live in a state directory (SWELL_HOME), and where the server on it listens."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from swell.model.errors import SwellError
from swell.model.ids import replica_id
from swell.wire.identity import Identity

RESULT = ".result"
"""How the names of files end that have results of queued calls, among what is told of these."""
SOCKET_PATH_MAX = 107
"""Bytes the kernel takes for a unix socket's path."""

WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""What a server listens on that listens on every address of its machine → where it is reached from there."""


def default_home() -> Path:
    """$SWELL_HOME, else the XDG state directory."""
    home = os.environ.get("SWELL_HOME")
    if home:
        return Path(home).expanduser().absolute()
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "swell"


def local_url(host: str, port: int) -> str:
    """Where clients on this machine reach a server that listens on `host`, which may be a wildcard."""
    near = WILDCARDS.get(host, host)
    return f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"


class Home:
    """Names inside one state directory. Nothing is created here."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / "lock"
        self.key = root / "key"
        self.call_key = root / "call-key"
        self.master_key = root / "master.key"
        self.database = root / "control.db"
        self.prices = root / "prices.toml"
        self.run = root / "run"
        """Sockets; mode 0700."""
        self.control_socket = self.run / "control.sock"
        self.api_socket = self.run / "api.sock"
        self.back = self.run / "back"
        """What a sandbox sees of `run`: the socket over which its processes come back to the next runner."""
        self.runner_socket = self.back / "runner.sock"
        self.empty = self.run / "empty"
        """An empty folder, on which sandboxes make their root, each in a mount namespace of its own."""
        self.attached = self.run / "attached"
        """One file per client (its pid) that a server started for clients lives for."""
        self.replica_sockets = self.run / "r"
        self.replica_records = self.run / "p"
        """One small file per process the runner owns, for the next runner to find."""
        self.call_ends = self.run / "e"
        """What came of queued calls while control was away: one small file each, for the next runner to tell."""
        self.results = root / "results"
        """Results of queued calls that are too large for their rows, by digest. On the file system of `run`, as a rule:
        then none is copied."""
        self.leaving = self.run / "leaving"
        """When this node goes (seconds since the epoch), where it was said that it does."""
        self.left = self.run / "left"
        """There where that was said to the server before this one: what ran then was lost with the machine."""
        self.replica_groups = self.run / "groups"
        """There while a runner may have control groups, so that they are found if it does not take them away."""
        self.environments = root / "envs"
        self.bundles = root / "bundles"
        self.blobs = root / "blobs"
        self.checkpoints = root / "checkpoints"
        """`{call}`: what a queued call goes on from in its next attempt. It goes with the call."""
        self.volumes = root / "volumes"
        """`{namespace}/files/{digest}`: what is in volumes; `{namespace}/{id}/v{number}`: what of it is where."""
        self.mounts = root / "mounts"
        """What replicas see of volumes: `trees/{id}-v{number}`, and what is their own in `views/{replica}`. On the file
        system of `volumes`: trees are made of links."""
        self.backup = root / "backup"
        """Copies for a backup that is being made; nothing stays there."""
        self.restoring = root / "restore.part"
        """What a restore has unpacked so far; nothing else is here then, and no server runs."""
        self.logs = root / "logs"
        """`{namespace}/{app}.ndjson` of user output, and `swell.log` of our own processes."""
        self.server_log = self.logs / "swell.log"

    def names(self) -> set[str]:
        """What of the root is the server's, be it there or not. Whatever else is there may be anybody's."""
        below = (path.relative_to(self.root).parts for path in vars(self).values())
        return {parts[0] for parts in below if parts}

    def replica_socket(self, replica: str) -> Path:
        return self.replica_sockets / f"{replica}.s"

    def call_result(self, id: str, token: int) -> Path:
        """Where a runner has the large result of one hand-out of a call, until it is heard of."""
        return self.call_ends / f"{id}-{token}{RESULT}"

    def server_url(self) -> str | None:
        """Where the server on this state directory says that it listens; None when it says nothing."""
        said = self._said()
        return local_url(said["host"], said["port"]) if said.get("port") and "host" in said else None

    def server(self) -> Identity:
        """The server on this state directory, as it names itself; nobody who lives where there is none."""
        said = self._said()
        return Identity(said.get("pid", 0), said.get("start_ticks", 0))

    def for_clients(self) -> bool:
        """Says the server on this state directory that it was started for clients, and ends after the last of them?"""
        return bool(self._said().get("attached"))

    def ending(self) -> int | None:
        """The pid of a server on this state directory that is about to end."""
        server = self.server()
        return server.pid if self._said().get("state") == "stopping" and server.alive else None

    def _said(self) -> dict[str, Any]:
        """What the server says of itself (`supervise.lock.Holder`); nothing where none ran, or one ended well."""
        try:
            said = json.loads(self.lock.read_text())
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}

    def process_record(self, name: str) -> Path:
        """Where the supervisor notes the pid and start time of its child of that name, as JSON."""
        return self.run / f"{name}.json"

    def check_socket_length(self) -> None:
        """Refuse a root so long that sockets below it cannot be bound."""
        longest = len(os.fsencode(self.replica_socket(replica_id(0xFFFFFF, 0xFFFFFFFF))))
        if longest > SOCKET_PATH_MAX:
            raise SwellError(
                "home_too_long",
                f"The state directory {self.root} is {longest - SOCKET_PATH_MAX} bytes too long for unix sockets. "
                f"Set SWELL_HOME (or --home) to a shorter path.",
            )
