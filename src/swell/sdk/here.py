"""What may user code know of where it runs and of the input it works on?"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from swell.model.errors import SwellError, brief
from swell.sdk.signatures import public
from swell.wire import context


@public
def is_local() -> bool:
    """False in a replica, True anywhere else."""
    return not context.inside


@public
def current_input_id() -> str | None:
    """The id of the request being worked on; None outside one."""
    current = context.current.get()
    return None if current is None else current.request


@public
def current_function_call_id() -> str | None:
    """The `object_id` of the `FunctionCall` being worked on; None outside one that came by the
    queue (`.spawn`, `.map`)."""
    current = current_input_id()
    return current if current is not None and current.startswith("fc-") else None


@dataclass(frozen=True)
class ClusterInfo:
    """The gang that works on a call, as one of its members sees it."""

    rank: int
    """Which member this is, from 0."""
    cluster_id: str
    """The same for all members; another one in each attempt."""
    container_ips: list[str]
    """Where each member is, by rank."""
    container_v4_ips: list[str]
    """The same."""
    peers: list[str]
    """The same with a port, which is left to the code of that member: "host:port"."""


@public
def get_cluster_info() -> ClusterInfo:
    """Who works on this call beside this replica: in functions with nodes= or @clustered."""
    if not context.cluster:
        words = "get_cluster_info(): only calls of functions with nodes= or @clustered have several replicas."
        raise SwellError("bad_call", words)
    cluster = context.cluster[0]
    hosts = [peer.rpartition(":")[0] for peer in cluster.peers]
    return ClusterInfo(cluster.rank, cluster.id, hosts, [*hosts], list(cluster.peers))


@public
def checkpoint_dir() -> Path:
    """A folder for what the next attempt of the call goes on from: the same in all attempts, and for all members of a
    gang on this node. It is there as long as the call is kept. In calls that came by the queue."""
    folder = os.environ.get("SWELL_CHECKPOINT_DIR", "") if context.cluster else ""
    call = current_function_call_id()
    if call is None and not folder:
        raise SwellError("bad_call", "checkpoint_dir(): only a call that came by the queue (.spawn, nodes=) has one.")
    folder = folder or context.checkpoint_dir(call or "")
    if not folder:
        raise SwellError(
            "isolated", "checkpoint_dir(): a sandbox sees no folder of the node: use a volume.", status=403
        )
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    return path


@public
def stopping() -> bool:
    """Is what works here to come to an end soon: preempted, cancelled, or as its server or machine goes? Code that
    looks between two steps can keep what it has (checkpoint_dir) and raise: its next attempt goes on from there."""
    current = context.current.get()
    work = current.work if current is not None else None
    ending = context.stopping.is_set() or context.leaving.is_set()
    return ending or (work is not None and work.stopping)


@public
def remaining_s() -> float | None:
    """Seconds until the caller's deadline, below zero once it has passed; None outside a request."""
    current = context.current.get()
    return None if current is None else current.remaining_s()


@public
def progress(done: float | None = None, total: float | None = None, message: str | None = None) -> None:
    """Say how far the call being worked on is: `done` of `total`, in any unit, and what it does now. `swell calls show`
    tells the newest, of calls that were spawned. It costs a few microseconds, and outside a replica does nothing.
    Where the function has a `timeout_max`, each one gives the call its `timeout` anew."""
    if not (_is_amount(done) and _is_amount(total) and (message is None or isinstance(message, str))):
        given = ", ".join(brief(repr(each)) for each in (done, total, message))
        raise SwellError("bad_argument", f"progress({given}): give numbers, or None, and a text.")
    current = context.current.get()
    if current is None or not context.reports:
        return
    words = "" if message is None else kept(message)
    context.reports[0](current, context.Said(_finite(done), _finite(total), words))


def kept(message: str) -> str:
    """A text as it can be told: no longer than is kept, without characters that cannot be."""
    from swell.wire.calls import MESSAGE_MAX

    return message[:MESSAGE_MAX].encode("utf-8", "replace").decode().replace("\0", "?")


def _is_amount(value: object) -> bool:
    return value is None or (hasattr(value, "__float__") and not isinstance(value, bool))


def _finite(value: float | None) -> float | None:
    """What is no finite number, as a division by nothing gives, is not told: a report is not worth a job's end."""
    try:
        number = None if value is None else float(value)
    except (OverflowError, TypeError, ValueError):
        return None
    return number if number is not None and math.isfinite(number) else None
