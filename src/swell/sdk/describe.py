"""What is to be deployed? From decorated functions and classes to the document that control takes. No I/O."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from swell.model import workload as model
from swell.model.environment import CALLER_REQUIREMENT, BuildCall, ContainerStep, Environment
from swell.model.errors import SwellError
from swell.model.limits import UNLIMITED
from swell.model.openai import MAIN, Offer
from swell.model.owner import Owner
from swell.model.secret import SecretUse
from swell.model.tensors import shown
from swell.sdk import (
    around,
    building,
    gangs,
    isolation,
    labels,
    marks,
    parameters,
    quantities,
    schedules,
    subscriptions,
    tensors,
)
from swell.sdk.function import is_generator
from swell.sdk.image import Image
from swell.sdk.image_words import variables
from swell.sdk.labels import LABEL_MAX, slug
from swell.sdk.marks import Given, Marks, WebMark
from swell.sdk.refusal import refuse
from swell.sdk.retries import retrying
from swell.sdk.secret import Secret
from swell.sdk.volume import Volume, use

_Raw = Callable[..., Any]


@dataclass(frozen=True)
class Declared:
    """One function or class of an app, as it was registered."""

    name: str
    raw: _Raw
    """The user's function or class."""
    given: Given
    image: Image | None
    include_source: bool
    secrets: tuple[Secret, ...] = ()
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    """By the paths they are at."""

    @property
    def is_class(self) -> bool:
        return inspect.isclass(self.raw)

    def members(self) -> dict[str, tuple[_Raw, Marks]]:
        """What is marked in it, by the name it is called by: the function itself, or a class's methods and hooks,
        bases first."""
        if not self.is_class:
            return {self.name: (self.raw, marks.of(self.raw))}
        found: dict[str, tuple[_Raw, Marks]] = {}
        for base in reversed(inspect.getmro(self.raw)):  # type: ignore[arg-type]
            for name, value in vars(base).items():
                marked = marks.of(value)
                if marked != marks.NONE:
                    found[name] = (value, marked)
                else:
                    found.pop(name, None)
        return found


@dataclass(frozen=True)
class Place:
    """Under which name an app is deployed."""

    name: str
    namespace: str
    tags: Mapping[str, str]
    owner: Owner | None = None
    source: str = ""


class Source(NamedTuple):
    """What was packed of a workload."""

    module: str
    """Its import name inside the bundle."""
    bundle: str
    """Digest of the bundle."""
    builds: tuple[tuple[str, str], ...] = ()
    """Of the functions that build its environment: import name inside the bundle, digest of the code."""


def app(declared: Iterable[Declared], place: Place, sources: Mapping[str, Source]) -> model.App:
    """The whole app. `sources`: workload name → what was packed of it."""
    workloads: list[model.Workload] = []
    revisions: dict[str, model.Revision] = {}
    for each in declared:
        check(each)
        revision = _revision(each, place, sources[each.name])
        id = revision.id
        revisions[id] = revision
        workloads.append(
            model.Workload(
                place.namespace,
                place.name,
                each.name,
                id,
                scaling=quantities.scaling(each.given),
                limits=marks.of(each.raw).limits,
                schedule=schedules.scheduled(each.given),
                subscription=subscriptions.subscribed(each.given, place.namespace),
            )
        )
    labels.check(revisions.values())
    return model.App(
        namespace=place.namespace,
        name=place.name,
        workloads=tuple(workloads),
        revisions=tuple(revisions.values()),
        tags=tuple(sorted((str(name), str(value)) for name, value in place.tags.items())),
        owner=place.owner,
        source=place.source,
    )


def with_secret_names(app: model.App, names: Mapping[str, str]) -> model.App:
    """The app with other names of secrets, and so with other ids of the revisions that use them."""

    def renamed(revision: model.Revision) -> model.Revision:
        calls = tuple(msgspec.structs.replace(c, secrets=uses(c.secrets)) for c in revision.environment.build_calls)
        environment = msgspec.structs.replace(revision.environment, build_calls=calls)
        return msgspec.structs.replace(revision, secrets=uses(revision.secrets), environment=environment)

    def uses(given: Iterable[SecretUse]) -> tuple[SecretUse, ...]:
        return tuple(msgspec.structs.replace(use, name=names.get(use.name, use.name)) for use in given)

    revisions = {revision.id: renamed(revision) for revision in app.revisions}
    return msgspec.structs.replace(
        app,
        workloads=tuple(msgspec.structs.replace(w, revision=revisions[w.revision].id) for w in app.workloads),
        revisions=tuple({revision.id: revision for revision in revisions.values()}.values()),
    )


def notes(app: model.App) -> list[str]:
    """What is allowed and most likely not meant, a sentence each."""
    revisions = {revision.id: revision for revision in app.revisions}
    offers = (method.openai for revision in app.revisions for method in revision.entry.methods)
    names = sorted({offer.model for offer in offers if offer is not None}) if app.owner is not None else []
    told = [f"to clients of the OpenAI API its models are {', '.join(names)} meanwhile"] if names else []
    if app.owner is not None and any(workload.schedule is not None for workload in app.workloads):
        told.append("its schedules call nothing: they do once it is deployed (swell deploy)")
    if app.owner is not None and any(workload.subscription is not None for workload in app.workloads):
        told.append("its functions are called for no events: they are once it is deployed (swell deploy)")
    return told + _port_notes(app, revisions)


def _port_notes(app: model.App, revisions: Mapping[str, model.Revision]) -> list[str]:
    return [
        f"{each.name}: one replica per node can listen on its port {port}, and that takes one request at a time; "
        "@swell.concurrent(max_inputs=…) lets it take more"
        for each in app.workloads
        for port in revisions[each.revision].needs.ports
        if revisions[each.revision].max_inputs == 1
    ]


def check(declared: Declared) -> None:
    """Refuse what cannot be deployed, naming the argument or decorator."""
    refuse(declared.given)
    for given in declared.image.given if declared.image is not None else ():
        refuse(given)
    members = declared.members()
    needed_first = parameters.required(declared.raw)
    for _, marked in [(declared.raw, marks.of(declared.raw)), *members.values()]:
        for given in marked.given:
            refuse(given)
    what = f"{'class' if declared.is_class else 'function'} {declared.raw.__qualname__}"
    if not declared.raw.__qualname__.isidentifier():
        raise SwellError("bad_function", f"{what} must be at the top level of its file, so that it can be imported.")
    for name, (raw, marked) in members.items():
        if marked.tensors is not None and (marked.web is not None or marked.hook):
            raise SwellError("bad_function", f"{name}: @tensors goes on what is called, not on a web endpoint or hook.")
        if marked.tensors is not None and declared.is_class and not marked.remote:
            raise SwellError("bad_class", f"{name} has @swell.tensors() and cannot be called: add @swell.method().")
        if needed_first and (marked.tensors is not None or marked.openai is not None):
            words = f"{name} is a model, whose clients cannot give {needed_first[0]}: give that parameter a default."
            raise SwellError("bad_class", words)
        if marked.before is not None or marked.after is not None:
            around.check_transform(name, raw, marked, declared.is_class)
        if marked.openai is not None:
            _check_openai(declared, name, raw, marked)
        if marked.cache is not None:
            around.check_cached(name, marked, declared.is_class, _streams(declared, raw, marked))
        if marked.web is not None and marked.web.kind != "endpoint" and needed(raw, declared.is_class):
            raise SwellError("bad_function", f"{name} serves a web app: give its arguments defaults.")
        if marked.batch is not None:
            _check_batched(declared, name, raw, marked)
        streams = _streams(declared, raw, marked)
        gangs.check(declared.given, name, marked, streams)
        without = needed(raw, declared.is_class)
        schedules.check(declared.given, name, without, streams, marked.web is not None)
        subscriptions.check(declared.given, name, raw, without, streams, marked.web is not None)
    _check_volumes(declared)
    if declared.is_class:
        _check_class(what, declared.raw, members, declared.given.values)
    elif marks.of(declared.raw).method or marks.of(declared.raw).hook:
        raise SwellError("bad_function", f"{what}: @method, @enter and @exit are for the methods of an @app.cls.")


def _check_volumes(declared: Declared) -> None:
    paths = sorted(declared.volumes)
    inner = next((f"{b} is in {a}" for a in paths for b in paths if b.startswith(f"{a}/")), "")
    if inner:
        raise SwellError("bad_argument", f"{declared.name}: one volume cannot be in another, and {inner}.")


def _check_class(what: str, raw: Any, members: Mapping[str, tuple[_Raw, Marks]], given: Mapping[str, Any]) -> None:
    if not any(marked.remote for _, marked in members.values()):
        raise SwellError("bad_class", f"{what} has no method to call: decorate one with @swell.method().")
    if any(marked.max_inputs is not None for _, marked in members.values()):
        raise SwellError("bad_class", f"{what}: put @concurrent on the class (below @app.cls), not on a method.")
    if any(marked.gang is not None for marked in (marks.of(raw), *(marked for _, marked in members.values()))):
        raise SwellError("bad_class", f"{what}: @clustered goes on a function, below @app.function().")
    if any(marked.isolation is not None for _, marked in members.values()):
        raise SwellError("bad_class", f"{what}: put @isolated on the class (below @app.cls), not on a method.")
    if any(marked.limits != UNLIMITED for _, marked in members.values()):
        raise SwellError("bad_class", f"{what}: put @limit on the class (below @app.cls), not on a method.")
    parameters.check(what, raw, given["min_containers"])
    if "__init__" in {name for base in raw.__mro__[:-1] for name in vars(base)} and needed(raw.__init__, True):
        raise SwellError(
            "bad_class",
            f"{what} has an __init__ that needs arguments: make them parameters (name: str = swell.parameter()), "
            "and do the rest in @swell.enter().",
        )


def _check_openai(declared: Declared, name: str, raw: _Raw, marked: Marks) -> None:
    """A model of the OpenAI API is called, one request at a time, with what its clients send."""
    assert marked.openai is not None
    if marked.hook or marked.web is not None:
        raise SwellError("bad_function", f"{name}: @openai goes on what is called, not on a hook or a web endpoint.")
    if marked.batch is not None and marked.openai.api != "embeddings":
        words = "embeddings alone can be @batched: there, each request brings rows, and gets as many"
        raise SwellError("bad_function", f"{name} is @batched and answers {marked.openai.api}: {words}.")
    if declared.is_class and not marked.remote:
        raise SwellError("bad_class", f"{name} has @swell.openai() and cannot be called: add @swell.method().")
    if marked.openai.api == "embeddings" and _streams(declared, raw, marked):
        raise SwellError("bad_function", f"{name} is a generator, and embeddings are answered whole: return a list.")
    main = MAIN[marked.openai.api]
    takes_all = _positions(*marks.asked_of(raw, declared.is_class))
    named = {p.name for p in takes_all if p.kind is not p.VAR_POSITIONAL}
    if main not in named and not any(p.kind is p.VAR_KEYWORD for p in takes_all):
        takes = ", ".join(named) or "nothing"
        words = f"@openai({marked.openai.api!r}) gives it an argument {main!r}, and {name} takes {takes}."
        raise SwellError("bad_function", words)
    unsent = [each for each in needed(raw, declared.is_class) if each not in (main, "model")]
    if unsent:
        words = f"{name} needs {', '.join(unsent)}, which not every client of the OpenAI API sends: give it a default."
        raise SwellError("bad_function", words)


def _check_batched(declared: Declared, name: str, raw: _Raw, marked: Marks) -> None:
    """What gets its inputs in lists gives a list, has an argument to find their number in, and its replica alone."""
    if marked.hook or marked.web is not None or _streams(declared, raw, marked):
        is_else = "a hook" if marked.hook else "a web endpoint" if marked.web is not None else "a generator"
        raise SwellError("bad_function", f"{name} is {is_else}, and @batched is for what is called and returns a list.")
    if not _positions(raw, declared.is_class):
        raise SwellError(
            "bad_function", f"{name} takes no argument: a @batched function gets a list for each it takes."
        )
    for tensor in (*marked.tensors.inputs, *marked.tensors.outputs) if marked.tensors is not None else ():
        if tensor.shape is not None and tensor.shape[:1] != (-1,):
            words = f"{name} is @batched: requests are put together along the first axis, whose length is -1"
            raise SwellError("bad_function", f"{words}; {tensor.name!r} is declared as {shown(tensor)}.")
    others = [each for each, (_, mark) in declared.members().items() if mark.remote and each != name]
    if declared.is_class and others:
        raise SwellError(
            "bad_class",
            f"class {declared.raw.__qualname__}: {name} is @batched, and {others[0]} would run beside its batches: "
            "move one of them to a class of its own.",
        )
    if declared.given.values["single_use_containers"]:
        raise SwellError("bad_function", f"{name} is @batched, and single_use_containers=True gives it one input only.")
    assert marked.batch is not None
    chosen, least = marks.of(declared.raw).max_inputs, marked.batch.max_inputs
    if chosen is not None and chosen < least:
        raise SwellError(
            "bad_function",
            f"@concurrent(max_inputs={chosen}) leaves no room for a batch of {name} that runs and one that fills: "
            f"leave it out, or give at least {least}.",
        )


def _positions(function: _Raw, bound: bool) -> list[inspect.Parameter]:
    """The parameters that a caller gives; of a method (`bound`) all but the first."""
    return list(inspect.signature(function).parameters.values())[1 if bound else 0 :]


def needed(function: _Raw, bound: bool) -> list[str]:
    """Names of the arguments that callers must give; of a method (`bound`) all but the first."""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    asked = _positions(*marks.asked_of(function, bound))
    return [p.name for p in asked if p.default is p.empty and p.kind not in variadic]


def _revision(declared: Declared, place: Place, source: Source) -> model.Revision:
    given, values = declared.given, declared.given.values
    own = marks.of(declared.raw)
    entry = _entry(declared, place, source.module)
    ports = tuple(m.web.port for m in entry.methods if m.web is not None and m.web.port is not None)
    batch = next((method.batch for method in entry.methods if method.batch is not None), None)
    if values["timeout_max"] and any(m.web is not None for m in entry.methods):
        raise quantities.bad(given, "timeout_max", "a web endpoint tells of no progress: leave it out")
    walls = isolation.combined(declared.name, own.isolation, values, ports)
    gang = gangs.declared(given, own)
    if gang is not None:
        gangs.check_walls(declared.name, walls)
    max_inputs = own.max_inputs or (batch.max_inputs if batch is not None else 1)
    target_inputs = own.target_inputs or own.max_inputs or (batch.max_size if batch is not None else 1)
    return model.Revision(
        environment=_environment(declared, place, source.builds),
        bundle=source.bundle,
        entry=entry,
        needs=quantities.needs(given, ports),
        max_inputs=max_inputs,
        target_inputs=target_inputs,
        timeout_s=quantities.seconds(given, "timeout", 300.0),
        timeout_max_s=quantities.timeout_max(given),
        startup_timeout_s=quantities.seconds(given, "startup_timeout", 300.0),
        # What is forked in a sandbox has no right to mounts of its own.
        template=walls is None or not declared.volumes,
        snapshot=bool(values["enable_memory_snapshot"]),
        single_use=bool(values["single_use_containers"]) or gang is not None,
        retrying=retrying(values["retries"]),
        gang=gang,
        isolation=walls,
        secrets=_uses(declared.secrets, place),
        volumes=tuple(use(volume, path, place.namespace) for path, volume in sorted(declared.volumes.items())),
    )


def _uses(secrets: Iterable[Secret], place: Place) -> tuple[SecretUse, ...]:
    return tuple(
        SecretUse(place.namespace if each.namespace is None else each.namespace, each.name, each.required)
        for each in secrets
    )


def _entry(declared: Declared, place: Place, module: str) -> model.Entry:
    members = declared.members()
    hooks: dict[str, list[str]] = {"enter_snap": [], "enter": [], "exit": []}
    for name, (_, marked) in members.items():
        if marked.hook:
            hooks[marked.hook].append(name)
    if not declared.given.values["enable_memory_snapshot"]:
        hooks = {**hooks, "enter_snap": [], "enter": hooks["enter_snap"] + hooks["enter"]}
    remote = [
        _method(declared, place, name, raw, marked)
        for name, (raw, marked) in members.items()
        if marked.remote or not declared.is_class
    ]
    return model.Entry(
        module=module,
        qualname=declared.raw.__qualname__,
        kind="cls" if declared.is_class else "function",
        methods=tuple(remote),
        enter_snap=tuple(hooks["enter_snap"]),
        enter=tuple(hooks["enter"]),
        exit=tuple(hooks["exit"]),
        parameters=parameters.declared(declared.raw) if inspect.isclass(declared.raw) else (),
    )


def _method(declared: Declared, place: Place, name: str, raw: _Raw, marked: Marks) -> model.Method:
    generator = _streams(declared, raw, marked)
    transformed = marked.before is not None or marked.after is not None
    called = marked.web is None and not transformed and (marked.batch is None or marked.tensors is not None)
    called = called and not parameters.required(declared.raw) and gangs.declared(declared.given, marked) is None
    return model.Method(
        name=name,
        generator=generator,
        asynchronous=inspect.iscoroutinefunction(raw) or inspect.isasyncgenfunction(raw),
        web=None if marked.web is None else _web(marked.web, _label(declared, place, name, marked.web)),
        tensors=tensors.of(name, raw, declared.is_class, marked.tensors, generator) if called else None,
        batch=marked.batch,
        openai=_offer(marked.openai, place),
        cache=marked.cache,
    )


def _offer(mark: Offer | None, place: Place) -> Offer | None:
    # What runs for a while must not be in the way of what is deployed.
    return mark if mark is None or place.owner is None else msgspec.structs.replace(mark, model=f"{mark.model}-dev")


def _streams(declared: Declared, raw: _Raw, marked: Marks) -> bool:
    """Is what it gives a stream of items: by its author's word, or as it is written?"""
    chosen = marked.generator if declared.is_class else declared.given.values["is_generator"]
    return is_generator(raw) if chosen is None else bool(chosen)


def _web(mark: WebMark, label: str) -> model.Web:
    return model.Web(
        kind=mark.kind,
        label=label,
        http_method=mark.http_method,
        port=mark.port,
        docs=mark.docs,
        needs_key=mark.needs_key,
        startup_timeout_s=mark.startup_timeout_s,
    )


def _label(declared: Declared, place: Place, method: str, mark: WebMark) -> str:
    if mark.label is not None:
        if slug(mark.label) != mark.label:
            raise SwellError(
                "bad_argument",
                f"label={mark.label!r} of {method} cannot be a host name: use small letters, digits and dashes, "
                f"at most {LABEL_MAX}, like {slug(mark.label)!r}.",
            )
        # What runs for a while must not be in the way of what is deployed.
        return mark.label if place.owner is None else slug(f"{mark.label}-dev")
    return slug(f"{place.name}--{declared.name}{f'-{method}' if declared.is_class else ''}")


def _environment(declared: Declared, place: Place, builds: Iterable[tuple[str, str]]) -> Environment:
    image = declared.image or Image()
    own = dict(image.variables)
    own.update(variables(f"{declared.given.callable}(env=…)", declared.given.values["env"] or {}))
    own_python = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = image.python_version or own_python
    packages = image.packages
    # Another version of Python has to be built, too; and an environment is built for its packages alone.
    if (packages or image.builds or python != own_python) and "--no-deps" not in image.index_options:
        packages += (CALLER_REQUIREMENT,)
    return Environment(
        interpreter=sys.executable,
        python=python,
        packages=packages,
        index_options=image.index_options,
        variables=tuple(sorted(own.items())),
        workdir=image.folder,
        build_calls=tuple(_call(*each, place) for each in zip(image.builds, builds, strict=True)),
        container_steps=tuple(each for each in image.container_steps if isinstance(each, ContainerStep)),
    )


def _call(build: building.Build, source: tuple[str, str], place: Place) -> BuildCall:
    module, content = source
    return BuildCall(
        module=module,
        qualname=build.function.__qualname__,
        content=content,
        arguments=build.arguments(),
        timeout_s=build.timeout_s,
        variables=build.variables,
        secrets=_uses(build.secrets, place),
    )
