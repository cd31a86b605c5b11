"""What runs around a method? `before` makes its arguments of what a caller sent, `after` the answer of its result.

They stand on the method itself (`@transform`): plain functions, or methods of its class. Beside a batch each runs by
itself, for one input; around any other method they are part of the call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import AsyncGeneratorType, GeneratorType
from typing import Any, NamedTuple

from swell.model.errors import InvalidError, SwellError
from swell.runtime.arguments import Given

_Hook = Callable[..., Any]
_ATTRIBUTE = "__swell_transform__"
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Refusal(SwellError):
    """An answer in these words: nothing went wrong that the log should tell of."""


class Hooks(NamedTuple):
    """Of one method, bound to its object."""

    before: _Hook | None = None
    after: _Hook | None = None
    spread: Callable[[Any], Given] = lambda value: ((value,), {})
    """What `before` returned as the method's arguments."""

    def __bool__(self) -> bool:
        return self.before is not None or self.after is not None


def hooks_of(method: _Hook) -> Hooks:
    """Those of a function, or of a bound method."""
    noted = getattr(method, _ATTRIBUTE, None)
    if noted is None:
        return Hooks()
    owner = getattr(method, "__self__", None)
    before, after = (None if hook is None else _bound(hook, owner) for hook in noted)
    return Hooks(before, after, _spread(method))


def _bound(hook: _Hook, owner: object) -> _Hook:
    """A hook that is a method of the object's class is bound to the object."""
    if owner is None:
        return hook
    names = (name for base in type(owner).__mro__ for name, value in vars(base).items() if value is hook)
    name = next(names, None)
    bound: _Hook = hook if name is None else hook.__get__(owner, type(owner))
    return bound


def _spread(method: _Hook) -> Callable[[Any], Given]:
    taken = [each for each in inspect.signature(method).parameters.values() if each.kind not in _VARIADIC]
    several = len(taken) > 1

    def spread(value: Any) -> Given:
        if several and isinstance(value, tuple):
            return value, {}
        if several and isinstance(value, dict):
            return (), value
        return (value,), {}

    return spread


def asked(hook: _Hook, *args: Any, **kwargs: Any) -> Any:
    """What a hook returned. An `InvalidError` of its author's own words is the caller's: Refusal."""
    try:
        return hook(*args, **kwargs)
    except InvalidError as error:
        raise _refusal(error) from None


async def asked_async(hook: _Hook, *args: Any, **kwargs: Any) -> Any:
    """The same; the hook may be asynchronous."""
    try:
        value = hook(*args, **kwargs)
        return await value if inspect.isawaitable(value) else value
    except InvalidError as error:
        raise _refusal(error) from None


def _refusal(error: InvalidError) -> SwellError:
    # One with a code came from elsewhere: of a call that the hook made, say.
    return error if error.code else Refusal("bad_arguments", error.message, status=422, detail=error.detail)


def around(method: _Hook, generator: bool) -> _Hook:
    """A method with its hooks as one; itself where it has none. `generator`: whatever it returns is streamed."""
    hooks = hooks_of(method)
    if not hooks:
        return method
    is_async = inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
    return _around_async(method, hooks) if is_async else _around_sync(method, hooks, generator)


def _around_sync(method: _Hook, hooks: Hooks, generator: bool) -> _Hook:
    before, after, spread = hooks

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            args, kwargs = spread(asked(before, *args, **kwargs))
        result = method(*args, **kwargs)
        if after is None:
            return result
        if isinstance(result, GeneratorType) or (generator and isinstance(result, Iterable)):
            return _each(result, after)
        return asked(after, result)

    return call


def _around_async(method: _Hook, hooks: Hooks) -> _Hook:
    before, after, spread = hooks

    @functools.wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            args, kwargs = spread(await asked_async(before, *args, **kwargs))
        result = method(*args, **kwargs)
        if inspect.isawaitable(result):
            result = await result
        if after is None:
            return result
        if isinstance(result, AsyncGeneratorType):
            return _each_async(result, after)
        return await asked_async(after, result)

    return call


def _each(items: Iterable[Any], after: _Hook) -> Iterator[Any]:
    try:
        for item in items:
            yield asked(after, item)
    finally:
        if isinstance(items, GeneratorType):
            items.close()


async def _each_async(items: AsyncGeneratorType[Any, Any], after: _Hook) -> AsyncIterator[Any]:
    try:
        async for item in items:
            yield await asked_async(after, item)
    finally:
        await items.aclose()
