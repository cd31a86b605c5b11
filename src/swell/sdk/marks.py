"""What do `@method`, `@enter`, `@fastapi_endpoint` and the other stackable decorators say of a function?

They return the very function they were given, with a note on it: user code stays plain functions, which the
runtime imports, and `App` reads the notes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from traceback import FrameSummary
from typing import Any, Literal, TypeVar

from swell.model.caching import Caching
from swell.model.errors import SwellError
from swell.model.gang import SIZE_MAX, Gang
from swell.model.isolation import Isolation
from swell.model.limits import (
    BATCH_SIZE_MAX,
    BATCH_WAIT_MS_MAX,
    HTTP_METHODS,
    SECONDS_MAX,
    UNLIMITED,
    Limits,
    limits_problem,
    rate_of,
    size_of,
    vary_problem,
)
from swell.model.openai import PATHS, Offer, model_problem
from swell.model.tensors import Tensors
from swell.model.workload import Batch, WebKind
from swell.sdk import isolation
from swell.sdk.frames import caller
from swell.sdk.signatures import public
from swell.sdk.tensors import Shapes, declared

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "__swell_marks__"


@dataclass(frozen=True)
class Given:
    """The arguments one public callable was called with, by name, defaults included."""

    callable: str
    """Name in the table of arguments, e.g. "App.function"."""
    values: Mapping[str, Any]
    where: FrameSummary | None = field(default_factory=caller, compare=False, repr=False)
    """The user's line that called it."""


@dataclass(frozen=True)
class WebMark:
    """How a function is exposed on the web."""

    kind: WebKind
    label: str | None
    http_method: str = "GET"
    docs: bool = False
    needs_key: bool = False
    port: int | None = None
    startup_timeout_s: float = 5.0


@dataclass(frozen=True)
class Marks:
    """Everything noted on one function or class."""

    method: bool = False
    generator: bool | None = None
    hook: Literal["", "enter", "enter_snap", "exit"] = ""
    web: WebMark | None = None
    max_inputs: int | None = None
    target_inputs: int | None = None
    tensors: Tensors | None = None
    openai: Offer | None = None
    limits: Limits = UNLIMITED
    batch: Batch | None = None
    cache: Caching | None = None
    before: Callable[..., Any] | None = None
    after: Callable[..., Any] | None = None
    isolation: Isolation | None = None
    gang: Gang | None = None
    given: tuple[Given, ...] = ()

    @property
    def remote(self) -> bool:
        """Can it be reached from outside: by a call or on the web?"""
        return self.method or self.web is not None or self.batch is not None

    @property
    def stacked(self) -> bool:
        """Does a batch have the rows of all its requests in one, instead of a list for each argument?"""
        return self.batch is not None and (self.tensors is not None or self.openai is not None)


NONE = Marks()


def of(obj: Any) -> Marks:
    """The notes on this very function or class (not on a base class)."""
    marks = getattr(obj, "__dict__", {}).get(_ATTRIBUTE, NONE)
    assert isinstance(marks, Marks)
    return marks


def asked_of(raw: Callable[..., Any], bound: bool) -> tuple[Callable[..., Any], bool]:
    """What a caller's arguments go to, and whether that is a method (`bound`): the function, or what is before it."""
    before = of(raw).before
    if before is None:
        return raw, bound
    return before, bound and before.__qualname__.rpartition(".")[0] == raw.__qualname__.rpartition(".")[0]


def _mark(given: Given, **changes: Any) -> Callable[[F], F]:
    """A decorator that adds a note."""

    def decorate(function: F) -> F:
        name = given.callable
        if not callable(function) or isinstance(function, (staticmethod, classmethod)):
            raise SwellError("bad_decorator", f"@{name}() goes on a function, not on {type(function).__name__}.")
        if hasattr(function, "__swell_raw__"):
            raise SwellError("bad_decorator", f"Put @{name}() below @app.function() or @app.cls(), not above it.")
        before = of(function)
        if "web" in changes and before.web is not None:
            raise SwellError("bad_decorator", f"{function.__name__} has two web decorators; keep one.")
        if "hook" in changes and before.hook:
            raise SwellError("bad_decorator", f"{function.__name__} is two hooks at once; keep one of them.")
        if any(each.callable == name for each in before.given):
            # What one says and the other does not would be lost without a word.
            raise SwellError("bad_decorator", f"{function.__name__} has @{name}() twice; keep one.")
        setattr(function, _ATTRIBUTE, replace(before, given=(*before.given, given), **changes))
        return function

    return decorate


@public
def method(*, is_generator: bool | None = None) -> Callable[[F], F]:
    """A method of an `@app.cls` that can be called from outside."""
    return _mark(Given("method", locals().copy()), method=True, generator=is_generator)


@public
def enter(*, snap: bool = False) -> Callable[[F], F]:
    """Run when a replica starts; with `snap=True`, once in the template that replicas are forked from."""
    return _mark(Given("enter", locals().copy()), hook="enter_snap" if snap else "enter")


@public
def exit() -> Callable[[F], F]:
    """Run when a replica ends in an orderly way."""
    return _mark(Given("exit", {}), hook="exit")


@public
def concurrent(*, max_inputs: int | None = None, target_inputs: int | None = None) -> Callable[[F], F]:
    """Inputs one replica works on at the same time: at most `max_inputs`; scaling aims at `target_inputs`."""
    if max_inputs is None:
        raise SwellError("bad_argument", "@concurrent(max_inputs=…) is needed: how many inputs at the same time?")
    _count("concurrent", "max_inputs", max_inputs)
    if target_inputs is not None:
        _count("concurrent", "target_inputs", target_inputs)
        if target_inputs > max_inputs:
            raise SwellError("bad_argument", f"@concurrent(target_inputs={target_inputs}) is above its max_inputs.")
    return _mark(Given("concurrent", locals().copy()), max_inputs=max_inputs, target_inputs=target_inputs)


@public
def tensors(*, inputs: Shapes, outputs: Shapes | None = None) -> Callable[[F], F]:
    """A model of the Open Inference Protocol V2: name → (datatype, shape), -1 for any length. Where the annotations say
    all of that it is not needed."""
    given = Given("tensors", locals().copy())
    said = Tensors(declared("inputs", inputs), declared("outputs", outputs or {}))
    return _mark(given, tensors=said)


@public
def openai(api: str, *, model: str) -> Callable[[F], F]:
    """A model of the OpenAI API: clients that POST to /v1/chat/completions, /v1/completions or /v1/embeddings and name
    `model` call it with the fields of their request as arguments. Modal's SDK has none."""
    given = Given("openai", locals().copy())
    known = next((each for each in PATHS.values() if each == api), None)
    if known is None:
        meant = PATHS.get(str(api).removeprefix("/").removeprefix("v1/"))
        hint = f"write {meant!r}" if meant else f"there are {', '.join(map(repr, PATHS.values()))}"
        raise SwellError("bad_argument", f"@openai({api!r}): {hint}.")
    problem = model_problem(model)
    if problem is not None:
        raise SwellError("bad_argument", f"@openai(model={model!r}): {problem}.")
    return _mark(given, openai=Offer(known, model))


@public
def limit(
    *,
    rate: str | float | None = None,
    burst: int | None = None,
    concurrency: int | None = None,
    body_max: str | int | None = None,
) -> Callable[[F], F]:
    """What all callers together may send: `rate` ("100/s", "30/min") with `burst` at once, `concurrency` requests at a
    time, bodies of `body_max` bytes ("10MiB"). Over it they are refused with 429, or 413. Modal's SDK has none."""
    given = Given("limit", locals().copy())
    for name, value in (("burst", burst), ("concurrency", concurrency)):
        if value is not None:
            _count("limit", name, value)
    try:
        limits = Limits(
            rate_per_s=0.0 if rate is None else rate_of(rate),
            burst=burst or 0,
            concurrency=concurrency or 0,
            body_max=0 if body_max is None else size_of(body_max),
        )
    except SwellError as error:
        raise SwellError("bad_argument", f"@limit(…): {error.message}") from None
    problem = limits_problem(limits)
    if limits == UNLIMITED:
        problem = "give rate=, concurrency= or body_max="
    if problem is not None:
        raise SwellError("bad_argument", f"@limit(…): {problem}.")
    return _mark(given, limits=limits)


@public
def batched(*, max_batch_size: int, wait_ms: int) -> Callable[[F], F]:
    """Single calls are given to the function together: a list for each parameter, at most `max_batch_size` long; it
    returns a list with one result for each. No call waits for others longer than `wait_ms`, nor while nothing runs."""
    given = Given("batched", locals().copy())
    for name, value, least, most in (
        ("max_batch_size", max_batch_size, 1, BATCH_SIZE_MAX),
        ("wait_ms", wait_ms, 0, BATCH_WAIT_MS_MAX),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            words = f"@batched({name}={value!r}): must be a whole number from {least:,} to {most:,}."
            raise SwellError("bad_argument", words)
    return _mark(given, batch=Batch(max_batch_size, wait_ms))


@public
def transform(*, before: Callable[..., Any] | None = None, after: Callable[..., Any] | None = None) -> Callable[[F], F]:
    """`before` is given what a caller sends and returns the function's argument (a tuple or dict for several); `after`
    is given what that returned (of a stream each item) and returns the answer. With @batched each runs for one input by
    itself. Modal's SDK has none."""
    given = Given("transform", locals().copy())
    for name, hook in (("before", before), ("after", after)):
        if hook is not None and not (callable(hook) or isinstance(hook, staticmethod)):
            raise SwellError("bad_argument", f"@transform({name}={hook!r}): give a function.")
    if before is None and after is None:
        raise SwellError("bad_argument", "@transform(…): give before=, after= or both.")
    mark: Callable[[F], F] = _mark(given, before=before, after=after)

    def decorate(function: F) -> F:
        marked = mark(function)
        # Where the runtime finds them.
        marked.__swell_transform__ = (before, after)  # type: ignore[attr-defined]
        return marked

    return decorate


@public
def cached(*, ttl_s: float, vary: Iterable[str] = ()) -> Callable[[F], F]:
    """What it answered is given again for `ttl_s` seconds to whoever calls with the same, and nothing runs for that.
    `vary`: headers of a request on which its answer depends, beside its body. Modal's SDK has none."""
    names = tuple(vary) if isinstance(vary, Iterable) and not isinstance(vary, str) else (vary,)
    given = Given("cached", {"ttl_s": ttl_s, "vary": names})
    number = isinstance(ttl_s, int | float) and not isinstance(ttl_s, bool)
    if not number or not 0 < ttl_s <= SECONDS_MAX:
        raise SwellError("bad_argument", f"@cached(ttl_s={ttl_s!r}): must be seconds, above 0.")
    for name in names:
        problem = vary_problem(name)
        if problem is not None:
            raise SwellError("bad_argument", f"@cached(vary={name!r}): {problem}.")
    return _mark(given, cache=Caching(float(ttl_s), tuple(sorted({name.lower() for name in names}))))


@public
def isolated(
    *,
    network: isolation.Network = "none",
    readable: Iterable[str] = (),
    writable: Iterable[str] = (),
    optional: Iterable[str] = (),
) -> Callable[[F], F]:
    """It runs in a sandbox: with nothing of the node but what is named, and not at all where that cannot be had.
    Modal's SDK has none."""
    given = Given("isolated", locals().copy())
    return _mark(given, isolation=isolation.declared(network, readable, writable, optional))


@public
def clustered(size: int, *, rdma: bool = False) -> Callable[[F], F]:
    """Each call is worked on by `size` replicas at the same time, all of which are given it. The result is that of rank
    0. As nodes= of @app.function, which may also say how few will do (min_nodes=)."""
    given = Given("clustered", locals().copy())
    _count("clustered", "size", size)
    if size > SIZE_MAX:
        raise SwellError("bad_argument", f"@clustered(size={size!r}): must be {SIZE_MAX:,} at most.")
    return _mark(given, gang=Gang(size))


@public
def fastapi_endpoint(
    *,
    method: str = "GET",
    label: str | None = None,
    custom_domains: Iterable[str] | None = None,
    docs: bool = False,
    requires_proxy_auth: bool = False,
) -> Callable[[F], F]:
    """A web endpoint: query parameters or a JSON body become arguments, the result becomes the answer."""
    given = Given("fastapi_endpoint", locals().copy())
    if method not in HTTP_METHODS:
        *most, last = HTTP_METHODS
        words = f"@fastapi_endpoint(method={method!r}): use {', '.join(most)} or {last}."
        raise SwellError("bad_argument", words)
    return _mark(given, web=WebMark("endpoint", label, method, docs, requires_proxy_auth))


web_endpoint = fastapi_endpoint


@public
def asgi_app(
    *, label: str | None = None, custom_domains: Iterable[str] | None = None, requires_proxy_auth: bool = False
) -> Callable[[F], F]:
    """The function returns an ASGI application, which is served."""
    given = Given("asgi_app", locals().copy())
    return _mark(given, web=WebMark("asgi", label, needs_key=requires_proxy_auth))


@public
def wsgi_app(
    *, label: str | None = None, custom_domains: Iterable[str] | None = None, requires_proxy_auth: bool = False
) -> Callable[[F], F]:
    """The function returns a WSGI application (Flask, Django, …), which is served: each request on a thread."""
    given = Given("wsgi_app", locals().copy())
    return _mark(given, web=WebMark("wsgi", label, needs_key=requires_proxy_auth))


@public
def web_server(
    port: int,
    *,
    startup_timeout: float = 5.0,
    label: str | None = None,
    custom_domains: Iterable[str] | None = None,
    requires_proxy_auth: bool = False,
) -> Callable[[F], F]:
    """The function starts a process that listens on `port`; requests go there."""
    given = Given("web_server", locals().copy())
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        raise SwellError("bad_argument", f"@web_server(port={port!r}): a port is a number from 1 to 65535.")
    if isinstance(startup_timeout, bool) or not isinstance(startup_timeout, (int, float)) or startup_timeout <= 0:
        raise SwellError("bad_argument", f"@web_server(startup_timeout={startup_timeout!r}): seconds above 0.")
    mark = WebMark("server", label, needs_key=requires_proxy_auth, port=port, startup_timeout_s=float(startup_timeout))
    return _mark(given, web=mark)


def _count(callable: str, name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SwellError("bad_argument", f"@{callable}({name}={value!r}): must be a whole number of at least 1.")
