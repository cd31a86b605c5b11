"""Which workload is a request for? From the host and the path, with near names when there is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Protocol
from urllib.parse import unquote, unquote_plus

import msgspec

from swell.decide.split import Choice
from swell.model.caching import Caching
from swell.model.errors import SwellError
from swell.model.hosts import WEB_HOST, name_of
from swell.model.near import did_you_mean
from swell.model.openai import PATHS
from swell.model.request import Led
from swell.model.subscription import Events
from swell.model.traffic import Branch
from swell.model.variant import Parameter, Value, base_of, chosen, is_variant
from swell.model.workload import DEFAULT_NAMESPACE, Method, Variant, Web, model_name

_PORT = re.compile(r":\d+$")
_QUEUED = re.compile(r"ends|fc-[0-9A-Z]{1,40}(?:/result)?|groups/fg-[0-9A-Z]{1,40}(?:/ends|/inputs/\d{1,9})?")
"""What is below /calls/: the ends of many calls; a call, or its result; a group, what has ended of it, or one of it."""
POST = "POST"
"""How calls are sent."""
SHOWN_MOST = 10
"""Names told where none is near."""
NEAR_AMONG = 200
"""Names compared at most: near names are a courtesy, and a wrong path must stay cheap."""


class Row(Protocol):
    """One workload's name and the pool that takes its traffic."""

    @property
    def namespace(self) -> str: ...
    @property
    def app(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def pool(self) -> str: ...
    @property
    def methods(self) -> tuple[Method, ...]: ...
    @property
    def is_class(self) -> bool: ...
    @property
    def version(self) -> int: ...
    @property
    def branches(self) -> tuple[Branch, ...]: ...
    @property
    def hash_header(self) -> str: ...
    @property
    def parameters(self) -> tuple[Parameter, ...]: ...
    @property
    def events(self) -> Events: ...


class Alone(msgspec.Struct, frozen=True):
    """A row of one revision of a workload, which nothing else takes requests of."""

    namespace: str
    app: str
    name: str
    key: str
    pool: str
    methods: tuple[Method, ...]
    is_class: bool
    version: int
    branches: tuple[Branch, ...] = ()
    hash_header: str = ""
    parameters: tuple[Parameter, ...] = ()
    tag: str = ""
    """What it was asked for by, alone: a tag, or its version."""
    events: Events = ""


class Found(msgspec.Struct, frozen=True):
    """A method of a workload. `path` and `root_path` are the endpoint's own path and the prefix cut off (web only)."""

    workload: str
    pool: str
    method: str
    web: Web | None = None
    path: str = ""
    root_path: str = ""
    face: str = "call"
    """The protocol it is called in, which is the first segment of what its replica is asked for."""
    choices: tuple[Choice, ...] = ()
    """Where there are several revisions: those that have the method; the request itself decides."""
    hash_header: str = ""
    cache: Caching | None = None
    """Its answers are kept."""
    query: str | None = None
    """What is left of the query, where parameters were taken out of it (web only)."""
    led: Led = Led()
    events: Events = ""
    """It is an event for the function, and not a call of it."""


class Own(msgspec.Struct, frozen=True):
    """A path of Swell itself: "api" and "calls" (forwarded to control), "healthz", "metrics", or of a protocol: "v1"
    (decide/openai.py), "v2" (decide/inference.py)."""

    name: str


def _no_hint() -> str:
    return ""


class NoRoute(msgspec.Struct, frozen=True):
    """Nothing there; `message` names the way out."""

    code: str
    said: str
    status: int = 404
    allow: str = ""
    """How what is there is asked for; empty: it may be any way, or nothing is there."""
    hint: Callable[[], str] = _no_hint
    """What is told behind that. Names are compared only for who is told of them."""

    @property
    def message(self) -> str:
        return self.said + self.hint()


class Unmade(msgspec.Struct, frozen=True):
    """A workload with parameters that it has no pool for yet."""

    workload: str
    parameters: tuple[Value, ...]
    found: Found
    """What it is a variant of, for who may ask for it."""

    @property
    def key(self) -> str:
        return self.workload + Variant(self.parameters).name


Destination = Found | Own | NoRoute | Unmade


class Routes:
    """Rows indexed by name and by web label. Replaced as a whole when a row changes."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.apps: dict[tuple[str, str], dict[str, Row]] = {}
        self.labels: dict[str, tuple[Row, Method]] = {}
        self.models: dict[str, tuple[Row, Method]] = {}
        """By the names that the Open Inference Protocol has for them."""
        self.offers: dict[str, dict[str, tuple[Row, Method]]] = {api: {} for api in PATHS.values()}
        """By the part of the OpenAI API, and the model that is named there."""
        for row in sorted(rows, key=lambda r: (r.namespace, r.app, r.name)):
            self.apps.setdefault((row.namespace, row.app), {})[row.name] = row
            if is_variant(row.name):
                # Its labels and models are those of what it is a variant of.
                continue
            for method in row.methods:
                if method.web is not None:
                    # Deploying refuses a label twice; should two be here, the first by name keeps it.
                    self.labels.setdefault(method.web.label.lower(), (row, method))
                if method.tensors is not None:
                    name = model_name(row.namespace, row.app, row.name, method.name, row.is_class)
                    self.models.setdefault(name, (row, method))
                if method.openai is not None:
                    self.offers[method.openai.api].setdefault(method.openai.model, (row, method))
            for branch in row.branches:
                for method in branch.methods if branch.tag else ():
                    if method.web is not None:
                        label = f"{branch.tag}--{method.web.label}".lower()
                        self.labels.setdefault(label, (alone(row, branch, branch.tag), method))

    def seen(self, sees: Callable[[str, str], bool]) -> Routes:
        """Those of the apps (by namespace and name) that somebody `sees`: words made of them tell of no others."""
        return Routes(row for app, rows in self.apps.items() if sees(*app) for row in rows.values())


def found_in(row: Row, method: Method, path: str = "", root_path: str = "", face: str = "call") -> Found:
    """A method of a row, with the revisions among which a request for it is to choose."""
    choices = _choices(row, method, face) if row.branches else ()
    asked = row.hash_header if row.branches else ""
    tag = row.tag if isinstance(row, Alone) else ""
    led = Led(row.version, "tag" if tag else "", tag)
    return Found(
        row.key, row.pool, method.name, method.web, path, root_path, face, choices, asked, cache=method.cache, led=led
    )


def _choices(row: Row, method: Method, face: str) -> tuple[Choice, ...]:
    """The revisions that have a method of that kind, the main one first: it has what the others leave."""
    found, rest = [], 100.0
    for branch in row.branches:
        own = next((each for each in branch.methods if each.name == method.name), None)
        alike = own is not None and (own.web is None) == (method.web is None)
        if face == "v1":
            alike = own is not None and own.openai == method.openai
        elif face == "v2":
            alike = own is not None and own.tensors is not None
        if own is not None and alike and (branch.percent or branch.header):
            found.append(Choice(branch.pool, branch.version, own, branch.percent, branch.header))
            rest -= branch.percent
    return (Choice(row.pool, row.version, method, max(rest, 0.0)), *found) if found else ()


def alone(row: Row, branch: Branch, tag: str = "") -> Alone:
    """One revision of a row, by itself; `tag` is what it is asked for by."""
    return Alone(
        row.namespace,
        row.app,
        row.name,
        row.key,
        branch.pool,
        branch.methods,
        row.is_class,
        branch.version,
        parameters=row.parameters,
        tag=tag,
    )


def _tagged(row: Row, tag: str) -> Alone | None:
    """The revision of a row that a tag or a version (v3) names."""
    for branch in row.branches:
        if tag in (branch.tag, f"v{branch.version}"):
            return alone(row, branch, tag)
    if tag != f"v{row.version}":
        return None
    return alone(row, Branch(row.pool, row.version, row.methods), tag)


def route(routes: Routes, host: str, path: str, query: str = "") -> Destination:
    """Where a request goes. `host` may carry a port; `path` and `query` are as received (percent-encoded)."""
    label = _label(host)
    if label is not None:
        return _web(routes, label, path, "", query)
    first, _, rest = path.removeprefix("/").partition("/")
    match first:
        case "call":
            return _call(routes, host, [unquote(part) for part in rest.split("/")], query)
        case "trigger":
            return _trigger(routes, host, [unquote(part) for part in rest.split("/")])
        case "web" if rest:
            name, slash, below = rest.partition("/")
            return _web(routes, unquote(name).lower(), slash + below or "/", f"/web/{name}", query)
        case "api" | "ui":
            return Own("api")
        case "calls" if _QUEUED.fullmatch(rest):
            return Own(first)
        case "healthz" | "metrics" if not rest:
            return Own(first)
        case "v1" | "v2":
            return Own(first)
    return NoRoute(
        "unknown_path",
        "There is nothing at this path. Functions are called at POST /call/{app}/{function}, "
        f"web endpoints answer {_places('{label}', host)}.",
    )


def _label(host: str) -> str | None:
    """The web label that a host names, lower case; None for every other host."""
    if WEB_HOST not in host.lower():
        return None
    name = name_of(host)
    return name.removesuffix(WEB_HOST) if name.endswith(WEB_HOST) else None


def _web(routes: Routes, label: str, path: str, root_path: str, query: str) -> Destination:
    found = routes.labels.get(label)
    if found is None:
        return NoRoute(
            "unknown_app",
            f"There is no web endpoint {label!r}.",
            hint=lambda: near(label, routes.labels) or " `swell app list` shows where they answer.",
        )
    row, method = found
    if not row.parameters:
        return found_in(row, method, path, root_path)
    names = {parameter.name for parameter in row.parameters}
    pieces = [(piece, _pair(piece)) for piece in query.split("&") if piece]
    rest = "&".join(piece for piece, (name, _) in pieces if name not in names)
    varied = _varied(routes, row, [pair for _, pair in pieces if pair[0] in names])
    if isinstance(varied, NoRoute):
        return varied
    if isinstance(varied, tuple):
        return Unmade(row.key, varied, found_in(row, method, path, root_path))
    return msgspec.structs.replace(found_in(varied, method, path, root_path), query=rest)


def _pair(piece: str) -> tuple[str, str]:
    name, _, value = piece.partition("=")
    return unquote_plus(name), unquote_plus(value)


def _varied(routes: Routes, row: Row, pairs: Sequence[tuple[str, str]]) -> Row | tuple[Value, ...] | NoRoute:
    """The row of a workload with these parameters; the values alone where nobody has asked for them yet."""
    try:
        values = chosen(row.name, row.parameters, pairs)
    except SwellError as error:
        return NoRoute(error.code, error.message, error.status)
    if not values:
        return row
    workloads = routes.apps[row.namespace, row.app]
    found = workloads.get(row.name + Variant(values).name)
    if found is None or not isinstance(row, Alone):
        return values if found is None else found
    # A version has an address of its own: so it has with parameters, as far as it can have these.
    own = _tagged(found, f"v{row.version}")
    if own is None and found.version != workloads[row.name].version:
        # Each set of parameters goes to a new version by itself: this one went before the others.
        words = f"v{row.version} of {row.name} is not reached with these parameters now: v{found.version} is."
        return NoRoute("unknown_version", words)
    if own is None:
        words = f"v{row.version} of {row.name} does not have these parameters, or not of these types."
        return NoRoute("unknown_parameter", words, status=422)
    return msgspec.structs.replace(own, tag=row.tag)


def _places(label: str, host: str) -> str:
    """Where a web endpoint answers, for a caller that came to `host`: the port is the same."""
    port = _PORT.search(host)
    return f"at /web/{label}/ and at http://{label}{WEB_HOST}{port[0] if port else ''}"


def _call(routes: Routes, host: str, parts: Sequence[str], query: str) -> Destination:
    if len(parts) not in (2, 3) or not all(parts):
        return NoRoute("unknown_path", "A call's path is /call/{app}/{function} or /call/{namespace}/{app}/{function}.")
    namespace, app, name = (DEFAULT_NAMESPACE, *parts) if len(parts) == 2 else parts
    app, at, tag = app.partition("@")
    workloads = routes.apps.get((namespace, app))
    if workloads is None:
        return NoRoute(
            "unknown_app",
            f"There is no app {app!r} in namespace {namespace!r}.",
            hint=lambda: (
                near(app, (a for n, a in routes.apps if n == namespace)) or " `swell app list` shows those that are."
            ),
        )
    workload, dot, method_name = name.partition(".")
    row = workloads.get(workload)
    if row is None and base_of(workload) != workload and base_of(workload) in workloads:
        return NoRoute("unknown_variant", _no_variant(namespace, app, base_of(workload)))
    if row is None or row.is_class != bool(dot):
        return _no_function(app, name, workloads)
    if at:
        tagged = _tagged(row, tag)
        if tagged is None:
            return NoRoute("unknown_version", _no_version(row, tag))
        row = tagged
    wanted = method_name if dot else base_of(workload)
    method = next((m for m in row.methods if m.name == wanted), None)
    if method is None:
        return _no_function(app, name, workloads)
    if method.web is not None:
        return NoRoute(
            "unknown_function",
            f"{app}/{name} is a web endpoint and cannot be called. It answers {_places(method.web.label, host)}.",
        )
    return _called(routes, row, method, query)


def _trigger(routes: Routes, host: str, parts: Sequence[str]) -> Destination:
    """A function that takes events; whatever version an event is for, the one with the traffic works on it."""
    if len(parts) not in (2, 3) or not all(parts) or "@" in parts[-2]:
        words = "Events are posted to /trigger/{app}/{function} or /trigger/{namespace}/{app}/{function}."
        return NoRoute("unknown_path", words)
    found = _call(routes, host, parts, "")
    if not isinstance(found, Found):
        return found
    namespace, app, name = (DEFAULT_NAMESPACE, *parts) if len(parts) == 2 else parts
    events = routes.apps[namespace, app][name].events if name in routes.apps[namespace, app] else ""
    if not events:
        words = f"{app}/{name} takes no events: trigger=swell.HttpEvents() has a function take them."
        return NoRoute("unknown_trigger", words, allow=POST)
    return msgspec.structs.replace(found, face="trigger", events=events)


def _called(routes: Routes, row: Row, method: Method, query: str) -> Destination:
    """A method, with the parameters of its class that the query gives. A function has none: what is in its query was
    never read."""
    if not row.is_class or not (query or row.parameters):
        return found_in(row, method)
    pairs = [_pair(piece) for piece in query.split("&") if piece]
    if pairs and is_variant(row.name):
        words = f"{row.key} stands for all its parameters: leave ?{pairs[0][0][:80]}=… away, or ask for another one."
        return NoRoute("unknown_parameter", words, status=422, allow=POST)
    varied = _varied(routes, row, pairs)
    if isinstance(varied, NoRoute):
        return msgspec.structs.replace(varied, allow=POST)
    return Unmade(row.key, varied, found_in(row, method)) if isinstance(varied, tuple) else found_in(varied, method)


def _no_variant(namespace: str, app: str, workload: str) -> str:
    return (
        f"{app}/{workload} is not known with these parameters and options any more, or never was: ask for them "
        f"anew, with POST /api/apps/{namespace}/{app}/workloads/{workload}/variants."
    )


def _no_version(row: Row, tag: str) -> str:
    there = (row.version, *(branch.version for branch in row.branches))
    names = {*(f"v{version}" for version in there if version), *(branch.tag for branch in row.branches if branch.tag)}
    listed = ", ".join(sorted(names)) or "none"
    return (
        f"{tag!r} is neither a tag nor a version of {row.app}/{row.name} that is reached now: those are {listed}. "
        f"`{tagging(row)}` gives a version an address of its own."
    )


def tagging(row: Row) -> str:
    """The command that has another version reached. Its APP/FUNCTION leaves no room for a namespace in front."""
    where = "" if row.namespace == DEFAULT_NAMESPACE else f" --namespace {row.namespace}"
    return f"swell app traffic {row.app}{where} --tag NAME:vN"


def _no_function(app: str, name: str, workloads: dict[str, Row]) -> NoRoute:
    said = f"App {app!r} has no function {name!r}."
    return NoRoute("unknown_function", said, hint=lambda: _offered(name, workloads))


def _offered(name: str, workloads: dict[str, Row]) -> str:
    """What an app has instead."""
    offers = [
        f"{row.name}.{method.name}" if row.is_class else row.name
        for row in workloads.values()
        if not is_variant(row.name)
        for method in row.methods
    ]
    own = [offer for offer in offers if offer.startswith(name + ".")]
    return f" {name} is a class; it has {', '.join(own[:SHOWN_MOST])}." if own else near_or_any(name, offers, "It has")


def wrong_method(wanted: str) -> NoRoute:
    """What is there is asked for by another HTTP method."""
    return NoRoute("method_not_allowed", f"This is asked for with {wanted}.", status=405, allow=wanted)


def near_or_any(name: str, names: Sequence[str], there: str = "") -> str:
    """The names most like this one; where none is, the first that are `there`; "" where there are none."""
    there = there or ("There are" if len(names) > 1 else "There is")
    more = ", …" if len(names) > SHOWN_MOST else ""
    return near(name, names) or (f" {there} {', '.join(names[:SHOWN_MOST])}{more}." if names else "")


def near(name: str, names: Iterable[str]) -> str:
    """ " Did you mean …?" with the names most like this one; "" when none is."""
    alike = (other for other in names if abs(len(other) - len(name)) <= 4)
    return did_you_mean(name, islice(alike, NEAR_AMONG))
