"""Does every public argument have an effect, or is it refused? The list comes from the signatures."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest

import ignored
import swell
from sdk import deployable, sharing
from sdk.optioned import VARIED
from sdk.server import KEY, Server, serving
from shown import claims, later_says, public_arguments, public_callables
from swell.model.workload import App
from swell.sdk import arguments, describe, run, unavailable


def test_every_argument_is_in_the_table_once_and_nothing_else_is() -> None:
    effects = {(callable, name) for callable, names in arguments.EFFECTS.items() for name in names}
    refused = {(callable, name) for callable, names in arguments.REFUSED.items() for name in names}
    assert effects & refused == set()
    assert effects | refused == set(public_arguments())


@pytest.mark.slow
def test_every_argument_has_a_test_that_shows_what_it_does() -> None:
    """Claims of all tests there are, whichever of them run now; `tests/ignored.py` tries the claims."""
    assert set(claims()) == set(public_arguments())


@pytest.mark.slow
def test_an_argument_that_is_ignored_is_noticed_by_the_tests_that_show_it() -> None:
    of_another = ["tests/sdk/test_arguments.py::test_the_name_of_an_app"]
    assert ignored.noticed(of_another, "App.function", "proxy") == ""
    shown = "tests/sdk/test_arguments.py::test_an_argument_without_effect_is_refused_by_its_name"
    assert "DID NOT RAISE" in ignored.noticed([f"{shown}[App.function-proxy]"], "App.function", "proxy")


def described(app: swell.App, name: str = "a") -> App:
    return run.prepare(app, describe.Place(name, "default", app.tags)).app


def image() -> swell.Image:
    return swell.Image.debian_slim()


def with_function(**given: Any) -> App:
    app = swell.App("a", image=image())
    app.function(**given)(deployable.plain)
    return described(app)


def with_class(**given: Any) -> App:
    app = swell.App("a", image=image())
    app.cls(**given)(deployable.Model)
    return described(app)


def with_image(made: swell.Image) -> App:
    app = swell.App("a", image=made)
    app.function()(deployable.plain)
    return described(app)


def marked(decorator: Callable[[Any], Any]) -> App:
    """`plain` below a decorator of its own."""

    def plain(x: int = 1) -> int:
        return 1

    plain.__qualname__, plain.__module__ = "plain", deployable.__name__
    app = swell.App("a")
    app.function()(decorator(plain))
    return described(app)


def with_method(**given: Any) -> App:
    app = swell.App("a")
    made = type("Made", (), {"plain": swell.method(**given)(lambda self: 1), "__module__": deployable.__name__})
    app.cls()(made)
    return described(app)


def with_enter(**given: Any) -> App:
    app = swell.App("a")
    hook, method = swell.enter(**given)(lambda self: None), swell.method()(lambda self: 1)
    made = type("Made", (), {"hook": hook, "method": method, "__module__": deployable.__name__})
    app.cls(enable_memory_snapshot=True)(made)
    return described(app)


RESOURCES: dict[str, Any] = {
    "image": swell.Image.debian_slim().env({"A": "1"}),
    "env": {"A": "1", "B": None},
    "secrets": [swell.Secret.from_name("db")],
    "volumes": {"/data": swell.Volume.from_name("data")},
    "gpu": ["L4", "A100"],
    "cpu": (0.5, 2),
    "memory": (256, 512),
    "min_containers": 1,
    "max_containers": 3,
    "buffer_containers": 2,
    "scaledown_window": 5,
    "retries": 2,
    "timeout": 7,
    "timeout_max": 900,
    "startup_timeout": 8,
    "enable_memory_snapshot": True,
    "single_use_containers": True,
    "include_source": False,
    "block_network": True,
    "restrict_modal_access": True,
}
WEB = {"label": "own", "requires_proxy_auth": True}
INDEX = {"find_links": "/wheels", "index_url": "https://a", "extra_index_url": "https://b", "pre": True}
PIP = {**INDEX, "extra_options": "--no-deps --quiet"}
PYPROJECT = str(Path(__file__).parents[2] / "pyproject.toml")
EMPTY = str(Path(__file__).with_name("empty.txt"))

DIFFERENCES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "App.function": (with_function, {**RESOURCES, "name": "other", "is_generator": True, "nodes": 2}),
    "clustered": (lambda **given: marked(swell.clustered(**{"size": 2, **given})), {"size": 3}),
    "App.cls": (with_class, RESOURCES),
    **VARIED,
    "method": (with_method, {"is_generator": True}),
    "enter": (with_enter, {"snap": True}),
    "fastapi_endpoint": (
        lambda **given: marked(swell.fastapi_endpoint(**given)),
        {**WEB, "method": "POST", "docs": True},
    ),
    "asgi_app": (lambda **given: marked(swell.asgi_app(**given)), WEB),
    "wsgi_app": (lambda **given: marked(swell.wsgi_app(**given)), WEB),
    "web_server": (
        lambda **given: marked(swell.web_server(**{"port": 8000, **given})),
        {**WEB, "port": 9000, "startup_timeout": 3.0},
    ),
    "concurrent": (
        lambda **given: marked(swell.concurrent(**{"max_inputs": 4, **given})),
        {"max_inputs": 9, "target_inputs": 2},
    ),
    "limit": (
        lambda **given: marked(swell.limit(**{"rate": "1/s", **given})),
        {"rate": "30/min", "burst": 7, "concurrency": 3, "body_max": "2KiB"},
    ),
    "batched": (
        lambda **given: marked(swell.batched(**{"max_batch_size": 4, "wait_ms": 5, **given})),
        {"max_batch_size": 9, "wait_ms": 50},
    ),
    "cached": (lambda **given: marked(swell.cached(**{"ttl_s": 60, **given})), {"ttl_s": 5, "vary": ["accept"]}),
    "isolated": (
        lambda **given: marked(swell.isolated(**given)),
        {"network": "node", "readable": ["/models"], "writable": ["/data"], "optional": ["landlock"]},
    ),
    "Retries": (
        lambda **given: with_function(retries=swell.Retries(**{"max_retries": 1, **given})),
        {"max_retries": 3, "backoff_coefficient": 3.0, "initial_delay": 0.5, "max_delay": 9.0},
    ),
    "Image.debian_slim": (lambda **given: with_image(swell.Image.debian_slim(**given)), {"python_version": "3.99"}),
    "Image.pip_install": (lambda **given: with_image(image().pip_install("numpy", **given)), PIP),
    "Image.uv_pip_install": (lambda **given: with_image(image().uv_pip_install("numpy", **given)), PIP),
    "Image.pip_install_from_requirements": (
        lambda **given: with_image(image().pip_install_from_requirements(EMPTY, **given)),
        PIP,
    ),
    "Image.pip_install_from_pyproject": (
        lambda **given: with_image(image().pip_install_from_pyproject(PYPROJECT, **given)),
        PIP,
    ),
    "Image.uv_sync": (lambda **given: with_image(image().uv_sync(**given)), {}),
    **{
        f"Image.{base}": (
            lambda base=base, **given: with_image(getattr(swell.Image, base)(**{"tag": "a:1", **given})),
            {"tag": "b:1", "setup_dockerfile_commands": ["RUN true"], "add_python": "3.12"},
        )
        for base in ("from_registry", "from_aws_ecr", "from_gcp_artifact_registry")
    },
    "Image.micromamba": (
        lambda **given: with_image(swell.Image.micromamba(**{"python_version": "3.12", **given})),
        {"python_version": "3.13"},
    ),
    "Image.from_dockerfile": (
        lambda **given: with_image(swell.Image.from_dockerfile(**{"path": EMPTY, **given})),
        {"path": PYPROJECT, "build_args": {"A": "1"}, "add_python": "3.12"},
    ),
    "Image.apt_install": (lambda **given: with_image(image().apt_install("git", **given)), {}),
    "Image.from_scratch": (lambda **given: with_image(swell.Image.from_scratch(**given)), {}),
    "Image.run_commands": (lambda **given: with_image(image().run_commands("true", **given)), {}),
    "Image.dockerfile_commands": (
        lambda **given: with_image(image().dockerfile_commands("RUN true", **given)),
        {"build_args": {"A": "1"}},
    ),
    "Image.micromamba_install": (
        lambda **given: with_image(image().micromamba_install("git", **given)),
        {"channels": ["conda-forge"], "spec_file": EMPTY},
    ),
    "Image.run_function": (
        lambda **given: with_image(image().run_function(**{"raw_f": deployable.plain, **given})),
        {
            "raw_f": deployable.waits,
            "args": (1,),
            "kwargs": {"x": 1},
            "env": {"A": "1"},
            "secrets": [swell.Secret.from_name("db")],
            "timeout": 7,
        },
    ),
    "App": (
        lambda **given: described_app(swell.App("a", **given)),
        {
            "tags": {"team": "x"},
            "image": image().env({"A": "1"}),
            "include_source": False,
            "secrets": [swell.Secret.from_name("db")],
            "volumes": {"/data": swell.Volume.from_name("data")},
        },
    ),
}
"""Callable → how to deploy with arguments of it, and a value of each that must change what is deployed."""


def described_app(app: swell.App) -> App:
    app.function()(deployable.plain)
    return described(app)


@pytest.mark.parametrize(("callable", "name"), [(c, name) for c, (_, values) in DIFFERENCES.items() for name in values])
def test_an_argument_changes_what_is_deployed(callable: str, name: str) -> None:
    deploy, values = DIFFERENCES[callable]
    changed = set(differences(deploy(), deploy(**{name: values[name]}))) - {"Workload.revision"}
    assert changed
    assert changed <= set(FIELD.findall(arguments.EFFECTS[callable][name])), "its words do not say so"


def differences(one: Any, other: Any) -> Iterator[str]:
    """Fields, as `Type.field`, in which two documents differ: the innermost that the table speaks of."""
    for field in one.__struct_fields__:
        before, after = getattr(one, field), getattr(other, field)
        parts = list(zip(before, after, strict=False)) if isinstance(before, tuple) else [(before, after)]
        if before != after and isinstance(parts[0][0] if parts else None, msgspec.Struct) and field != "retrying":
            for part in parts:
                yield from differences(*part)
        elif before != after:
            yield f"{type(one).__name__}.{field}"


FIELD = re.compile(r"\b[A-Z]\w+\.[a-z_]+")


# -- refusals --------------------------------------------------------------------------------------

VALUES: dict[str, Any] = {
    "secrets": ["x"],
    "network_file_systems": {"/data": "x"},
    "experimental_options": {"x": 1},
    "ephemeral_disk": 1024,
    "max_inputs": 1,
    "strategy": "recreate",
    "tag": "v2",
    "version": 3,
    "custom_domains": ["x.example"],
    "region": "eu",
    "env": {"A": "1"},
}
"""A value that is not the default; True for the others."""


def refuse(callable: str, **given: Any) -> None:
    """Use `callable` with an argument and deploy (or make the call, where it is a call)."""
    if callable in ("App.run", "App.deploy", "App.stop"):
        app = swell.App("a")
        app.function()(deployable.plain)
        getattr(app, callable.partition(".")[2])(**given)
    elif callable == "App.lookup":
        swell.App.lookup("a", **given)
    elif callable.startswith(("Dict.", "FunctionCall.", "Queue.")):
        sharing.use(callable, **given)
    elif callable.endswith((".from_name", ".from_dotenv")) or callable.startswith("Volume."):
        owner, _, method = callable.partition(".")
        taken = {"ephemeral": 0, "delete": 1, "rename": 2}.get(method, 1 if owner in ("Secret", "Volume") else 2)
        getattr(getattr(swell, owner), method)(*["a", "b"][:taken], **given)
    elif callable.startswith("Image.add_local"):
        words = {"file": (__file__, "x"), "dir": (str(Path(__file__).parent), "x"), "python_source": ("swell",)}
        with_image(getattr(image(), callable[6:])(*words[callable.removeprefix("Image.add_local_")], **given))
    else:
        DIFFERENCES[callable][0](**given)


@pytest.mark.parametrize(
    ("callable", "name"),
    [
        pytest.param(callable, name, marks=pytest.mark.shows(callable, name))
        for callable, names in arguments.REFUSED.items()
        for name in names
    ],
)
def test_an_argument_without_effect_is_refused_by_its_name(callable: str, name: str) -> None:
    with pytest.raises(swell.Error) as raised:
        refuse(callable, **{name: VALUES.get(name, True)})
    assert raised.value.code == "unsupported_argument"
    assert f"{callable}({name}=" in str(raised.value)
    assert arguments.REFUSED[callable][name] in str(raised.value)


# -- effects that are not in what is deployed ---------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving({"plain": lambda *a, **k: (a, k), "numbers": lambda n: iter_of(n), "C.m": lambda x: x}) as state:
        monkeypatch.setenv("SWELL_URL", state.url)
        monkeypatch.setenv("SWELL_KEY", KEY)
        yield state


def iter_of(n: int) -> Iterator[int]:
    yield from range(n)


def test_the_name_of_an_app() -> None:
    assert described_app(swell.App("a")) == described_app(swell.App("b"))
    app = swell.App()
    app.function()(deployable.plain)
    with pytest.raises(swell.Error, match="needs a name to be deployed"):
        app.deploy()


@pytest.mark.parametrize("deploy", [with_function, with_class])
def test_a_snapshot_that_is_asked_for_is_marked_and_holds_the_hooks(deploy: Callable[..., App]) -> None:
    (plain,), (asked,) = deploy().revisions, deploy(enable_memory_snapshot=True).revisions
    assert (plain.snapshot, plain.template) == (False, True)
    assert (asked.snapshot, asked.template) == (True, True)
    assert plain.entry.enter_snap == ()
    # Nothing is lost or run twice; only where it runs is another.
    assert asked.entry.enter_snap + asked.entry.enter == plain.entry.enter
    assert bool(asked.entry.enter_snap) == (deploy is with_class)


def test_a_local_entry_point_may_have_another_name() -> None:
    app = swell.App("a")
    app.local_entrypoint(name="go")(deployable.plain)
    assert list(app.registered_entrypoints) == ["go"]
    assert app.registered_entrypoints["go"](5) == 5


def test_include_takes_functions_classes_entry_points_and_tags() -> None:
    other = swell.App("b", tags={"x": "b", "y": "b"})
    function = other.function()(deployable.plain)
    other.cls()(deployable.Model)
    other.local_entrypoint()(deployable.numbers)
    app = swell.App("a", tags={"x": "a"}).include(other)
    assert app.registered_functions == {"plain": function}
    assert list(app.registered_classes) == ["Model"]
    assert list(app.registered_entrypoints) == ["numbers"]
    assert app.tags == {"x": "a", "y": "b"}
    assert {workload.name for workload in described(app).workloads} == {"plain", "Model"}
    assert swell.App("c").include(other, inherit_tags=False).tags == {}


def test_run_arguments(server: Server) -> None:
    app = swell.App("a")
    function = app.function()(deployable.plain)
    with app.run(name="mine", environment_name="staging"):
        (key,) = server.apps
        assert key.startswith("staging/mine--")
        assert server.apps[key].owner is not None
        assert function.remote(1) == ((1,), {})
        assert server.calls == [f"{key}/plain"]
    assert server.stopped == [key]
    with app.run(detach=True):
        assert not any(deployed.owner for deployed in server.apps.values())
    assert len(server.apps) == 1


def test_deploy_and_lookup_arguments(server: Server) -> None:
    app = swell.App("a")
    function = app.function()(deployable.plain)
    app.deploy(name="b", environment_name="staging")
    assert list(server.apps) == ["staging/b"]
    assert function.remote() == ((), {})
    found = swell.App.lookup("b", environment_name="staging")
    with pytest.raises(swell.Error, match="There is no app 'b'"):
        swell.App.lookup("b")
    found.stop()
    assert server.apps == {}


def test_from_name_arguments(server: Server) -> None:
    assert swell.Function.from_name("a", "plain").remote(1) == ((1,), {})
    assert swell.Function.from_name("a", "plain", environment_name="staging").remote(1) == ((1,), {})
    assert swell.Cls.from_name("a", "C", environment_name="staging")().m.remote(2) == 2
    assert server.calls == ["a/plain", "staging/a/plain", "staging/a/C.m"]


def test_call_arguments(server: Server) -> None:
    app = swell.App("a")
    plain, numbers = app.function()(deployable.plain), app.function()(deployable.numbers)
    with app.run():
        assert plain.remote(1, b=2) == ((1,), {"b": 2})
        assert plain.local(x=5) == plain.local(5) == plain(5) == 5
        assert list(numbers.remote_gen(3)) == list(numbers.remote_gen(n=3)) == [0, 1, 2]
        assert list(plain.map([1, 2], [3, 4], kwargs={"k": 1})) == [((1, 3), {"k": 1}), ((2, 4), {"k": 1})]
        assert list(plain.starmap([(1, 2)], kwargs={"k": 1})) == [((1, 2), {"k": 1})]
        for results in (
            lambda: plain.map([0, 1], order_outputs=False),
            lambda: plain.starmap([(0,), (1,)], order_outputs=False),
        ):
            server.functions["plain"], release = held_first()
            found = results()
            assert next(found) == 1
            release.set()
            assert list(found) == [0]
        assert list(plain.map([0, 1])) == list(plain.starmap([(0,), (1,)])) == [0, 1]
        server.functions["plain"] = fails
        assert [str(each) for each in plain.map([0, 1], return_exceptions=True)] == ["0", "1"]
        assert [str(each) for each in plain.starmap([(0,)], return_exceptions=True)] == ["0"]
        plain.for_each([0, 1], ignore_exceptions=True)
        with pytest.raises(LookupError):
            plain.for_each([0], kwargs={})


def held_first() -> tuple[Callable[[int], int], Event]:
    """A function that answers 0 only once it is released."""
    release = Event()
    return lambda x: x if x or release.wait(30) else -1, release


def fails(x: int) -> None:
    raise LookupError(x)


def test_image_arguments(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("scipy>=1  # why\n\nrich\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "keep.txt").write_text("k")
    (tmp_path / "d" / "drop.log").write_text("d")

    def environment(made: swell.Image) -> Any:
        return with_image(made).revisions[0].environment

    def places(made: swell.Image) -> list[str]:
        from swell.sdk import bundle
        from swell.sdk.image import read

        return sorted(bundle.gather(list(read(made).attached)))

    assert environment(image().pip_install("a", ["b", "c"])).packages[:3] == ("a", "b", "c")
    found = environment(image().uv_pip_install("a", requirements=[str(tmp_path / "r.txt")]))
    assert found.packages[:3] == ("a", "scipy>=1", "rich")
    assert environment(image().env({"B": "2", "A": "1"})).variables == (("A", "1"), ("B", "2"))
    assert environment(image().workdir("/srv")).workdir == "/srv"
    assert places(image().add_local_file(tmp_path / "r.txt", "in/req.txt")) == ["in/req.txt"]
    assert places(image().add_local_file(tmp_path / "r.txt", "/root/")) == ["r.txt"]
    assert places(image().add_local_file(tmp_path / "r.txt", "/root")) == ["r.txt"]
    assert places(image().add_local_dir(tmp_path / "d", "data")) == ["data/drop.log", "data/keep.txt"]
    assert places(image().add_local_dir(tmp_path / "d", "data", ignore=["*.log"])) == ["data/keep.txt"]
    assert places(image().add_local_dir(tmp_path / "d", "x", ignore=lambda path: path.suffix == ".txt")) == [
        "x/drop.log"
    ]
    assert places(image().add_local_python_source("swell.sdk.flags")) == ["swell/sdk/flags.py"]
    assert places(image().add_local_python_source("swell.sdk", ignore=["a*"])) != places(
        image().add_local_python_source("swell.sdk")
    )
    assert image().pipe(lambda made, name, value: made.env({name: value}), "A", value="1") == image().env({"A": "1"})


# -- what is not there yet --------------------------------------------------------------------------


def not_yet() -> Iterator[tuple[str, Callable[[], Any]]]:
    for name in unavailable.NOUNS:
        yield f"{name}.from_name", lambda name=name: getattr(swell, name).from_name("x")
        yield name, lambda name=name: getattr(swell, name)("x", y=1)
    for name in unavailable.FUNCTIONS:
        yield name, lambda name=name: getattr(swell, name)(size=1)
    for callable, function in public_callables():
        if later_says(function):
            yield callable, function


@pytest.mark.parametrize(("name", "use"), list(not_yet()), ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_there_says_so_when_it_is_used(name: str, use: Callable[[], Any]) -> None:
    with pytest.raises(swell.Error) as raised:
        use()
    assert raised.value.code == "not_available"
    assert len(str(raised.value)) > 20


def test_what_is_not_there_can_stand_in_annotations() -> None:
    assert (swell.Queue | None) is not None
    assert inspect.isclass(swell.Secret)
    assert not hasattr(swell.Secret, "__wrapped__")
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        swell.Nonsense
