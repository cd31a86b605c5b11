"""Bodies of the control API (`/api/…`): what the CLI and the SDK send and receive as JSON.

One that refuses fields it does not know is sent without those that say nothing: a server older than a field takes it
from all who do not use that.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from swell.model.limits import COUNT_MAX, SECONDS_MAX, Limits
from swell.model.owner import Owner
from swell.model.retrying import Retrying
from swell.model.volume import Entry, Kind, Quota
from swell.model.workload import NO_OPTIONS, App, Options, Scaling

Strategy = Literal["rolling", "recreate", "blue-green"]
"""rolling: what serves goes on until its successor is ready; recreate: it gives way at once; blue-green: it goes on
until its successor, which is made ready beside it, is promoted."""


class Deploy(msgspec.Struct, frozen=True):
    """POST /api/apps. Answered by lines of `DeployLine` (application/x-ndjson) until one is not progress.

    Every blob the revisions name must have been put before (PUT /api/blobs/{digest}).
    """

    app: App
    tag: str = ""
    """What its author calls this version; shown in its history."""
    strategy: Strategy = "rolling"

    @property
    def names(self) -> dict[str, str]:
        """Of what it is about, by which it is looked up who may ask for it."""
        return {"namespace": self.app.namespace, "name": self.app.name}


class Rollback(msgspec.Struct, frozen=True):
    """POST /api/apps/{namespace}/{name}/rollback. Answered as a deploy is."""

    to: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Number of the version; 0 = the one before that which takes the traffic."""


_Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]


class Rescale(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """PATCH /api/apps/{namespace}/{name}/workloads/{workload}, until the next deploy. Answered by its `Scaling`.

    None leaves what there is."""

    min_replicas: _Count | None = None
    max_replicas: Annotated[int, msgspec.Meta(ge=1, le=COUNT_MAX)] | None = None
    buffer_replicas: _Count | None = None
    idle_s: Annotated[float, msgspec.Meta(gt=0, le=SECONDS_MAX)] | None = None


class NewVariant(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """POST /api/apps/{namespace}/{name}/workloads/{workload}/variants. Answered by a `VariantRow`; asked again, by the
    same one."""

    parameters: dict[str, str | int | bool] = {}
    """By name; bytes as base64."""
    options: Options = NO_OPTIONS


class VariantRow(msgspec.Struct, frozen=True):
    """A workload with other parameters or options than it was deployed with."""

    name: str
    """In the path of calls: "Model~3fa9c2d41b07e85d6c1f"."""
    written: str
    """As people write it: `Model(name="x")`."""
    scaling: Scaling


class NewSecret(msgspec.Struct, frozen=True):
    """PUT /api/secrets/{namespace}/{name}. Answered by a `SecretRow`."""

    values: dict[str, str] = {}


class NewValues(msgspec.Struct, frozen=True):
    """POST /api/secrets/{namespace}/{name}: a new version. What is not named is as it was."""

    values: dict[str, str] = {}
    unset: tuple[str, ...] = ()
    """Variables that it has no more."""


class AppSecret(msgspec.Struct, frozen=True):
    """POST /api/secrets/{namespace}: values that a program brings along for its app."""

    app: str = ""
    values: dict[str, str] = {}

    @property
    def names(self) -> dict[str, str]:
        return {"app": self.app}


class AppSecretKept(msgspec.Struct, frozen=True):
    """The answer: the name to deploy with. Equal values of an app have equal names."""

    name: str


class SecretRow(msgspec.Struct, frozen=True):
    """GET /api/secrets → list of these. No value is ever answered."""

    namespace: str
    name: str
    version: int
    """The newest, which is what starts."""
    at: float
    """When that was made."""
    keys: tuple[str, ...]
    """Names of its variables."""
    versions: tuple[int, ...]
    """Those that are kept."""
    apps: tuple[str, ...]
    """Deployed apps that use it, "namespace/name"."""


class NewVolume(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """PUT /api/volumes/{namespace}/{name}. Answered by a `VolumeRow`."""

    quota: Quota = Quota()
    if_missing: bool = False
    """One that is there already is as good."""
    owner_pid: int = 0
    """A program: with its end the volume is deleted."""
    owner_ticks: int = 0
    owner_machine: str = ""

    @property
    def owner(self) -> Owner | None:
        return Owner(self.owner_pid, self.owner_ticks, self.owner_machine) if self.owner_pid else None


class Heard(msgspec.Struct, frozen=True):
    """PUT /api/owners, with an `Owner` → this."""

    again_s: float
    """Say so again after this time; 0: the server sees for itself when the program ends."""


class VolumeSettings(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """PATCH /api/volumes/{namespace}/{name}. Answered by a `VolumeRow`. None leaves what there is."""

    name: str | None = None
    bytes_max: Annotated[int, msgspec.Meta(ge=0)] | None = None
    files_max: Annotated[int, msgspec.Meta(ge=0)] | None = None


class NewFiles(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """POST /api/volumes/{namespace}/{name}/files: one version with all of these. Answered by a `VolumeRow`.

    The contents must have been put before (PUT /api/volume-contents/{namespace}/{digest}).
    """

    put: tuple[tuple[str, Entry], ...] = ()
    force: bool = False
    """Also over files that are there."""


class Copies(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """POST /api/volumes/{namespace}/{name}/copies. Answered by a `VolumeRow`."""

    sources: tuple[str, ...] = ()
    to: str = ""
    recursive: bool = False


class VolumeRow(msgspec.Struct, frozen=True):
    """GET /api/volumes → list of these."""

    namespace: str
    name: str
    id: str
    version: int
    made_at: float
    at: float
    """When its newest version was made."""
    size_bytes: int
    files: int
    bytes_max: int
    files_max: int
    apps: tuple[str, ...]
    """Deployed apps that use it, "namespace/name"."""


class FileRow(msgspec.Struct, frozen=True):
    """GET /api/volumes/{namespace}/{name}/files?path=&recursive=1 → list of these."""

    path: str
    kind: Kind
    size: int
    at: float
    executable: bool = False
    target: str = ""
    digest: str = ""


class VersionRow(msgspec.Struct, frozen=True):
    """GET /api/apps/{namespace}/{name}/versions → list of these, the newest first."""

    version: int
    at: float
    how: str
    """What made it: "deploy", "rollback to v2"."""
    tag: str
    source: str
    current: bool
    """It has the traffic of all functions, or of some of them: of one that does not start an older version has it."""
    changes: tuple[tuple[str, str], ...]
    """(workload, "new", "changed", "unchanged" or "removed") against the version before; empty where that is not kept
    any more."""
    rolling: tuple[str, ...] = ()
    """Of the one that is in place: why functions do not have their traffic yet, "function: why" each."""


class DeployLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the answer to a deploy."""

    kind: Literal["progress", "done", "error"]
    message: str = ""
    code: str = ""
    """With "error": "environment", "import", "invalid", …; nothing was changed, but with "not_started": it is in place,
    and what does not start of it is still served by the version before."""
    detail: str = ""
    """With "error": the traceback or the installer's words."""
    urls: tuple[tuple[str, str], ...] = ()
    """With "done": (workload or method, URL) of web endpoints and of calls."""
    changes: tuple[tuple[str, str], ...] = ()
    """With "done": (workload, "new", "changed", "unchanged" or "removed"), by name."""
    version: int = 0
    """With "done": which version of the app it is now; 0 = it has none, since it belongs to a program."""
    notes: tuple[str, ...] = ()
    """With "done": what is most likely not meant, a sentence each."""
    asleep: tuple[str, ...] = ()
    """With "done": workloads of which nothing runs. Their first request starts them, if they can be."""


class ShareRow(msgspec.Struct, frozen=True):
    """A version that requests of a workload go to."""

    version: int
    percent: float
    header: str = ""
    """"name=value": such requests go there, whatever the shares."""
    tag: str = ""
    """Name that leads to it alone."""


class WorkloadRow(msgspec.Struct, frozen=True):
    name: str
    revision: str
    kind: str
    methods: tuple[str, ...]
    url: str
    ready: int | None
    """How many of its replicas are; None = not known: control has just begun, and no runner has told it yet."""
    live: int | None
    """How many replicas it has; None as above."""
    held: int
    in_flight: int
    generators: tuple[str, ...] = ()
    """Those of `methods` that answer with a stream."""
    cached: tuple[str, ...] = ()
    """Those whose answers the gateway keeps (`@cached`)."""
    traffic: tuple[ShareRow, ...] = ()
    """Where its requests go, the main version first."""
    hash_header: str = ""
    rolling: str = ""
    """What its new revision waits for, and which version serves meanwhile; empty where it has its traffic."""
    retrying: Retrying = Retrying()
    """What its author asked of callers: how often a failed call is tried again."""
    scaling: Scaling = Scaling()
    """As it is now: by the last deploy, or as it was changed since."""
    nodes: int = 0
    """Replicas that work on a call of it together; 0: one does alone, and not on a call only."""
    written: str = ""
    """Its name as people write it: `Model(name="x")` of "Model~3fa9c2d41b07e85d6c1f"."""
    next_at: float | None = None
    """When its schedule calls it next (seconds since the epoch); None: it has none, or that is paused."""


class AppRow(msgspec.Struct, frozen=True):
    """GET /api/apps?counts=1 → list of these; `counts` waits a moment where replicas are not known yet."""

    namespace: str
    name: str
    deployed_at: float
    ephemeral: bool
    source: str
    workloads: tuple[WorkloadRow, ...]
    tags: tuple[tuple[str, str], ...] = ()
    """(name, value), as `App(tags=…)` gave them, by name."""
    version: int = 0
    """The newest that takes traffic; 0 = it has none, since it belongs to a program."""


class ReplicaRow(msgspec.Struct, frozen=True):
    """GET /api/replicas → list of these; what `swell ps --json` prints."""

    id: str
    workload: str
    revision: str
    role: str
    phase: str
    node: str
    pid: int | None
    age_s: float
    in_flight: int
    """Inputs it works on, as the gateways last said; not known for one of more than 64 replicas (0)."""
    memory_mib: float
    why: str
    """Why it is there, or why it is going."""
    applied: tuple[str, ...]
    written: str = ""
    """Its workload as people write it, where it is a variant that is there: `namespace/app/Model(name="x")`."""
    gang: str = ""
    """Of a member of a gang: the id of its leader."""
    rank: int | None = None
    """In that gang."""
    gpus: tuple[str, ...] = ()
    """Ids of the devices that it has, as `CUDA_VISIBLE_DEVICES` has them."""


class LogRow(msgspec.Struct, frozen=True):
    """GET /api/logs?app=&since_s=&request=&follow=1&tail=100 → lines of these (application/x-ndjson)."""

    at: float
    pool: str
    replica: str
    request: str
    stream: str
    """"out", "err", or "sys" (Swell's own notes about the replica)."""
    text: str
    rank: int | None = None
    """Of a member of a gang: which it is."""


class WhyStep(msgspec.Struct, frozen=True):
    """One line of an answer: what took this time, in order."""

    what: str
    ms: float
    note: str = ""


class Why(msgspec.Struct, frozen=True):
    """GET /api/requests/{id}: where the time went and what it cost."""

    request: str
    workload: str
    method: str
    status: int
    error: str
    received_at: float
    total_ms: float
    cold: bool
    replica: str
    steps: tuple[WhyStep, ...]
    reasons: tuple[str, ...]
    """The decisions behind it, in words ("1 request waits, one replica takes 1 → 1 replica")."""
    cpu_us: int
    """-1: not known, as of a request that was cut off."""
    marginal_usd: float
    idle_share_usd: float
    """This request's share of the idle time of the replicas that served it."""
    cold_share_usd: float
    """Its share of their start-up time."""
    ended: str = ""
    """What ended its replica since, in words, where that was not asked to end: "its process crashed: exit code 3"."""
    key: str = ""
    """Id of the API key it came with; empty for none, and for the server's own."""
    written: str = ""
    """Its workload as people write it, as of a replica."""


class RequestRow(msgspec.Struct, frozen=True):
    """GET /api/requests?app=&limit=20 → list of these: the newest requests whose records are kept, newest first."""

    id: str
    workload: str
    method: str
    received_at: float
    status: int
    error: str
    total_ms: float
    cold: bool
    cost_usd: float
    key: str = ""
    """Id of the API key it came with."""
    written: str = ""
    """Its workload as people write it, as of a replica."""


class PoolUsage(msgspec.Struct, frozen=True):
    """GET /api/usage?since_s= → list of these."""

    pool: str
    requests: int
    errors: int
    cold: int
    cpu_s: float
    replica_s: float
    template_s: float
    starting_s: float
    busy_s: float
    memory_gib_s: float
    cost_usd: float
    written: str = ""
    """Its workload as people write it, as of a replica."""


class KeyUsage(msgspec.Struct, frozen=True):
    """GET /api/usage/keys?since_s= → list of these: what came to a pool with an API key."""

    key: str
    """Its id."""
    name: str
    """Empty where the caller's key may not manage it."""
    pool: str
    requests: int
    errors: int
    cpu_s: float
    """Of those whose replica told it."""
    cost_usd: float
    """Marginal: what these requests themselves used. Idle time is nobody's."""


class NewKey(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """POST /api/keys: an API key to be made."""

    name: str
    scopes: tuple[str, ...]
    """Each "call:NAMESPACE/APP", "deploy:NAMESPACE/APP" or "admin:NAMESPACE/APP", with "*" for all, or "admin"."""
    expires_s: float | None = None
    """It works for so long; None: until it is revoked."""
    limits: Limits = Limits()


class KeyRow(msgspec.Struct, frozen=True):
    """GET /api/keys → list of these; DELETE /api/keys/{key} → one. Times in seconds since the epoch."""

    id: str
    name: str
    scopes: tuple[str, ...]
    state: Literal["works", "expired", "revoked"]
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    limits: Limits
    made_by: str = ""
    """Id of the key that it was made with: it ends when that does, and counts at its limits, too."""


class MadeKey(msgspec.Struct, frozen=True):
    """What POST /api/keys answers."""

    row: KeyRow
    key: str
    """The key itself. It is told this once: no server has it."""


class LimitRow(msgspec.Struct, frozen=True):
    """GET /api/limits → list of these; what `swell limits --json` prints."""

    name: str
    value: float
    unit: str
    owner: str
    """"server", "each gateway" (of the server, where it has several), a workload, or "key NAME (ID)"."""
    source: str
    """"default", "flag", "environment", "file:PATH", "program", "@swell.limit", "swell key create", or "fixed"."""
    codes: tuple[str, ...] = ()
    """Of the errors that are met over it."""
