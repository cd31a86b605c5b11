"""What a runner says with the processes it starts: templates, fresh replicas and forked ones.

Each child has one stream socket to its runner (the channel). It inherits it; when it breaks (the
runner died, or does not read) the child connects to `runner_socket` and says `Reattach`; after `orphan_s`
in vain it ends itself. Frames as in `wire.frames`.
"""

from __future__ import annotations

import msgspec

from swell.model.replica import Role
from swell.model.secret import Revealed
from swell.model.workload import Revision

CHANNEL_FD = 3
"""File descriptor of the channel in an exec'ed child."""
LACKING_STATUS = 78
"""Exit status of the check at deploy: the environment lacks something; the last line says what, and the way out."""

# -- down: runner → child ---------------------------------------------------------------------


class Launch(msgspec.Struct, frozen=True, tag="launch"):
    """First message to an exec'ed child: what to load and how to behave."""

    replica: str
    pool: str
    role: Role
    revision: Revision
    bundle_dir: str
    """Folder that holds the unpacked source; first on sys.path."""
    runner_socket: str
    address: str
    """Where to listen: "unix:/path" (the runner already bound it; its descriptor is `listener_fd`), or
    "tcp:127.0.0.1:port" where the user's process listens by itself; empty for a template."""
    listener_fd: int = -1
    gateway_url: str = ""
    call_key: str = ""
    """What user code in the replica calls other workloads with; handed over here and never in environ."""
    orphan_s: float = 10.0
    cancel_grace_s: float = 0.5
    """An input whose caller left and whose code has not stopped by then is killed or listed as stuck."""


class Fork(msgspec.Struct, frozen=True, tag="fork"):
    """To a template: fork one replica. Three descriptors come with it (SCM_RIGHTS): the child's channel,
    its bound listener, its log pipe (stdout and stderr)."""

    replica: str
    address: str
    cgroup_procs: tuple[str, ...] = ()
    """Files the child writes its pid into before anything else (cgroup membership)."""
    rlimits: tuple[tuple[int, int, int], ...] = ()
    """(resource, soft, hard) the child sets on itself."""
    groups: int = 0
    """So many more descriptors come with it: membership files of its cgroups, where it cannot open them itself."""


class Secrets(msgspec.Struct, frozen=True, tag="secrets"):
    """All that this process is to know. Before its program is loaded, where its revision names secrets: of a fork the
    first message, else the one after `Launch`. And whenever they change."""

    secrets: tuple[Revealed, ...]
    """Of a variable that several have, the last one counts."""
    folder: str = ""
    """Where each is a file, NAME/KEY; empty where this node has no place for such."""


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Refuse new inputs, finish what is in flight, run exit hooks, end. The runner bounds how long that takes."""

    reason: str


Down = Launch | Fork | Secrets | Drain

# -- up: child → runner -----------------------------------------------------------------------


class Reattach(msgspec.Struct, frozen=True, tag="reattach"):
    """After a reconnect: who I am. The runner adopts me, or says `Drain` (then I end)."""

    replica: str
    pid: int
    ready: bool


class ForkStarted(msgspec.Struct, frozen=True, tag="fork_started"):
    """A fork of a template runs: it came out of the fork whole and its event loop turns. Said before the user's
    start-up hooks, so that a fork that hangs is told from hooks that take their time."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """A replica listens, or a template is loaded."""

    pid: int
    timings_ms: tuple[tuple[str, float], ...]
    threads: tuple[str, ...] = ()
    """Names of threads beyond the main one that exist in a template: reported, not disqualifying."""
    refused: str = ""
    """Template: why it must not be forked (an initialised CUDA context, say)."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Start-up raised. The process ends by itself after this."""

    reason: str
    """"import_error", "enter_error", "bad_entry", "not_listening"."""
    detail: str
    """Traceback, user frames only where that is clear."""


class Forked(msgspec.Struct, frozen=True, tag="forked"):
    """Template: the child exists. A pidfd comes with it (SCM_RIGHTS)."""

    replica: str
    pid: int


class Exited(msgspec.Struct, frozen=True, tag="exited"):
    """Template: a forked child of mine was reaped."""

    replica: str
    pid: int
    status: int
    """As os.waitstatus_to_exitcode gives it: negative = signal."""
    cpu_s: float


class Stuck(msgspec.Struct, frozen=True, tag="stuck"):
    """Inputs that go on after their caller left and cannot be stopped. A replica that runs one at a time, or one batch,
    ends itself after this; otherwise it is listed."""

    requests: tuple[str, ...]
    ending: bool


class Served(msgspec.Struct, frozen=True, tag="served"):
    """A single-use replica has done its input and ends."""


Up = Reattach | ForkStarted | Ready | Failed | Forked | Exited | Stuck | Served
