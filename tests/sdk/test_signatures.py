"""Does a call that does not fit say what is called otherwise now, or what is near?"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

import pytest

import swell
from sdk import deployable
from shown import later_says, public_callables
from swell.sdk import arguments, signatures


def takers() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Public callables that do not take whatever they are given."""
    for name, function in public_callables():
        kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
        if not later_says(function) and inspect.Parameter.VAR_KEYWORD not in kinds:
            yield name, function


def use(name: str, *args: Any, **kwargs: Any) -> Any:
    """Call it as a user does, on an object of its class."""
    owner, _, method = name.partition(".")
    app = swell.App("a")
    objects = {
        "App": app,
        "Function": app.function()(deployable.plain),
        "Cls": app.cls()(deployable.Model),
        "Image": swell.Image(),
        "FunctionCall": swell.FunctionCall.from_id("fc-1"),
        "Secret": swell.Secret,
        "Volume": swell.Volume.from_name("v"),
        "Dict": swell.Dict.from_name("d"),
        "Queue": swell.Queue.from_name("q"),
    }
    found = getattr(swell, owner)
    if method:
        found = attrgetter(method)(found if method in ("from_name", "lookup") else objects[owner])
    return found(*args, **kwargs)


@pytest.mark.parametrize("name", [name for name, _ in takers()])
def test_an_argument_that_is_not_there_is_an_error_of_ours_everywhere(name: str) -> None:
    with pytest.raises(swell.Error, match="no such argument") as raised:
        use(name, nonsense_of_mine=1)
    assert raised.value.code == "bad_argument"
    assert raised.value.message.startswith(f"{name.replace('web_endpoint', 'fastapi_endpoint')}(nonsense_of_mine=…)")
    # Nothing of ours stands between the user's line and the message, save where that line is.
    assert "/swell/sdk/" not in raised.traceback[-1].path.as_posix()


@pytest.mark.parametrize("old", [*signatures.RENAMED, *signatures.GONE])
def test_a_former_argument_says_what_to_write_now(old: str) -> None:
    with pytest.raises(swell.Error) as raised:
        swell.App("a").cls(**{old: 1})
    assert f"({old}=…): " in raised.value.message
    assert signatures.RENAMED.get(old) or signatures.GONE[old] in raised.value.message


def test_what_former_arguments_are_called_now_is_there() -> None:
    there = {name for _, function in takers() for name in inspect.signature(function).parameters}
    assert set(signatures.RENAMED.values()) <= there
    assert not there & (set(signatures.RENAMED) - {"secret", "tag"})
    with pytest.raises(swell.Error, match="container_idle_timeout is called scaledown_window now"):
        swell.App("a").function(container_idle_timeout=60)


def test_what_a_decorator_says_is_led_to_it() -> None:
    with pytest.raises(swell.Error, match=r"no such argument; use the decorator @swell\.isolated\(\)"):
        use("App.function", isolation="sandbox")


def test_near_arguments_are_named() -> None:
    with pytest.raises(swell.Error, match=r"App\.function\(timout=…\): .* Did you mean timeout"):
        swell.App("a").function(timout=3)
    with pytest.raises(swell.Error, match=r"Function\.map\(return_exception=…\).*Did you mean return_exceptions"):
        use("Function.map", [1], return_exception=True)


@pytest.mark.parametrize("name", arguments.REFUSED)
def test_only_arguments_that_do_something_are_offered(name: str) -> None:
    with pytest.raises(swell.Error, match="no such argument") as raised:
        use(name, nonsense_of_mine=1)
    listed = raised.value.message.partition("Choose from: ")[2].rstrip(".").split(", ")
    taken = inspect.signature(dict(takers())[name]).parameters
    assert listed == ([each for each in taken if each in arguments.EFFECTS.get(name, ())] or ["none"])


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("App.function", deployable.plain),
        ("App.cls", deployable.Model),
        ("App.local_entrypoint", deployable.plain),
        ("method", deployable.plain),
        ("enter", deployable.plain),
        ("concurrent", deployable.Model),
        ("batched", deployable.plain),
        ("cached", deployable.plain),
        ("transform", deployable.plain),
        ("fastapi_endpoint", deployable.plain),
        ("asgi_app", deployable.plain),
        ("wsgi_app", deployable.plain),
    ],
)
def test_a_decorator_without_parentheses_says_so(name: str, what: Any) -> None:
    with pytest.raises(swell.Error, match=rf"Write @.*{name.partition('.')[2]}\(\) with parentheses"):
        use(name, what)


def test_an_argument_that_is_missing_is_named() -> None:
    with pytest.raises(swell.Error, match=r"web_server\(…\): missing a required argument: 'port'"):
        swell.web_server()
    with pytest.raises(swell.Error, match=r"Retries\(…\): missing a required (keyword-only )?argument: 'max_retries'"):
        swell.Retries()
    with pytest.raises(swell.Error, match=r"Retries\(…\): too many positional arguments. Its arguments: max_retries"):
        swell.Retries(3)


def test_a_type_error_of_the_users_own_is_not_touched() -> None:
    def step(image: swell.Image, size: int) -> None:
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        swell.Image().pipe(step, 1)
    with pytest.raises(TypeError, match="takes 2 positional"):
        swell.Image().pipe(step, 1, 2)


def test_signatures_are_exact() -> None:
    assert "kwargs" not in inspect.signature(swell.App.function).parameters
    assert list(inspect.signature(swell.Function.from_name).parameters)[:2] == ["app_name", "name"]
    assert next(iter(inspect.signature(swell.Retries).parameters)) == "max_retries"


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda: swell.Stub("x"), "called App now"),
        (lambda: swell.gpu.A100(count=2), "gpu='A100:2'"),
        (lambda: swell.Mount.from_local_dir("x"), "add_local_dir"),
        (lambda: swell.build(), "enter"),
        (lambda: swell.Image().copy_local_file("x"), "add_local_file"),
        (lambda: swell.Image.conda(), "micromamba"),
        (lambda: swell.Function.lookup("a", "f"), "Function.from_name"),
        (lambda: swell.Cls.lookup("a", "f"), "Cls.from_name"),
        (lambda: swell.Function.from_name("a", "f").web_url, "get_web_url"),
        (lambda: swell.App("a").webhook(), "fastapi_endpoint"),
    ],
)
def test_former_names_say_todays(use: Callable[[], Any], says: str) -> None:
    with pytest.raises(swell.Error) as raised:
        use()
    assert raised.value.code == "not_available"
    assert says in raised.value.message


def test_a_method_can_be_looked_at_and_called_by_way_of_its_class() -> None:
    assert list(inspect.signature(swell.App.deploy).parameters)[:2] == ["self", "name"]
    with pytest.raises(swell.Error, match="name"):
        swell.App.deploy(swell.App())
