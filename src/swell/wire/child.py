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


class Mount(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version of a volume, at a path of a process that has a mount namespace of its own."""

    namespace: str
    name: str
    volume: str
    """Id of the volume."""
    version: int
    path: str
    lower: str
    """The folder that holds the version, which nobody writes to."""
    own: str = ""
    """A folder of this process alone, where what it changes is kept (`upper`, `work`); empty: it reads only."""
    sub_path: str = ""
    """`lower` is this folder of the volume."""

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name


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
    """Where requests go: "unix:/path", or "tcp:127.0.0.1:port" where the user's process listens by itself; empty for a
    template."""
    listener_fd: int = -1
    """Descriptor of its own unix socket, which the runner has bound: beside a process that listens by itself, slots are
    asked for there. A template has none."""
    gateway_url: str = ""
    call_key: str = ""
    """What user code in the replica calls other workloads with; handed over here and never in environ."""
    orphan_s: float = 10.0
    cancel_grace_s: float = 0.5
    """An input whose caller left and whose code has not stopped by then is killed or listed as stuck."""
    mounts: tuple[Mount, ...] = ()
    """To be mounted before the program is loaded; where it is in a sandbox that is done."""
    checkpoints: str = ""
    """Folder in which each queued call has one of its own; empty where the process does not see it."""


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
    mounts: tuple[Mount, ...] = ()
    """Over those that the template has."""
    rest_s: float = 3.0
    """How long it may wait for the program's threads to rest."""
    environ: dict[str, str] = {}
    """Variables that it has beside those of the template: which devices it was given."""


class Secrets(msgspec.Struct, frozen=True, tag="secrets"):
    """All that this process is to know. Before its program is loaded, where its revision names secrets: of a fork the
    first message, else the one after `Launch`. And whenever they change."""

    secrets: tuple[Revealed, ...]
    """Of a variable that several have, the last one counts."""
    folder: str = ""
    """Where each is a file, NAME/KEY; empty where this node has no place for such."""
    inside: bool = False
    """That is in a sandbox, where nobody else writes: the process makes the files itself."""


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Refuse new inputs, finish what is in flight, run exit hooks, end. The runner bounds how long that takes."""

    reason: str
    soon: bool = False
    """What is in flight is to come to an end, too: it is cut after a while that most of it will not finish in."""


class VolumeDone(msgspec.Struct, frozen=True, tag="volume_done"):
    """What became of an `AskVolume`."""

    ask: int
    code: str = ""
    """Why it was not done; empty where it was."""
    message: str = ""


class Forget(msgspec.Struct, frozen=True, tag="forget"):
    """Nobody needs these queued calls from you any more, each named by its id and token: what came of them is safe.
    What runs of them is stopped. Only to a replica that keeps them (`Ready.keeps`, `Reattach.kept`): another would fail
    on what it does not know."""

    calls: tuple[tuple[str, int], ...]


class Leaving(msgspec.Struct, frozen=True, tag="leaving"):
    """Your machine is about to go: what queued calls have done by then is to be kept. Or (not `soon`) it stays after
    all. Only to a replica that keeps queued calls, as `Forget`."""

    soon: bool


Down = Launch | Fork | Secrets | Drain | VolumeDone | Forget | Leaving

# -- up: child → runner -----------------------------------------------------------------------


class KeptCall(msgspec.Struct, frozen=True):
    """A queued call that was begun, and of which no runner said yet that it has its answer safe."""

    id: str
    token: int
    remaining_s: float
    """Until its deadline; none where that has passed, or it has ended."""
    ran_s: float
    """Since it was begun."""
    ended: bool = False
    """It has answered."""


class Reattach(msgspec.Struct, frozen=True, tag="reattach"):
    """After a reconnect: who I am. The runner adopts me, or says `Drain` (then I end)."""

    replica: str
    pid: int
    ready: bool
    kept: tuple[KeptCall, ...] | None = None
    """All there are: what else was sent here of a queued call was not begun, and never will be. None: that is not
    known, as this runtime is of an earlier version."""
    port: int = 0
    """As in `Ready`, which the runner before may not have heard."""
    closed: str = ""
    """Why it is to end; empty where it is not, or when it has worked on the one input that it was for."""


class ForkStarted(msgspec.Struct, frozen=True, tag="fork_started"):
    """A fork of a template runs: it came out of the fork whole and its event loop turns. Said before the user's
    start-up hooks, so that a fork that hangs is told from hooks that take their time."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """A replica listens, or a template is loaded."""

    pid: int
    timings_ms: tuple[tuple[str, float], ...]
    threads: tuple[str, ...] = ()
    """Names of threads beyond the main one that exist in a template: reported, not disqualifying."""
    port: int = 0
    """Of a gang's member: it is kept free for its code."""
    refused: str = ""
    """Template: why it must not be forked (an initialised CUDA context, say)."""
    keeps: bool = False
    """It keeps answers of queued calls, and understands `Forget`; a runtime of an earlier version does not."""


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


class Unforked(msgspec.Struct, frozen=True, tag="unforked"):
    """Template: it did not fork this one, and will fork no other."""

    replica: str
    why: str


class Exited(msgspec.Struct, frozen=True, tag="exited"):
    """Template: a forked child of mine was reaped."""

    replica: str
    pid: int
    status: int | None
    """As os.waitstatus_to_exitcode gives it: negative = signal; None: somebody else waited for it."""
    cpu_s: float


class Stuck(msgspec.Struct, frozen=True, tag="stuck"):
    """Inputs that go on after their caller left and cannot be stopped. A replica that runs one at a time, or whose
    batches, as many as it may run, are all such, takes nothing more, runs its exit hooks and ends itself after this
    (`ending`), as does one that drains once it has nothing else; otherwise they are listed."""

    requests: tuple[str, ...]
    ending: bool


class Served(msgspec.Struct, frozen=True, tag="served"):
    """A single-use replica has done its input and ends."""


class Terminated(msgspec.Struct, frozen=True, tag="terminated"):
    """Its process was sent SIGTERM: a replica takes nothing new, and what it has in flight may end of that."""


class Left(msgspec.Struct, frozen=True, tag="left"):
    """A replica that has volumes did all there was to do, its exit hooks included, and nothing of it runs any more: it
    ends in order, whether or not its runner comes to know its exit status."""


class AskVolume(msgspec.Struct, frozen=True, tag="ask_volume"):
    """A replica's code wants what it changed in a volume committed, or to see the newest version. Answered by
    `VolumeDone`."""

    ask: int
    what: str
    """"commit" or "reload"."""
    namespace: str
    name: str


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far the code says that it is with one input."""

    request: str
    done: float | None = None
    total: float | None = None
    message: str = ""
    ago_s: float = 0.0


class Reports(msgspec.Struct, frozen=True, tag="reports"):
    """What was said since the last time, of each input the newest."""

    reports: tuple[Report, ...]


Up = (
    Reports
    | Reattach
    | ForkStarted
    | Ready
    | Failed
    | Forked
    | Unforked
    | Exited
    | Stuck
    | Served
    | Terminated
    | Left
    | AskVolume
)
