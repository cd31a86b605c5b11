"""Is what is deployed what the decorators said?"""

from __future__ import annotations

import pickle
import string
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swell
from sdk import deployable
from swell.model.environment import CALLER_REQUIREMENT
from swell.model.workload import App, Batch, Entry, Method, Needs, Owner, Scaling
from swell.sdk import describe, labels, marks, run

OWNER = Owner(7, 8)


def batched(function: Callable[..., object]) -> Callable[..., object]:
    return swell.batched(max_batch_size=8, wait_ms=5)(function)


def transformed(function: Callable[..., object]) -> Callable[..., object]:
    return swell.transform(before=deployable.plain)(function)


def copied(function: Callable[..., object]) -> Callable[..., object]:
    """The function without the marks of other tests."""
    made = type(function)(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    made.__qualname__, made.__module__ = function.__qualname__, function.__module__
    return made


def scheduled(schedule: object, function: Callable[..., object]) -> None:
    app = swell.App("a")
    app.function(schedule=schedule)(function)  # type: ignore[arg-type]
    described(app)


def needing(day: str) -> str:
    return day


def of_methods(**methods: Callable[..., object]) -> type:
    return type("Made", (), {**methods, "__module__": deployable.__name__})


def described(app: swell.App, **place: object) -> App:
    return run.prepare(app, describe.Place("a", "default", app.tags, **place)).app  # type: ignore[arg-type]


def test_a_function() -> None:
    app = swell.App("a", tags={"team": "x"})
    app.function(cpu=(1, 2), memory=(300, 400), gpu="L4", min_containers=1, max_containers=2, scaledown_window=9)(
        deployable.plain
    )
    found = described(app, owner=OWNER, source="x.py")
    (revision,), (workload,) = found.revisions, found.workloads
    assert (found.name, found.namespace, found.tags, found.owner) == (
        "a",
        "default",
        (("team", "x"),),
        OWNER,
    )
    assert workload.key == "default/a/plain"
    assert workload.revision == revision.id
    assert workload.scaling == Scaling(1, 2, 0, 9.0)
    assert revision.entry == Entry("deployable", "plain", "function", (Method("plain"),))
    assert revision.needs == Needs(1.0, 2.0, 300, 400, ("L4",))
    assert revision.environment.interpreter == sys.executable
    assert revision.environment.python == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert revision.environment.packages == ()
    assert revision.max_inputs == revision.target_inputs == 1


def test_kinds_of_functions_are_seen() -> None:
    app = swell.App("a")
    app.function()(deployable.numbers)
    app.function()(deployable.waits)
    methods = [revision.entry.methods[0] for revision in described(app).revisions]
    assert methods == [Method("numbers", generator=True), Method("waits", asynchronous=True)]


def test_a_function_with_another_name_is_called_by_it() -> None:
    app = swell.App("a")
    app.function(name="other")(deployable.plain)
    found = described(app)
    assert [workload.name for workload in found.workloads] == ["other"]
    assert found.revisions[0].entry == Entry("deployable", "plain", "function", (Method("other"),))


def test_a_class_has_its_methods_and_hooks_bases_first() -> None:
    app = swell.App("a")
    app.cls(enable_memory_snapshot=True)(deployable.Model)
    app.cls()(deployable.Child)
    model, child = (revision.entry for revision in described(app).revisions)
    assert model.methods == (Method("seen"), Method("later", asynchronous=True))
    assert (model.enter_snap, model.enter, model.exit) == (("load",), ("ready",), ("done",))
    assert [method.name for method in child.methods] == ["seen", "later", "more"]
    assert child.methods[-1].generator
    assert (child.enter_snap, child.enter, child.exit) == ((), ("load",), ("done",))


def test_a_batched_function_has_room_for_a_batch_that_runs_and_one_that_fills() -> None:
    app = swell.App("a")
    app.function(name="small")(batched(copied(deployable.plain)))
    app.function(name="wide")(swell.concurrent(max_inputs=40)(batched(copied(deployable.plain))))
    app.function(name="spread")(swell.concurrent(max_inputs=40, target_inputs=4)(batched(copied(deployable.plain))))
    found = described(app).revisions
    assert [revision.batch for revision in found] == [Batch(8, 5)] * 3
    assert [(each.max_inputs, each.target_inputs) for each in found] == [(16, 8), (40, 40), (40, 4)]
    assert [Batch(8, 5).side_by_side(each.max_inputs) for each in found] == [1, 4, 4]
    assert [each.one_at_a_time for each in found] == [True, False, False]


def test_a_batched_method_needs_no_other_mark() -> None:
    app = swell.App("a")
    app.cls()(of_methods(go=batched(lambda self, x: x)))
    assert described(app).revisions[0].entry.methods == (Method("go", batch=Batch(8, 5)),)


def test_a_class_stays_a_class_of_plain_functions() -> None:
    handle = swell.App("a").cls()(deployable.Model)
    assert handle.__swell_raw__ is deployable.Model
    assert deployable.Model().helper() == "helped"
    assert type(deployable.Model.seen) is type(deployable.plain)


def test_a_local_object_runs_its_hooks_once_and_its_methods_here() -> None:
    made = swell.App("a").cls()(deployable.Model)()
    assert made.seen.local("x") == ["snap", "enter", "x"]
    assert made.seen("y") == ["snap", "enter", "y"]
    assert made.helper() == "helped"
    assert made.log == ["snap", "enter"]
    with pytest.raises(swell.Error, match=r"Make an object first: Model\(\)\.seen\.remote"):
        swell.App("a").cls()(deployable.Model).seen


def timed(web: bool = False, **given: Any) -> Any:
    app = swell.App("a")
    raw = copied(deployable.plain)
    app.function(**given)(swell.fastapi_endpoint()(raw) if web else raw)
    return described(app)


def twice(first: Callable[[Any], Any], second: Callable[[Any], Any]) -> Any:
    return second(first(copied(deployable.plain)))


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda app: app.function()(lambda: 1), "must be at the top level"),
        (lambda app: app.function()(deployable.Model.seen), "must be at the top level"),
        (lambda app: app.cls()(type("Empty", (), {})), "has no method to call"),
        (lambda app: app.cls()(deployable.Needy), "__init__ that needs arguments"),
        (lambda app: app.function()(batched(copied(deployable.waits))), "waits takes no argument"),
        (lambda app: app.function()(batched(copied(deployable.numbers))), "numbers is a generator"),
        (lambda app: app.function(is_generator=True)(batched(copied(deployable.plain))), "plain is a generator"),
        (
            lambda app: app.function()(batched(swell.fastapi_endpoint()(copied(deployable.plain)))),
            "plain is a web endpoint",
        ),
        (
            lambda app: app.cls()(of_methods(go=batched(swell.enter()(copied(deployable.plain))))),
            "go is a hook, and @batched",
        ),
        (
            lambda app: app.cls()(of_methods(go=batched(lambda self, x: x), see=swell.method()(lambda self: 1))),
            "go is @batched, and see would run beside its batches: move one",
        ),
        (
            lambda app: app.cls()(of_methods(go=batched(lambda self, x: x), see=batched(lambda self, x: x))),
            "move one of them to a class of its own",
        ),
        (
            lambda app: app.function()(swell.tensors(inputs={"x": ("FP32", [2])})(batched(copied(deployable.untyped)))),
            r"put together along the first axis, whose length is -1; 'x' is declared as FP32 \[2\]",
        ),
        (
            lambda app: app.function()(transformed(swell.fastapi_endpoint()(copied(deployable.plain)))),
            "@transform goes on what is called",
        ),
        (
            lambda app: app.function()(
                transformed(swell.tensors(inputs={"x": ("FP32", [2])})(copied(deployable.untyped)))
            ),
            "says what goes in and out of a model of @tensors",
        ),
        (
            lambda app: app.function()(swell.transform(after=deployable.waits)(copied(deployable.plain))),
            r"@transform\(after=…\) is asynchronous and plain is not",
        ),
        (
            lambda app: app.cls()(of_methods(go=transformed(lambda self: 1), b=swell.method()(lambda self: 1))),
            r"go has @swell.transform\(\) and cannot be called",
        ),
        (
            lambda app: app.function()(swell.cached(ttl_s=1)(swell.fastapi_endpoint()(copied(deployable.plain)))),
            "@cached keeps what calls are answered; a web endpoint tells caches",
        ),
        (lambda app: app.function()(swell.cached(ttl_s=1)(copied(deployable.numbers))), "@cached keeps no streams"),
        (
            lambda app: app.cls()(of_methods(go=swell.cached(ttl_s=1)(lambda self: 1), b=swell.method()(lambda s: 1))),
            r"go has @swell.cached\(\) and cannot be called",
        ),
        (
            lambda app: app.function(single_use_containers=True)(batched(copied(deployable.plain))),
            "single_use_containers=True gives it one input only",
        ),
        (
            lambda app: app.function()(swell.concurrent(max_inputs=15)(batched(copied(deployable.plain)))),
            r"max_inputs=15\) leaves no room .* at least 16",
        ),
        (lambda app: app.function(cpu=-1)(deployable.plain), r"App.function\(cpu=-1\): give cores above 0"),
        (lambda app: app.function(cpu=(2, 1))(deployable.plain), "the limit is below the request"),
        (lambda app: app.function(memory=1.5)(deployable.plain), "give whole MiB"),
        (lambda app: app.function(timeout=0)(deployable.plain), "give seconds above 0"),
        (lambda app: app.function(gpu=[1])(deployable.plain), "give a kind like 'L4'"),
        (lambda app: app.function(gpu=["L4", "A100:0"])(deployable.plain), "'A100:0' asks for '0' of A100"),
        (lambda app: app.function(gpu="L4:0.25")(deployable.plain), "a part of one cannot be had"),
        (lambda app: app.function(min_containers=3, max_containers=2)(deployable.plain), "above max_containers=2"),
        (lambda app: app.function(max_containers=0)(deployable.plain), "at least 1"),
        (lambda app: app.function(env={"A": 1})(deployable.plain), "must be text"),
        (lambda app: app.function(env={"A=B": "1"})(deployable.plain), "'A=B' can be no variable's name"),
        (lambda app: None, "has no function"),
    ],
)
def test_what_cannot_be_deployed_is_refused_with_its_reason(use, says: str) -> None:
    def deploy() -> App:
        app = swell.App("a")
        use(app)
        return described(app)

    with pytest.raises(swell.Error, match=says):
        deploy()


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda: swell.App("a").function()(deployable.Model), "classes take @app.cls"),
        (lambda: swell.App("a").cls()(deployable.plain), "functions take @app.function"),
        (lambda: swell.App("a").function(retries="3")(deployable.plain), "retries='3'"),
        (lambda: swell.App("a").function(retries=11)(deployable.plain), "between 0 and 10"),
        (lambda: timed(timeout_max=299), "below timeout=300"),
        (lambda: timed(timeout=5, timeout_max=0), "seconds above 0"),
        (lambda: timed(web=True, timeout_max=900), "leave it out"),
        (lambda: swell.progress("half"), "give numbers, or None, and a text"),
        (lambda: swell.progress(1, message=b"x"), "give numbers, or None, and a text"),
        (lambda: swell.App("a").function(image="debian")(deployable.plain), r"give a swell\.Image"),
        (lambda: swell.App(3), "the name must be text"),
        (lambda: swell.App("a", tags=["x"]), "give names and values"),
        (lambda: twice(swell.limit(rate="1/s"), swell.limit(concurrency=3)), r"plain has @limit\(\) twice; keep one"),
        (lambda: twice(swell.method(), swell.method(is_generator=False)), r"plain has @method\(\) twice"),
        (lambda: twice(swell.enter(), swell.exit()), "plain is two hooks at once"),
        (lambda: swell.Retries(max_retries=1, backoff_coefficient=0.5), "between 1 and 10"),
        (lambda: swell.Cron(9), r"Cron\(cron_string=9\): give text"),
        (lambda: swell.Cron("0 9 * * *", missed="never"), r"Cron\(missed='never'\): choose from 'once', 'all', 'skip'"),
        (lambda: swell.Period(hours=1.5), r"Period\(hours=1.5\): give a whole number"),
        (lambda: swell.Period(seconds="9"), r"Period\(seconds='9'\): give a number"),
        (lambda: scheduled("0 9 * * *", deployable.plain), r"schedule='0 9 \* \* \*'\): give swell.Cron"),
        (
            lambda: scheduled(swell.Period(days=1), needing),
            "needs .*, and a schedule gives no",
        ),
        (lambda: scheduled(swell.Period(days=1), deployable.numbers), "numbers is a generator, and what a schedule"),
        (lambda: swell.concurrent(), "how many inputs"),
        (lambda: swell.concurrent(max_inputs=2, target_inputs=3), "above its max_inputs"),
        (lambda: swell.batched(max_batch_size=0, wait_ms=1), "max_batch_size=0.*from 1 to 1,000"),
        (lambda: swell.batched(max_batch_size=1001, wait_ms=1), "max_batch_size=1001"),
        (lambda: swell.batched(max_batch_size=True, wait_ms=1), "whole number"),
        (lambda: swell.batched(max_batch_size=2, wait_ms=-1), "wait_ms=-1.*from 0 to 600,000"),
        (lambda: swell.batched(max_batch_size=2, wait_ms=0.5), "wait_ms=0.5"),
        (lambda: swell.transform(), "give before=, after= or both"),
        (lambda: swell.transform(before="decode"), "give a function"),
        (lambda: swell.cached(ttl_s=0), r"ttl_s=0\): must be seconds, above 0"),
        (lambda: swell.cached(ttl_s="60"), "ttl_s='60'"),
        (lambda: swell.cached(ttl_s=1, vary="a b"), "name of a header"),
        (lambda: swell.cached(ttl_s=1, vary=3), r"vary=3\): it is the name of a header"),
        (lambda: swell.cached(ttl_s=1, vary=["Swell-Timeout"]), "functions are not given it"),
        (lambda: swell.web_server(0), "from 1 to 65535"),
        (lambda: swell.web_server(80, startup_timeout=0), "seconds above 0"),
        (lambda: swell.fastapi_endpoint(method="FETCH"), "use GET, POST"),
        (lambda: swell.method()(swell.App("a").function()(deployable.plain)), "below @app.function"),
        (lambda: swell.method()(staticmethod(deployable.plain)), "goes on a function"),
        (lambda: swell.Image.debian_slim("2.7"), "write it as '3.12'"),
        (lambda: swell.Image.debian_slim().pip_install("-r x"), "a package is written like"),
        (lambda: swell.Image.debian_slim().add_local_file(__file__, "/etc/x"), "no container"),
        (lambda: swell.Image.debian_slim().add_local_file(__file__, "a/../../x"), "outside the program's own folder"),
        (lambda: swell.Image.debian_slim().workdir("here"), "absolute path"),
    ],
)
def test_what_cannot_be_written_is_refused_where_it_is_written(use, says: str) -> None:
    with pytest.raises(swell.Error, match=says):
        use()


def test_who_runs_a_program_is_told_that_its_schedules_wait_for_a_deploy() -> None:
    app = swell.App("a")
    app.function(schedule=swell.Period(hours=1))(deployable.plain)
    assert any("once it is deployed" in note for note in describe.notes(described(app, owner=OWNER)))
    assert describe.notes(described(app)) == []


def test_two_of_one_name_are_refused() -> None:
    app = swell.App("a")
    app.function(name="x")(deployable.plain)
    with pytest.raises(swell.Error, match="two functions or classes called 'x'"):
        app.function(name="x")(deployable.numbers)
    app.local_entrypoint(name="x")(deployable.plain)
    with pytest.raises(swell.Error, match="two local entry points called 'x'"):
        app.local_entrypoint(name="x")(deployable.plain)


def web(label: str | None = None) -> swell.App:
    app = swell.App("My App")
    for name in ("a_b", "a-b"):
        mark = swell.fastapi_endpoint(label=label)
        function = mark(lambda: 1)
        function.__qualname__ = function.__name__ = name.replace("-", "__")
        app.function(name=name)(function)
    return app


def test_labels_are_host_names_and_never_shared() -> None:
    with pytest.raises(swell.Error, match=r"both be the web endpoint 'a--a-b'.*label="):
        described(web())
    with pytest.raises(swell.Error, match="like 'my-label'"):
        described(web("My Label"))


def endpoint() -> Callable[[], int]:
    """`plain` without the marks of other tests."""

    def plain() -> int:
        return 1

    plain.__qualname__, plain.__module__ = "plain", deployable.__name__
    return plain


def test_a_label_of_ones_own_is_not_taken_by_an_app_that_runs_for_a_while() -> None:
    app = swell.App("a")
    app.function()(swell.fastapi_endpoint(label="mine")(endpoint()))
    webs = [described(app, owner=owner).revisions[0].entry.methods[0].web for owner in (None, OWNER)]
    assert [web.label for web in webs if web is not None] == ["mine", "mine-dev"]


@given(st.text(alphabet=string.printable, max_size=200))
def test_a_slug_is_always_a_label(text: str) -> None:
    made = labels.slug(text)
    assert 1 <= len(made) <= labels.LABEL_MAX
    assert set(made) <= set(string.ascii_lowercase + string.digits + "-")
    assert made[0] != "-" != made[-1]
    assert labels.slug(made) == made


def test_marks_are_a_functions_own() -> None:
    class Base:
        pass

    marked = swell.concurrent(max_inputs=3)(Base)
    assert marked is Base
    assert marks.of(Base).max_inputs == 3
    assert marks.of(type("Sub", (Base,), {})).max_inputs is None


def test_functions_of_two_images_have_two_bundles(tmp_path) -> None:
    (tmp_path / "x.txt").write_text("x")
    app = swell.App("a")
    app.function(image=swell.Image.debian_slim().add_local_file(tmp_path / "x.txt", "x.txt"))(deployable.plain)
    app.function()(deployable.numbers)
    app.function()(deployable.waits)
    prepared = run.prepare(app, describe.Place("a", "default", {}))
    assert len({revision.bundle for revision in prepared.app.revisions}) == 2
    assert {revision.bundle for revision in prepared.app.revisions} == set(prepared.bundles)


def test_a_built_environment_can_call_other_functions_unless_dependencies_are_left_out() -> None:
    def packages(image: swell.Image) -> tuple[str, ...]:
        app = swell.App("a", image=image)
        app.function()(deployable.plain)
        return described(app).revisions[0].environment.packages

    assert packages(swell.Image.debian_slim().pip_install("x")) == ("x", CALLER_REQUIREMENT)
    assert packages(swell.Image.debian_slim("3.99")) == (CALLER_REQUIREMENT,)
    assert packages(swell.Image.debian_slim("{}.{}".format(*sys.version_info))) == ()
    assert packages(swell.Image.debian_slim().pip_install("x", extra_options="--no-deps")) == ("x",)


def test_a_function_travels_as_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWELL_URL", "http://127.0.0.1:9")
    function = swell.Function.from_name("app", "f", environment_name="staging")
    assert repr(pickle.loads(pickle.dumps(function))) == repr(function)


def test_a_fixed_port_that_takes_one_request_at_a_time_is_told() -> None:
    def noted(serve: Callable[[], None]) -> list[str]:
        app = swell.App("a")
        app.function(name="web")(serve)
        app.function()(deployable.plain)
        return describe.notes(described(app))

    serve = swell.web_server(9301)(deployable.serve)
    assert noted(serve) == [
        "web: one replica per node can listen on its port 9301, and that takes one request at a time; "
        "@swell.concurrent(max_inputs=…) lets it take more"
    ]
    assert noted(swell.concurrent(max_inputs=10)(serve)) == []
