"""What is wrong with a document to deploy? Everything at once, in sentences; nothing wrong is an empty list.

The schema has checked types already. Here is what a type cannot say: names, ranges, and how the
parts of an app refer to each other.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from swell.decide.schedules import problem as schedule_problem
from swell.model import gpu
from swell.model.caching import Caching
from swell.model.environment import Environment
from swell.model.errors import SwellError
from swell.model.gang import SIZE_MAX
from swell.model.isolation import LAYERS, Isolation
from swell.model.limits import (
    BATCH_SIZE_MAX,
    BATCH_WAIT_MS_MAX,
    COUNT_MAX,
    HTTP_METHODS,
    SECONDS_MAX,
    limits_problem,
    vary_problem,
)
from swell.model.names import name_problem
from swell.model.resources import Needs
from swell.model.retrying import Retrying
from swell.model.secret import APP_OWNED, SecretUse
from swell.model.subscription import DELIVER, OwnSource
from swell.model.subscription import check as check_subscription
from swell.model.variant import read
from swell.model.volume import VolumeUse, mount_problems
from swell.model.workload import PLAIN, App, Batch, Entry, Method, Options, Revision, Scaling, Web, Workload

MEMORY_MAX_MIB = 1 << 30
CORES_MAX = 100_000.0
TEXT_MAX = 4096
"""Characters of one tag, path, option or environment variable's name."""
STEP_MAX = 1 << 20
"""Characters of one command, or of a Dockerfile."""

_WORKLOAD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}\Z")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_DIGEST = re.compile(r"sha256-[0-9a-f]{64}\Z")
_PYTHON = re.compile(r"\d{1,2}\.\d{1,2}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def problems(app: App) -> list[str]:
    """Everything that is wrong with an app, each a sentence that names where."""
    return [*_app(app), *_workloads(app), *_revisions(app)]


def check_options(options: Options) -> None:
    """Refuse options that nothing could be run with."""
    wrong = list(_options(options))
    if wrong:
        more = f" (the first of {len(wrong)} problems)" if len(wrong) > 1 else ""
        detail = "\n".join(wrong) if more else ""
        raise SwellError("bad_option", f"These options cannot be had: {wrong[0]}{more}.", status=422, detail=detail)


def _options(options: Options) -> Iterator[str]:
    given = {name: value for name, value in msgspec.structs.asdict(options).items() if value is not None}
    yield from _needs(Needs(**{name: given[name] for name in Needs.__struct_fields__ if name in given}))
    for name, least in (("max_replicas", 1), ("buffer_replicas", 0), ("max_inputs", 1), ("target_inputs", 1)):
        if name in given:
            yield from _number(name, given[name], least, COUNT_MAX)
    for name in ("idle_s", "timeout_s", "timeout_max_s"):
        if name in given:
            yield from _number(name, given[name], 0, SECONDS_MAX, above=True)
    if options.retrying is not None:
        yield from _retrying(options.retrying)
    if options.batch is not None:
        yield from _batch_size(options.batch)
    for one, other in (("cpu_limit", "cpu"), ("memory_limit_mib", "memory_mib")):
        if one in given and other not in given:
            yield f"{one} goes with {other}"
    yield from _variables(options.variables)
    yield from _secrets(options.secrets or ())


def tag_problems(tag: str) -> list[str]:
    """What is wrong with what a version is called."""
    return [*_text("tag", tag)]


def _app(app: App) -> Iterator[str]:
    for kind, name in (("namespace", app.namespace), ("app", app.name)):
        problem = name_problem(kind, name)
        if problem is not None:
            yield problem
    yield from _pairs("app: tag", app.tags)
    yield from _text("app: source", app.source)


def _workloads(app: App) -> Iterator[str]:
    given = {revision.id for revision in app.revisions if _has_id(revision)}
    for name in _repeated(workload.name for workload in app.workloads):
        yield f"workload {name!r} is there more than once"
    for workload in app.workloads:
        yield from (f"workload {workload.name[:80]!r}: {problem}" for problem in _workload(app, workload, given))


def _workload(app: App, workload: Workload, given: set[str]) -> Iterator[str]:
    if not _WORKLOAD.match(workload.name):
        yield "is no name: use up to 63 letters, digits, dashes and underscores"
    if (workload.namespace, workload.app) != (app.namespace, app.name):
        yield f"belongs to {workload.namespace[:80]}/{workload.app[:80]}, not to this app"
    if workload.revision not in given and len(given) == len(app.revisions):
        yield f"wants the revision {workload.revision[:80]!r}, which is not given"
    if workload.variant != PLAIN:
        yield "is a variant: those are made when somebody asks for them"
    yield from _scaling(workload.scaling)
    yield from _schedule(app, workload)
    yield from _gang_scaling(app, workload)
    yield from _subscription(app, workload)
    problem = limits_problem(workload.limits)
    if problem is not None:
        yield f"limits: {problem}"
    if workload.limits.timeout_s:
        yield "limits: timeout_s is of keys; a function has its own timeout_s"


def _schedule(app: App, workload: Workload) -> Iterator[str]:
    if workload.schedule is None:
        return
    problem = schedule_problem(workload.schedule)
    if problem is not None:
        yield f"schedule={type(workload.schedule).__name__}(…): {problem}"
    if not _is_called(app, workload):
        yield "schedule: is of a function that is called and returns once"


def _subscription(app: App, workload: Workload) -> Iterator[str]:
    if workload.subscription is None:
        return
    try:
        check_subscription(workload.subscription)
    except SwellError as error:
        yield f"trigger: {error.message}"
    if workload.subscription.secret is not None:
        yield from _secrets((workload.subscription.secret,))
    source = workload.subscription.source
    if isinstance(source, OwnSource) and not _delivers(app, source.name):
        yield f"trigger: names {source.name[:80]!r}, and the app has no swell.Source of that name"
    if workload.schedule is not None:
        yield "trigger: is given beside schedule, and a function has one of them"
    if not _is_called(app, workload):
        yield "trigger: is of a function that is called and returns once"


def _delivers(app: App, name: str) -> bool:
    """Is there a class of that name that finds events?"""
    revisions = {each.revision for each in app.workloads if each.name == name}
    entries = [each.entry for each in app.revisions if _has_id(each) and each.id in revisions]
    return any(e.kind == "cls" and any(m.name == DELIVER and not m.generator for m in e.methods) for e in entries)


def _is_called(app: App, workload: Workload) -> bool:
    """Is it a function that is called, and returns once?"""
    entries = (revision.entry for revision in app.revisions if _has_id(revision) and revision.id == workload.revision)
    queueable = [
        (e.kind, [each.name for each in e.methods if each.web is None and not each.generator]) for e in entries
    ]
    return all(each == ("function", [workload.name]) for each in queueable)


def _gang_scaling(app: App, workload: Workload) -> Iterator[str]:
    scaling = workload.scaling
    gangs = (revision.gang for revision in app.revisions if _has_id(revision) and revision.id == workload.revision)
    if any(gangs) and (scaling.min_replicas or scaling.buffer_replicas):
        yield "gang: its replicas start for a call and end with it: min_replicas and buffer_replicas are 0"


def _scaling(scaling: Scaling) -> Iterator[str]:
    yield from _number("min_replicas", scaling.min_replicas, 0, COUNT_MAX)
    yield from _number("max_replicas", scaling.max_replicas, 1, COUNT_MAX)
    yield from _number("buffer_replicas", scaling.buffer_replicas, 0, COUNT_MAX)
    yield from _number("idle_s", scaling.idle_s, 0, SECONDS_MAX)
    if scaling.min_replicas > scaling.max_replicas:
        yield f"min_replicas {scaling.min_replicas} is more than max_replicas {scaling.max_replicas}"


def _revisions(app: App) -> Iterator[str]:
    ids = [revision.id for revision in app.revisions if _has_id(revision)]
    for id in _repeated(ids):
        yield f"revision {id} is given more than once"
    for id in sorted(set(ids) - {workload.revision for workload in app.workloads}):
        yield f"revision {id} is given but no workload wants it"
    told = {workload.name for workload in app.workloads}
    for revision in app.revisions:
        where = f"revision of {revision.entry.module[:80]}:{revision.entry.qualname[:80]}"
        yield from (f"{where}: {problem}" for problem in _revision(revision, told))
    webs = [m.web for r in app.revisions for m in r.entry.methods if m.web is not None]
    for label in _repeated(web.label for web in webs):
        yield f"web label {label[:80]!r} is there more than once"


def _revision(revision: Revision, told: set[str]) -> Iterator[str]:
    """`told`: the workloads' names, whose problems are told already."""
    yield from _environment(revision.environment)
    if not _DIGEST.match(revision.bundle):
        yield f"bundle {revision.bundle[:80]!r} is no digest (sha256- and 64 hex digits)"
    yield from _entry(revision.entry, told)
    yield from _needs(revision.needs)
    yield from _number("max_inputs", revision.max_inputs, 1, COUNT_MAX)
    yield from _number("target_inputs", revision.target_inputs, 1, COUNT_MAX)
    if revision.target_inputs > revision.max_inputs:
        yield f"target_inputs {revision.target_inputs} is more than max_inputs {revision.max_inputs}"
    yield from _number("timeout_s", revision.timeout_s, 0, SECONDS_MAX, above=True)
    yield from _number("timeout_max_s", revision.timeout_max_s, 0, SECONDS_MAX)
    yield from _number("startup_timeout_s", revision.startup_timeout_s, 0, SECONDS_MAX, above=True)
    yield from _gang(revision)
    yield from _retrying(revision.retrying)
    if revision.isolation is not None:
        yield from _isolation(revision.isolation, revision.needs)
        if revision.environment.build_calls:
            yield "it runs in a sandbox, and Image.run_function would run outside of it: do that in an @enter method"
    yield from _secrets(revision.secret_uses)
    if revision.parameters:
        yield "has values of parameters: those are given when it is called"
    yield from _volumes(revision.volumes, revision.isolation or Isolation())


def _gang(revision: Revision) -> Iterator[str]:
    if revision.gang is None:
        return
    yield from _number("gang: size", revision.gang.size, 1, SIZE_MAX)
    yield from _number("gang: least", revision.gang.least, 0, max(revision.gang.size, 0))
    method = revision.entry.methods[0] if revision.entry.methods else None
    queued = method is not None and method.web is None and method.batch is None and method.cache is None
    if revision.entry.kind != "function" or not queued or (method is not None and method.generator):
        yield "gang: is of a function that is called and returns once"
    if not revision.single_use or revision.max_inputs != 1:
        yield "gang: its replicas are of single_use, with one input"
    if revision.isolation is not None:
        yield "gang: its replicas meet on the node's network, and share a folder of it: they cannot be in a sandbox"


def _volumes(uses: tuple[VolumeUse, ...], isolation: Isolation) -> Iterator[str]:
    for use in uses:
        # One would hide the other; and what lies where code may write may be a link by the next start.
        for folder in map(posixpath.normpath, (*isolation.readable, *isolation.writable)):
            if f"{use.path}/".startswith(f"{folder}/") or f"{folder}/".startswith(f"{use.path}/"):
                yield (
                    f"volume {use.name[:80]!r} is to be at {use.path[:80]!r}, and @isolated names {folder[:80]!r}: "
                    "choose a path that is not in it, and that it is not in"
                )
        for kind, name in (("namespace", use.namespace), ("volume", use.name)):
            problem = name_problem(kind, name)
            if problem is not None:
                yield problem
        yield from (f"volume {use.name[:80]!r}: {problem}" for problem in mount_problems(use))
    for path in _repeated(use.path for use in uses):
        yield f"two volumes are to be at {path[:80]!r}"


def _secrets(uses: tuple[SecretUse, ...]) -> Iterator[str]:
    for use in uses:
        owned = use.name.startswith(APP_OWNED)
        for kind, name in (("namespace", use.namespace), *(() if owned else (("secret", use.name),))):
            problem = name_problem(kind, name)
            if problem is not None:
                yield problem
        for text in (use.name, *use.required):
            yield from _text("secret", text)


def _environment(environment: Environment) -> Iterator[str]:
    if not environment.interpreter.startswith("/"):
        yield f"interpreter {environment.interpreter[:80]!r} is no absolute path"
    yield from _text("interpreter", environment.interpreter)
    if not _PYTHON.match(environment.python):
        yield f"python {environment.python[:80]!r} is no version such as '3.11'"
    for kind, words in (("package", environment.packages), ("index option", environment.index_options)):
        for word in words:
            if not word.strip():
                yield f"{kind} is empty"
            yield from _text(kind, word)
    yield from _text("workdir", environment.workdir or "")
    yield from _variables(environment.variables)
    for call in environment.build_calls:
        for kind, dotted in (("module", call.module), ("function", call.qualname)):
            if not all(part.isidentifier() for part in dotted.split(".")):
                yield f"run_function: {kind} {dotted[:80]!r} is no Python name that can be imported"
        yield from _number("run_function: timeout_s", call.timeout_s, 0, SECONDS_MAX, above=True)
        yield from _variables(call.variables)
    for step in environment.container_steps:
        if not step.method.isidentifier():
            yield f"{step.method[:80]!r} is no method of an image"
        for text in (*step.words, *(value for _, value in step.options)):
            if len(text) > STEP_MAX or "\0" in text:
                yield f"Image.{step.method}: its text has a NUL character, or over {STEP_MAX} others"


def _variables(variables: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for name in _repeated(name for name, _ in variables):
        yield f"environment variable {name[:80]!r} is there more than once"
    for name, value in variables:
        if not name or "=" in name:
            yield f"environment variable {name[:80]!r} has no name the system takes"
        yield from _text("environment variable", name)
        if "\0" in value:
            yield f"environment variable {name[:80]!r} has a NUL character in its value"


def _entry(entry: Entry, told: set[str]) -> Iterator[str]:
    for kind, dotted in (("module", entry.module), ("qualname", entry.qualname)):
        if not all(part.isidentifier() for part in dotted.split(".")):
            yield f"{kind} {dotted[:80]!r} is no Python name that can be imported"
    if not entry.methods:
        yield "has no method that could be called"
    if entry.kind == "function" and len(entry.methods) > 1:
        yield f"is a function and has {len(entry.methods)} methods"
    for name in _repeated(method.name for method in entry.methods):
        yield f"method {name[:80]!r} is there more than once"
    batched = [method for method in entry.methods if method.batch is not None]
    if batched and len(entry.methods) > 1:
        yield f"method {batched[0].name[:80]!r} is batched and not the only one"
    for method in entry.methods:
        # A function's one method is called by the name of its workload, which need not be Python's.
        if not (entry.kind == "function" and (method.name in told or _WORKLOAD.match(method.name))):
            yield from _identifier(method)
        yield from _method(method)
    yield from _parameters(entry)
    for name in (*entry.enter_snap, *entry.enter, *entry.exit):
        if not name.isidentifier():
            yield f"hook {name[:80]!r} is no Python identifier"


def _parameters(entry: Entry) -> Iterator[str]:
    if entry.parameters and entry.kind == "function":
        yield "is a function and has parameters, which are of classes"
    for name in _repeated(parameter.name for parameter in entry.parameters):
        yield f"parameter {name[:80]!r} is there more than once"
    for parameter in entry.parameters:
        if not parameter.name.isidentifier():
            yield f"parameter {parameter.name[:80]!r} is no Python identifier"
        if parameter.default is not None:
            try:
                read(parameter.name, parameter.kind, parameter.default)
            except SwellError as error:
                yield f"default of parameter {error.message.rstrip('.')}"


def _identifier(method: Method) -> Iterator[str]:
    if not method.name.isidentifier():
        yield f"method {method.name[:80]!r} is no Python identifier"


def _method(method: Method) -> Iterator[str]:
    if method.web is not None:
        yield from (f"web endpoint {method.web.label[:80]!r}: {problem}" for problem in _web(method.web))
    if method.batch is not None:
        yield from (f"batched method {method.name[:80]!r}: {problem}" for problem in _batch(method))
    if method.cache is not None:
        yield from (f"cached method {method.name[:80]!r}: {problem}" for problem in _cache(method, method.cache))


def _batch(method: Method) -> Iterator[str]:
    assert method.batch is not None
    if method.web is not None or method.generator:
        yield "a web endpoint or a generator cannot be"
    yield from _batch_size(method.batch)


def _batch_size(batch: Batch) -> Iterator[str]:
    yield from _number("max_size", batch.max_size, 1, BATCH_SIZE_MAX)
    yield from _number("wait_ms", batch.wait_ms, 0, BATCH_WAIT_MS_MAX)


def _cache(method: Method, cache: Caching) -> Iterator[str]:
    if method.web is not None:
        yield "a web endpoint cannot be"
    yield from _number("ttl_s", cache.ttl_s, 0, SECONDS_MAX, above=True)
    for name in cache.vary:
        problem = vary_problem(name)
        if problem is not None or name != name.lower():
            yield f"vary has {name[:80]!r}: {problem or 'use small letters'}"


def _web(web: Web) -> Iterator[str]:
    if not _LABEL.match(web.label):
        yield "its label is no host name: use up to 63 small letters, digits and inner dashes"
    if web.http_method not in HTTP_METHODS:
        yield f"http_method {web.http_method[:80]!r} is none of {', '.join(HTTP_METHODS)}"
    if web.port is not None:
        yield from _number("port", web.port, 1, 65_535)
    elif web.kind == "server":
        yield "a web server needs the port it listens on"
    yield from _number("startup_timeout_s", web.startup_timeout_s, 0, SECONDS_MAX, above=True)


def _needs(needs: Needs) -> Iterator[str]:
    yield from _number("cpu", needs.cpu, 0, CORES_MAX, above=True)
    yield from _number("memory_mib", needs.memory_mib, 1, MEMORY_MAX_MIB)
    if needs.cpu_limit is not None:
        yield from _number("cpu_limit", needs.cpu_limit, 0, CORES_MAX, above=True)
        if needs.cpu_limit < needs.cpu:
            yield f"cpu_limit {needs.cpu_limit:g} is less than cpu {needs.cpu:g}"
    if needs.memory_limit_mib is not None:
        yield from _number("memory_limit_mib", needs.memory_limit_mib, 1, MEMORY_MAX_MIB)
        if needs.memory_limit_mib < needs.memory_mib:
            yield f"memory_limit_mib {needs.memory_limit_mib} is less than memory_mib {needs.memory_mib}"
    for kind in needs.gpu:
        yield from _text("gpu", kind)
        try:
            gpu.ask(kind)
        except ValueError as error:
            yield f"gpu {kind[:80]!r} {error}"
    for port in needs.ports:
        yield from _number("port", port, 1, 65_535)
    for twice in _repeated(map(str, needs.ports)):
        yield f"port {twice} is there more than once"


def _isolation(isolation: Isolation, needs: Needs) -> Iterator[str]:
    for path in (*isolation.readable, *isolation.writable):
        yield from _text("folder", path)
        if not path.startswith("/") or path.strip("/") == "" or ".." in path.split("/"):
            yield f"folder {path[:80]!r} is no absolute path below the root"
    for layer in isolation.optional:
        if layer not in LAYERS:
            yield f"layer {layer[:80]!r} is none of {', '.join(LAYERS)}"
    if isolation.network == "none" and needs.ports:
        yield f"it listens on port {needs.ports[0]}, where nobody reaches a sandbox without a network"


def _retrying(retrying: Retrying) -> Iterator[str]:
    yield from _number("max_retries", retrying.max_retries, 0, COUNT_MAX)
    yield from _number("backoff_coefficient", retrying.backoff_coefficient, 1, 1000)
    yield from _number("initial_delay_s", retrying.initial_delay_s, 0, SECONDS_MAX)
    yield from _number("max_delay_s", retrying.max_delay_s, 0, SECONDS_MAX)


# -- one value ------------------------------------------------------------------------------------


def _number(name: str, value: float, least: float, most: float, above: bool = False) -> Iterator[str]:
    """`above`: `least` itself is too little."""
    if not math.isfinite(value) or value > most or value < least or (above and value == least):
        bounds = f"above {least:g} and at most {most:g}" if above else f"from {least:g} to {most:g}"
        yield f"{name} must be {bounds}, not {value:g}"


def _text(what: str, text: str) -> Iterator[str]:
    if len(text) > TEXT_MAX:
        yield f"{what} has {len(text)} characters, more than {TEXT_MAX}"
    if _CONTROL.search(text):
        yield f"{what} {text[:80]!r} has a control character"


def _pairs(what: str, pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    pairs = list(pairs)
    for name in _repeated(name for name, _ in pairs):
        yield f"{what} {name[:80]!r} is there more than once"
    for name, value in pairs:
        if not name:
            yield f"{what} has no name"
        yield from _text(what, name)
        yield from _text(what, value)


def _repeated(values: Iterable[str]) -> list[str]:
    return [value for value, times in Counter(values).items() if times > 1]


def _has_id(revision: Revision) -> bool:
    """Its id can be computed: an integer beyond 64 bits, reported as out of range, has no encoding."""
    try:
        return bool(revision.id)
    except OverflowError:
        return False
