"""Does validation let every good app pass, and name all that is wrong with a bad one at once?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.api.validate import STEP_MAX, problems
from swell.model.caching import Caching
from swell.model.environment import BuildCall, ContainerStep, Environment
from swell.model.gang import Gang
from swell.model.isolation import Isolation
from swell.model.limits import RATE_MAX, RATE_MIN, Limits
from swell.model.resources import Needs
from swell.model.secret import SecretUse
from swell.model.subscription import OwnSource, Subscription
from swell.model.volume import VolumeUse
from swell.model.workload import App, Batch, Entry, Method, Retrying, Revision, Scaling, Web, Workload

replace = msgspec.structs.replace
identifiers = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,20}", fullmatch=True)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
workload_names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,20}", fullmatch=True)
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
seconds = st.floats(0.001, 86_400)
texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
pairs = st.dictionaries(texts, texts, max_size=3).map(lambda d: tuple(d.items()))


@st.composite
def revisions(draw: st.DrawFn, number: int, web_labels: list[str]) -> Revision:
    kind = draw(st.sampled_from(["function", "cls"]))
    count = 1 if kind == "function" else draw(st.integers(1, 3))
    method_names = draw(st.lists(identifiers, min_size=count, max_size=count, unique=True))
    webs = [
        Web(draw(st.sampled_from(["endpoint", "asgi", "server"])), web_labels.pop(), "POST", port=8000)
        if web_labels and draw(st.booleans())
        else None
        for _ in method_names
    ]
    cpu, memory = draw(st.floats(0.01, 64)), draw(st.integers(1, 1 << 20))
    target = draw(st.integers(1, 100))
    return Revision(
        environment=Environment("/usr/bin/python3", "3.11", packages=("a==1",), variables=draw(pairs.filter(_env))),
        bundle=f"sha256-{number:064x}",
        entry=Entry(
            ".".join(draw(st.lists(identifiers, min_size=1, max_size=3))),
            draw(identifiers),
            kind,  # type: ignore[arg-type]
            tuple(Method(name, web=web) for name, web in zip(method_names, webs, strict=True)),
            enter=tuple(draw(st.lists(identifiers, max_size=2))),
        ),
        needs=Needs(
            cpu=cpu,
            cpu_limit=draw(st.none() | st.just(cpu * 2)),
            memory_mib=memory,
            memory_limit_mib=draw(st.none() | st.just(memory)),
            gpu=draw(st.sampled_from([(), ("L4", "A100:2")])),
            ports=tuple(draw(st.sets(st.integers(1, 65_535), max_size=3))),
        ),
        max_inputs=target + draw(st.integers(0, 10)),
        target_inputs=target,
        timeout_s=draw(seconds),
        startup_timeout_s=draw(seconds),
        retrying=Retrying(draw(st.integers(0, 10)), draw(st.floats(1, 10)), draw(seconds), draw(seconds)),
    )


def _env(pairs: tuple[tuple[str, str], ...]) -> bool:
    return all("=" not in name for name, _ in pairs)


@st.composite
def apps(draw: st.DrawFn) -> App:
    namespace, name = draw(names), draw(names)
    web_labels = draw(st.lists(labels, max_size=4, unique=True))
    found, rows = [], []
    for number, workload in enumerate(draw(st.lists(workload_names, max_size=3, unique=True))):
        revision = draw(revisions(number, web_labels))
        least = draw(st.integers(0, 5))
        scaling = Scaling(least, least + draw(st.integers(1, 5)), draw(st.integers(0, 3)), draw(seconds))
        found.append(revision)
        rate_per_s = draw(st.just(0.0) | st.floats(RATE_MIN, RATE_MAX))
        limits = Limits(rate_per_s, 0, draw(st.integers(0, 9)), draw(st.integers(0, 1 << 40)))
        rows.append(Workload(namespace, name, workload, revision.id, scaling, limits=limits))
    return App(namespace, name, tuple(rows), tuple(found), draw(pairs), draw(st.booleans()), draw(texts))


@given(apps())
def test_a_good_app_has_no_problems(app: App) -> None:
    assert problems(app) == []


# -- one thing wrong ------------------------------------------------------------------------------

GOOD = Revision(
    environment=Environment("/usr/bin/python3", "3.11"),
    bundle="sha256-" + "0" * 64,
    entry=Entry("mod", "Model", "cls", (Method("go", web=Web("endpoint", "label")), Method("stop"))),
)
JOB = Revision(
    environment=Environment("/usr/bin/python3", "3.11"),
    bundle="sha256-" + "0" * 64,
    entry=Entry("mod", "go", "function", (Method("go"),)),
    single_use=True,
    gang=Gang(4, 2),
)
CALL = BuildCall("mod", "fetch", "0" * 64, b"")
BAD_NUMBERS = [math.nan, math.inf, -math.inf, -1.0, 1e300]
Spoil = Callable[[Revision], Revision]


def inside(part: str, **fields: Any) -> Spoil:
    return lambda revision: replace(revision, **{part: replace(getattr(revision, part), **fields)})


def field(**fields: Any) -> Spoil:
    return lambda revision: replace(revision, **fields)


def web(**fields: Any) -> Spoil:
    method = GOOD.entry.methods[0]
    assert method.web is not None
    spoiled = replace(method, web=replace(method.web, **fields))
    return inside("entry", methods=(spoiled, GOOD.entry.methods[1]))


def cached(ttl_s: float = 1.0, *vary: str, **method: Any) -> Spoil:
    return inside("entry", methods=(Method("go", cache=Caching(ttl_s, vary), **method),))


def batched(size: int = 8, wait_ms: int = 5, **method: Any) -> Spoil:
    return inside("entry", methods=(Method("go", batch=Batch(size, wait_ms), **method),))


def gang(size: int, least: int = 0, generator: bool = False, **fields: Any) -> Spoil:
    entry = Entry("mod", "go", "function", (Method("go", generator=generator),))
    return lambda _revision: replace(JOB, gang=Gang(size, least), entry=entry, **fields)


SPOILS: dict[str, list[Spoil]] = {
    "max_inputs": [field(max_inputs=n) for n in (0, -1, 1 << 70)],
    "target_inputs": [field(target_inputs=n) for n in (0, 2, -3)],
    "timeout_s": [field(timeout_s=x) for x in (0.0, *BAD_NUMBERS)],
    "startup_timeout_s": [field(startup_timeout_s=x) for x in (0.0, *BAD_NUMBERS)],
    "gang: size": [gang(size) for size in (0, -1, 1025, 1 << 70)],
    "gang: least": [gang(2, least=3), gang(2, least=-1)],
    "gang: is of a function": [
        field(gang=Gang(2), single_use=True, max_inputs=1, target_inputs=1),
        gang(2, generator=True),
    ],
    "gang: its replicas are of single_use": [gang(2, single_use=False), gang(2, max_inputs=2)],
    "gang: its replicas meet": [gang(2, isolation=Isolation(network="node"))],
    "batched": [
        batched(generator=True),
        batched(web=Web("endpoint", "label")),
        inside("entry", methods=(Method("go", batch=Batch(8, 5)), Method("stop"))),
    ],
    "ttl_s": [cached(n) for n in (0.0, *BAD_NUMBERS)],
    "vary has": [cached(1.0, "Accept"), cached(1.0, "a b"), cached(1.0, "swell-timeout")],
    "max_size": [batched(size=n) for n in (0, -1, 1001, 1 << 70)],
    "wait_ms": [batched(wait_ms=n) for n in (-1, 600_001, 1 << 70)],
    "bundle": [field(bundle=x) for x in ("", "sha256-12", "../../etc/passwd", "sha256-" + "G" * 64)],
    "cpu ": [inside("needs", cpu=x) for x in (0.0, *BAD_NUMBERS)],
    "cpu_limit": [inside("needs", cpu_limit=x) for x in (0.0, 0.1, *BAD_NUMBERS)],
    "memory_mib": [inside("needs", memory_mib=x) for x in (0, -1, 1 << 80)],
    "memory_limit_mib": [inside("needs", memory_limit_mib=x) for x in (0, 127, 1 << 80)],
    "port": [inside("needs", ports=x) for x in ((0,), (65_536,), (-1,), (80, 80))],
    "gpu": [inside("needs", gpu=x) for x in ((" ",), ("L4\n",), ("L4:0",), ("L4", "A100:1/2"))],
    "interpreter": [inside("environment", interpreter=x) for x in ("", "python3", "/bin/\0py")],
    "python": [inside("environment", python=x) for x in ("", "3", "three", "3.11; rm")],
    "package": [inside("environment", packages=x) for x in (("",), ("a\n--index-url evil",), ("a" * 5000,))],
    "index option": [inside("environment", index_options=x) for x in (("",), ("--pre\n",))],
    "environment variable": [
        inside("environment", variables=x)
        for x in ((("", "1"),), (("A=B", "1"),), (("A", "\0"),), (("A", "1"), ("A", "2")), (("A\0", "1"),))
    ],
    "run_function": [
        *(inside("environment", build_calls=(replace(CALL, timeout_s=x),)) for x in (0.0, *BAD_NUMBERS)),
        *(inside("environment", build_calls=(replace(CALL, module=x),)) for x in ("", "a b", "../a")),
        *(inside("environment", build_calls=(replace(CALL, qualname=x),)) for x in ("", "f.<locals>.g")),
        lambda revision: replace(inside("environment", build_calls=(CALL,))(revision), isolation=Isolation()),
    ],
    "and @isolated names": [
        lambda revision, x=x: replace(
            revision, volumes=(VolumeUse("default", "v", "/w/data"),), isolation=Isolation(**x)
        )
        for x in ({"readable": ("/w/data/models",)}, {"writable": ("/w/",)}, {"writable": ("/x", "/w/data")})
    ],
    "environment variable '": [inside("environment", build_calls=(replace(CALL, variables=(("A=B", "1"),)),))],
    "secret": [inside("environment", build_calls=(replace(CALL, secrets=(SecretUse("default", "../a"),)),))],
    "no method of an image": [inside("environment", container_steps=(ContainerStep("rm -rf"),))],
    "NUL character": [
        inside("environment", container_steps=(ContainerStep("run_commands", *x),))
        for x in ((("a\0",),), (("a" * (STEP_MAX + 1),),), (("a",), (("dockerfile", "\0"),)))
    ],
    "module": [inside("entry", module=x) for x in ("", "a.", "a b", "../a", "a/b")],
    "qualname": [inside("entry", qualname=x) for x in ("", "f.<locals>.g", "1f")],
    "method": [
        inside("entry", methods=x) for x in ((), (Method("no-dash"),), (Method("a"), Method("a")), (Method(""),))
    ],
    "is a function": [inside("entry", kind="function")],
    "hook": [inside("entry", enter=("a-b",)), inside("entry", exit=("",)), inside("entry", enter_snap=("1",))],
    "label": [web(label=x) for x in ("", "UPPER", "-a", "a-", "a.b", "a/b", "x" * 64)],
    "http_method": [web(http_method=x) for x in ("", "get", "FETCH")],
    "needs the port": [web(kind="server", port=None)],
    "port must": [web(kind="server", port=x) for x in (0, 70_000)],
    "startup_timeout_s must": [web(startup_timeout_s=x) for x in (0.0, *BAD_NUMBERS)],
    "max_retries": [inside("retrying", max_retries=x) for x in (-1, 1 << 70)],
    "backoff_coefficient": [inside("retrying", backoff_coefficient=x) for x in (0.5, *BAD_NUMBERS)],
    "initial_delay_s": [inside("retrying", initial_delay_s=x) for x in BAD_NUMBERS],
    "max_delay_s": [inside("retrying", max_delay_s=x) for x in BAD_NUMBERS],
}


def wrap(revision: Revision, **more: Any) -> App:
    try:
        id = revision.id
    except OverflowError:
        id = "rv-unknown"
    return App("default", "a", (Workload("default", "a", "Model", id),), (revision,), **more)


@pytest.mark.parametrize("words", SPOILS)
def test_each_thing_wrong_with_a_revision_is_named(words: str) -> None:
    assert problems(wrap(GOOD)) == problems(wrap(JOB)) == []
    for spoil in SPOILS[words]:
        found = problems(wrap(spoil(GOOD)))
        assert found, "nothing was found wrong"
        assert any(words in problem for problem in found), found


@given(
    st.sets(st.sampled_from(["max_inputs", "timeout_s", "bundle", "memory_mib", "python", "max_retries"])), st.data()
)
def test_everything_wrong_is_named_at_once(chosen: set[str], data: st.DataObject) -> None:
    revision = GOOD
    for words in chosen:
        revision = data.draw(st.sampled_from(SPOILS[words]))(revision)
    found = problems(wrap(revision))
    assert all(any(words in problem for problem in found) for words in chosen), found
    assert bool(found) == bool(chosen)


def good_workload(**fields: Any) -> App:
    app = wrap(GOOD)
    return replace(app, workloads=(replace(app.workloads[0], **fields),))


APPS = {
    "namespace": [replace(good_workload(), namespace=x) for x in ("", "a/b", ".a", "a b", "x" * 64, "ä", "a\n")],
    "app '": [replace(good_workload(), name=x) for x in ("", "..", "-a", "a@b", "a#b")],
    "is no name": [good_workload(name=x) for x in ("", "a.b", "a/b", "a@b", "x" * 64, "a\n")],
    "not to this app": [good_workload(app="other"), good_workload(namespace="other")],
    "which is not given": [good_workload(revision="rv-0"), replace(wrap(GOOD), revisions=())],
    "no workload wants it": [replace(wrap(GOOD), workloads=())],
    "limits: rate_per_s": [good_workload(limits=Limits(rate_per_s=x)) for x in (-1.0, math.inf, math.nan)],
    "limits: burst without": [good_workload(limits=Limits(burst=3))],
    "limits: timeout_s": [good_workload(limits=Limits(timeout_s=3.0))],
    "min_replicas": [good_workload(scaling=Scaling(min_replicas=n)) for n in (-1, 101)],
    "max_replicas": [good_workload(scaling=Scaling(max_replicas=n)) for n in (0, -1, 1 << 70)],
    "buffer_replicas": [good_workload(scaling=Scaling(buffer_replicas=n)) for n in (-1, 1 << 70)],
    "its replicas start for a call": [
        replace(wrap(JOB), workloads=(replace(wrap(JOB).workloads[0], scaling=scaling),))
        for scaling in (Scaling(min_replicas=1), Scaling(buffer_replicas=1))
    ],
    "idle_s": [good_workload(scaling=Scaling(idle_s=x)) for x in BAD_NUMBERS],
    "tag": [
        wrap(GOOD, tags=(("", "v"),)),
        wrap(GOOD, tags=(("a", "1"), ("a", "2"))),
        wrap(GOOD, tags=(("a", "\0"),)),
    ],
    "source": [wrap(GOOD, source="a\nb"), wrap(GOOD, source="x" * 5000)],
    "more than once": [
        replace(wrap(GOOD), workloads=wrap(GOOD).workloads * 2),
        replace(wrap(GOOD), revisions=(GOOD, GOOD)),
        replace(
            wrap(GOOD),
            revisions=(GOOD, replace(GOOD, max_inputs=2)),
            workloads=(*wrap(GOOD).workloads, Workload("default", "a", "b", replace(GOOD, max_inputs=2).id)),
        ),
    ],
}


@pytest.mark.parametrize("words", APPS)
def test_each_thing_wrong_with_an_app_is_named(words: str) -> None:
    for app in APPS[words]:
        found = problems(app)
        assert any(words in problem for problem in found), (words, found)


def test_a_functions_bad_name_is_told_once_and_a_dash_is_no_problem() -> None:
    for name, count in (("bad name!", 1), ("with-a-dash", 0)):
        entry = Entry("app", "fn", "function", (Method(name),))
        revision = replace(GOOD, entry=entry)
        app = wrap(revision)
        app = replace(app, workloads=(replace(app.workloads[0], name=name, revision=revision.id),))
        assert len(problems(app)) == count, problems(app)


def test_what_finds_events_is_a_class_of_the_app_that_can() -> None:
    def app_with(*methods: Method, name: str = "Mail", kind: str = "cls") -> App:
        function = Revision(Environment("/p", "3.11"), f"sha256-{1:064x}", Entry("m", "f", "function", (Method("f"),)))
        found = Revision(Environment("/p", "3.11"), f"sha256-{2:064x}", Entry("m", "Mail", kind, methods))  # type: ignore[arg-type]
        reads = Workload("default", "a", "f", function.id, subscription=Subscription(OwnSource("Mail")))
        return App("default", "a", (reads, Workload("default", "a", name, found.id)), (function, found))

    assert problems(app_with(Method("deliver"))) == []
    for wrong in (
        app_with(Method("other")),
        app_with(Method("deliver", generator=True)),
        app_with(Method("deliver"), name="Other"),
        app_with(Method("deliver"), kind="function"),
    ):
        words = [each for each in problems(wrong) if "trigger" in each]
        assert words == ["workload 'f': trigger: names 'Mail', and the app has no swell.Source of that name"]
    secret = Subscription(OwnSource("Mail"), SecretUse("default", "x"))
    good = app_with(Method("deliver"))
    bad = replace(good, workloads=(replace(good.workloads[0], subscription=secret), good.workloads[1]))
    assert any("has secrets of its own" in each for each in problems(bad))
