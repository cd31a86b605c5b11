"""What a user deployed: apps, workloads, and the immutable revisions they point at."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any, Literal

import msgspec

from swell.model.caching import Caching
from swell.model.environment import Environment
from swell.model.gang import Gang
from swell.model.isolation import Isolation
from swell.model.limits import UNLIMITED, Limits
from swell.model.openai import MAIN, Offer
from swell.model.owner import Owner
from swell.model.resources import Needs
from swell.model.retrying import Retrying
from swell.model.schedule import Schedule
from swell.model.secret import SecretUse
from swell.model.subscription import Subscription
from swell.model.tensors import Tensors
from swell.model.variant import DIGEST_LENGTH, MARK, Parameter, Value, base_of, written
from swell.model.volume import VolumeUse

DEFAULT_NAMESPACE = "default"

WebKind = Literal["endpoint", "asgi", "server", "wsgi"]


class Web(msgspec.Struct, frozen=True):
    """How a method is exposed as a web endpoint."""

    kind: WebKind
    """endpoint: a plain function; asgi, wsgi: returns such an app; server: starts a process that listens."""
    label: str
    """Host label (`{label}.localhost`) and path (`/web/{label}/…`)."""
    http_method: str = "GET"
    port: int | None = None
    docs: bool = False
    needs_key: bool = False
    """True: callers must send the API key even on loopback (`requires_proxy_auth`)."""
    startup_timeout_s: float = 5.0


class Batch(msgspec.Struct, frozen=True):
    """Inputs of single calls are given to the code together, as lists."""

    max_size: int
    """Inputs of one batch."""
    wait_ms: int
    """How long an input may wait for others while the code could have it."""

    @property
    def max_inputs(self) -> int:
        """Inputs that a replica needs room for: one batch that runs, and one that fills meanwhile."""
        return 2 * self.max_size

    def side_by_side(self, max_inputs: int) -> int:
        """Batches that run at the same time in a replica with so much room: all that fit, beside the one that fills."""
        return max(1, max_inputs // self.max_size - 1)


class Method(msgspec.Struct, frozen=True):
    """One callable of an entry point: the function itself (name == entry name) or a class's method."""

    name: str
    generator: bool = False
    asynchronous: bool = False
    web: Web | None = None
    tensors: Tensors | None = None
    """It is a model of the Open Inference Protocol V2, with these inputs and outputs."""
    batch: Batch | None = None
    """The only method of its entry, where it has one."""
    openai: Offer | None = None
    """It is a model of the OpenAI API."""
    cache: Caching | None = None

    @property
    def stacked(self) -> tuple[str, ...]:
        """Arguments that hold a request's rows: a batch is given those of all in one. Others it is given as lists."""
        if self.batch is None:
            return ()
        if self.tensors is not None:
            return tuple(each.name for each in self.tensors.inputs)
        return () if self.openai is None else (MAIN[self.openai.api],)


class Entry(msgspec.Struct, frozen=True):
    """Where user code is found inside the bundle, and what it offers."""

    module: str
    """Import name inside the bundle, e.g. "ocr" or "package.module"."""
    qualname: str
    """Function or class name in the module."""
    kind: Literal["function", "cls"]
    methods: tuple[Method, ...]
    enter_snap: tuple[str, ...] = ()
    """Names of `@enter(snap=True)` methods: run once in the template, before it is forked."""
    enter: tuple[str, ...] = ()
    """Names of `@enter()` methods: run in each replica."""
    exit: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    """Attributes that whoever calls a class gives its objects."""


class Revision(msgspec.Struct, frozen=True):
    """What to run. Its `id` is a digest of its content, so a revision never changes."""

    environment: Environment
    bundle: str
    """Digest of the source bundle blob."""
    entry: Entry
    needs: Needs = Needs()
    max_inputs: int = 1
    """Inputs one replica works on at the same time (hard)."""
    target_inputs: int = 1
    """Inputs per replica that scaling aims at (≤ max_inputs)."""
    timeout_s: float = 300.0
    """Of one input, from when a replica has it: neither waiting nor starts count."""
    timeout_max_s: float = 0.0
    """Each report of progress gives an input `timeout_s` anew, until it has had so much; 0: it gives nothing."""
    startup_timeout_s: float = 300.0
    """A replica that is not ready by then is stopped, with that reason."""
    template: bool = True
    """May a loaded template be kept and forked?"""
    snapshot: bool = False
    """Its author asked for a snapshot: `@enter(snap=True)` hooks run in the template, and when memory for
    templates is short it goes after those nobody asked for."""
    single_use: bool = False
    """The replica is replaced after one input."""
    retrying: Retrying = Retrying()
    gang: Gang | None = None
    """Each of its queued calls is worked on by several replicas, which take no other input; `single_use` goes with
    it."""
    isolation: Isolation | None = None
    """It runs in a sandbox; None: as a process of the server's own user."""
    secrets: tuple[SecretUse, ...] = ()
    """What its process is given beside its environment; of a variable that several have, the last one counts."""
    parameters: tuple[Value, ...] = ()
    """Values that its object has before any hook runs; those that are not given have their defaults."""
    volumes: tuple[VolumeUse, ...] = ()
    """What it finds at which path, the outermost first."""

    @property
    def id(self) -> str:
        return revision_id(self)

    @property
    def longest_s(self) -> float:
        """What one input may take at most."""
        return max(self.timeout_s, self.timeout_max_s)

    @property
    def gives_time(self) -> bool:
        """Does a report of progress move an input's deadline?"""
        return self.timeout_max_s > self.timeout_s

    @property
    def secret_uses(self) -> tuple[SecretUse, ...]:
        """What its process is given, and what its environment is built with."""
        return (*self.secrets, *(use for call in self.environment.build_calls for use in call.secrets))

    @property
    def batch(self) -> Batch | None:
        """Of its batched method, which is the only one then."""
        return next((method.batch for method in self.entry.methods if method.batch is not None), None)

    @property
    def one_at_a_time(self) -> bool:
        """Does a replica run one piece of its code at a time: one input, or one batch?"""
        batch = self.batch
        return self.max_inputs == 1 or (batch is not None and batch.side_by_side(self.max_inputs) == 1)


def revision_id(revision: Revision) -> str:
    """ "rv-" and hex digits of its digest: 12, or more where callers chose of the content. Not cached: keep it."""
    content = _without_later(msgspec.to_builtins(revision))
    length = DIGEST_LENGTH if revision.parameters else 12
    return "rv-" + hashlib.sha256(msgspec.msgpack.encode(content)).hexdigest()[:length]


LATER = frozenset(
    {
        *("batch", "build_calls", "cache", "container_steps", "gang", "isolation", "openai", "parameters", "secrets"),
        *("tensors", "timeout_max_s", "volumes"),
    }
)
"""Fields, wherever in a revision they are, that came after the first release. While they are empty they are no part of
the content: what was deployed before keeps its id."""


def _without_later(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_later(each) for name, each in value.items() if each or name not in LATER}
    return [_without_later(each) for each in value] if isinstance(value, list | tuple) else value


class Scaling(msgspec.Struct, frozen=True):
    """How many replicas a workload may have and when an idle one goes."""

    min_replicas: int = 0
    max_replicas: int = 100
    buffer_replicas: int = 0
    """Extra ready replicas beside the busy ones while the workload is in use."""
    idle_s: float = 60.0
    """A replica unneeded for this long is stopped (`scaledown_window`)."""


class Options(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a variant of a workload has otherwise than its author wrote. None: as written."""

    cpu: float | None = None
    cpu_limit: float | None = None
    """Goes with `cpu`: where that is given and this is not, there is none."""
    memory_mib: int | None = None
    memory_limit_mib: int | None = None
    """Goes with `memory_mib`."""
    gpu: tuple[str, ...] | None = None
    variables: tuple[tuple[str, str], ...] = ()
    """Environment variables, over those there are."""
    secrets: tuple[SecretUse, ...] | None = None
    """All that it gets."""
    retrying: Retrying | None = None
    max_replicas: int | None = None
    buffer_replicas: int | None = None
    idle_s: float | None = None
    timeout_s: float | None = None
    timeout_max_s: float | None = None
    max_inputs: int | None = None
    target_inputs: int | None = None
    batch: Batch | None = None


NO_OPTIONS = Options()
_ARGUMENTS = {
    "memory_mib": "memory",
    "variables": "env",
    "retrying": "retries",
    "max_replicas": "max_containers",
    "buffer_replicas": "buffer_containers",
    "idle_s": "scaledown_window",
}
"""Options that are called otherwise where they are given, but for the unit at their end."""


class Variant(msgspec.Struct, frozen=True, omit_defaults=True):
    """Parameters and options of a workload. Every combination has replicas of its own."""

    parameters: tuple[Value, ...] = ()
    """By name."""
    options: Options = NO_OPTIONS

    @property
    def name(self) -> str:
        """What follows the workload's own name: a digest of the content."""
        # By name, and only what is said: an option that comes later changes no name.
        unsaid = {field.name: field.default for field in msgspec.structs.fields(Options)}
        options = {n: v for n, v in msgspec.structs.asdict(self.options).items() if v != unsaid[n]}
        content = msgspec.to_builtins((self.parameters, options))
        return MARK + hashlib.sha256(msgspec.msgpack.encode(content)).hexdigest()[:DIGEST_LENGTH]


PLAIN = Variant()
"""What was written."""


class Split(msgspec.Struct, frozen=True):
    """Another revision of a workload that can be reached beside the one that takes its traffic."""

    revision: str
    version: int
    """Of the app, that the revision was deployed with."""
    percent: float = 0.0
    """Its share of the traffic; the rest goes to the workload's own revision."""
    header: tuple[str, str] | None = None
    """Requests with this header and value go there, whatever the shares."""
    tag: str = ""
    """Name that leads to it alone."""
    warm: bool = False
    """It has as many replicas as the revision that takes the traffic has ready: it is to follow it at once."""


class Workload(msgspec.Struct, frozen=True):
    """A name in an app: the revision it wants, its scaling, and what the door must know of it."""

    namespace: str
    app: str
    name: str
    revision: str
    """Id of the revision that takes its traffic."""
    scaling: Scaling = Scaling()
    version: int = 0
    """Of the app, that `revision` was deployed with; 0 where the app has no versions."""
    limits: Limits = UNLIMITED
    """What its callers may send, all together."""
    splits: tuple[Split, ...] = ()
    """Other revisions that are wanted beside it; one may name the workload's own, to give it a header or a tag."""
    hash_header: str = ""
    """Requests with the same value of this header go to the same revision; empty: each is drawn anew."""
    variant: Variant = PLAIN
    """What makes it another one than the workload of that name that was deployed."""
    schedule: Schedule | None = None
    """When it is called by itself, without arguments."""
    subscription: Subscription | None = None
    """What it is called for, with an event each time."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.app}/{self.name}"

    @property
    def base(self) -> str:
        """The name of the workload that it is a variant of; its own where it is none."""
        return base_of(self.name)

    @property
    def written(self) -> str:
        """Its name as people know it: `Model(name="x")`."""
        if self.variant == PLAIN:
            return self.name
        options: dict[str, object] = msgspec.to_builtins(self.variant.options)
        said = ((_ARGUMENTS.get(name, name.removesuffix("_s")), value) for name, value in options.items())
        more = ", ".join(f"{name}={value:g}" if isinstance(value, int | float) else f"{name}=…" for name, value in said)
        return f"{self.base}({written(self.variant.parameters)})" + (f".with_options({more})" if more else "")

    @property
    def pool(self) -> str:
        """Of the revision that takes the traffic."""
        return pool_key(self.key, self.revision)

    @property
    def wants(self) -> tuple[str, ...]:
        """Ids of the revisions that are wanted, the main one first."""
        return tuple(dict.fromkeys((self.revision, *(split.revision for split in self.splits))))

    @property
    def pools(self) -> tuple[str, ...]:
        """Those of all revisions that are wanted, the main one first."""
        return tuple(pool_key(self.key, revision) for revision in self.wants)


class App(msgspec.Struct, frozen=True):
    """One atomic set of workloads and their revisions: what deploy makes."""

    namespace: str
    name: str
    workloads: tuple[Workload, ...]
    revisions: tuple[Revision, ...]
    tags: tuple[tuple[str, str], ...] = ()
    owner: Owner | None = None
    """The process it belongs to (`swell run`, `with app.run()`): when that has ended, the app is stopped."""
    source: str = ""
    """File it was deployed from, as the user named it; shown, never read."""
    previous: tuple[Workload, ...] = ()
    """Workloads as they were: they have the traffic until those that follow them are ready."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def version(self) -> int:
        """The newest that takes traffic; 0 where it has none: it belongs to a program, or was put here before there
        were versions."""
        return max((workload.version for workload in self.workloads), default=0)


def moved(app: App, names: Collection[str]) -> App:
    """The app once these workloads follow those that were before them."""
    previous = tuple(workload for workload in app.previous if workload.name not in names)
    return only_wanted(msgspec.structs.replace(app, previous=previous))


def with_variants(
    app: App, added: Collection[Workload], revisions: Collection[Revision], removed: Collection[str]
) -> App:
    """The app with these workloads, in place of those of their names, and without those that are removed."""
    gone = {*removed, *(workload.name for workload in added)}
    kept = (workload for workload in app.workloads if workload.name not in gone)
    previous = tuple(workload for workload in app.previous if workload.name not in gone)
    return only_wanted(
        msgspec.structs.replace(
            app, workloads=(*kept, *added), revisions=(*app.revisions, *revisions), previous=previous
        )
    )


def only_wanted(app: App) -> App:
    """The app with the revisions that its workloads want, each once."""
    wanted = {revision for workload in (*app.workloads, *app.previous) for revision in workload.wants}
    revisions = {id: revision for revision in app.revisions if (id := revision.id) in wanted}
    return msgspec.structs.replace(app, revisions=tuple(revisions.values()))


class Version(msgspec.Struct, frozen=True):
    """One deploy of an app that stays: what `rollback` goes back to. It never changes."""

    number: int
    """v1, v2, … of its app."""
    at: float
    how: str
    """What made it: "deploy", "rollback to v2"."""
    tag: str
    """What its author calls it."""
    app: App
    over: int = 0
    """The version that took the traffic when this one was deployed; 0 = there was none, or it is not known."""
    over_served: bool = True
    """All functions of that had their traffic then, and none failed to start."""


def pool_key(workload_key: str, revision: str) -> str:
    """The unit of demand, scale and templates: one revision of one workload, "namespace/app/name@rv-…"."""
    return f"{workload_key}@{revision}"


def workload_of(pool: str) -> str:
    """The workload key a pool belongs to."""
    return pool.partition("@")[0]


def app_of(pool: str) -> tuple[str, str]:
    """(namespace, app) of a workload or a pool."""
    namespace, _, rest = workload_of(pool).partition("/")
    return namespace, rest.partition("/")[0]


def revision_of(pool: str) -> str:
    """The revision id a pool runs."""
    return pool.partition("@")[2]


def model_name(namespace: str, app: str, workload: str, method: str, is_class: bool) -> str:
    """What the Open Inference Protocol calls a method: like the label of a web endpoint, but as it is written."""
    name = f"{app}--{workload}-{method}" if is_class else f"{app}--{workload}"
    return name if namespace == DEFAULT_NAMESPACE else f"{namespace}--{name}"


def shown(key: str) -> str:
    """The key of an app, a workload or a pool as people write it: the default namespace goes without saying."""
    return key.removeprefix(f"{DEFAULT_NAMESPACE}/")
