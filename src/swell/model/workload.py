"""What a user deployed: apps, workloads, and the immutable revisions they point at."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any, Literal

import msgspec

from swell.model.isolation import Isolation
from swell.model.limits import UNLIMITED, Limits
from swell.model.openai import Offer
from swell.model.resources import Needs
from swell.model.secret import SecretUse
from swell.model.tensors import Tensors

DEFAULT_NAMESPACE = "default"
CALLER_REQUIREMENT = "httpx2>=2.10,<3"
"""What code in a built environment needs to call other functions. The SDK adds it to the user's packages."""


class Environment(msgspec.Struct, frozen=True):
    """The Python a revision runs in. No packages → `interpreter` itself is used, nothing is built."""

    interpreter: str
    """Path of the user's own interpreter (local engine) that templates are exec'ed from."""
    python: str
    """"3.11": the version a built environment must have."""
    packages: tuple[str, ...] = ()
    """Requirement lines, in the order given."""
    index_options: tuple[str, ...] = ()
    """Extra words for the installer, e.g. ("--extra-index-url", "…", "--pre")."""
    variables: tuple[tuple[str, str], ...] = ()
    """Environment variables for user code."""
    workdir: str | None = None


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


class Retrying(msgspec.Struct, frozen=True):
    """How often a failed call is tried again, and after how long (seconds)."""

    max_retries: int = 0
    backoff_coefficient: float = 2.0
    initial_delay_s: float = 1.0
    max_delay_s: float = 60.0


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
    isolation: Isolation | None = None
    """It runs in a sandbox; None: as a process of the server's own user."""
    secrets: tuple[SecretUse, ...] = ()
    """What its process is given beside its environment; of a variable that several have, the last one counts."""

    @property
    def id(self) -> str:
        return revision_id(self)

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
    """ "rv-" and 12 hex digits of the content's digest. Not cached: keep it where it is needed often."""
    content = _without_later(msgspec.to_builtins(revision))
    return "rv-" + hashlib.sha256(msgspec.msgpack.encode(content)).hexdigest()[:12]


LATER = frozenset({"batch", "isolation", "openai", "secrets", "tensors"})
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

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.app}/{self.name}"

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


class Owner(msgspec.Struct, frozen=True):
    """A process on this machine; its pid alone may have been given to another since."""

    pid: int
    start_ticks: int
    """Clock ticks after boot at which it started; 0 where the system does not say."""


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


def pool_key(workload_key: str, revision: str) -> str:
    """The unit of demand, scale and templates: one revision of one workload.

    "namespace/app/name@rv-…". A digest of parameters and options is appended after "#" where a
    workload has them, so that every such combination is a pool of its own.
    """
    return f"{workload_key}@{revision}"


def workload_of(pool: str) -> str:
    """The workload key a pool belongs to."""
    return pool.partition("@")[0]


def revision_of(pool: str) -> str:
    """The revision id a pool runs."""
    return pool.partition("@")[2].partition("#")[0]


def model_name(namespace: str, app: str, workload: str, method: str, is_class: bool) -> str:
    """What the Open Inference Protocol calls a method: like the label of a web endpoint, but as it is written."""
    name = f"{app}--{workload}-{method}" if is_class else f"{app}--{workload}"
    return name if namespace == DEFAULT_NAMESPACE else f"{namespace}--{name}"


def shown(key: str) -> str:
    """The key of an app, a workload or a pool as people write it: the default namespace goes without saying."""
    return key.removeprefix(f"{DEFAULT_NAMESPACE}/")
