"""How does a user call the methods of a class that lives in replicas?"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Self

from swell.model.errors import SwellError
from swell.model.retrying import Retrying
from swell.model.variant import Parameter, typed
from swell.sdk.binding import Binding, Known, Named
from swell.sdk.chosen import NOTHING, Chosen
from swell.sdk.frames import hidden
from swell.sdk.function import Function, LocalCode, is_generator
from swell.sdk.marks import Marks
from swell.sdk.options import Optional
from swell.sdk.parameters import declared
from swell.sdk.retries import NEVER
from swell.sdk.unavailable import stand_in


class Cls(Optional):
    """A class whose instances live in replicas. Call it to get an object with remote methods."""

    def __init__(
        self,
        name: str,
        binding: Binding | Named,
        raw: type[Any] | None = None,
        members: dict[str, tuple[Callable[..., Any], Marks]] | None = None,
        retrying: Retrying | None = None,
        chosen: Chosen = NOTHING,
    ) -> None:
        super().__init__(name, binding, chosen)
        self._members = members
        self._retrying = retrying or NEVER
        self._raw = raw
        if raw is not None:
            functools.update_wrapper(self, raw, updated=())
            self.__swell_raw__ = raw

    @property
    def methods(self) -> list[str]:
        """Names of what can be reached from outside; empty for a class found by its name."""
        return [name for name, (_, marked) in (self._members or {}).items() if marked.remote]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What its objects are given; none are known of a class found by its name."""
        return declared(self._raw) if self._raw is not None else ()

    @property
    def is_plain(self) -> bool:
        """It has the parameters and options that it was deployed with."""
        return self._chosen is NOTHING

    def __call__(self, *args: Any, **kwargs: Any) -> Obj:
        """An object whose methods run in replicas, with these parameters: each set of them has replicas of its own."""
        with hidden:
            if args:
                words = f"{self.name}(…) takes its parameters by name, like {self.name}(size=3)."
                raise SwellError("bad_call", words)
            if self._raw is not None:
                typed(self.name, self.parameters, kwargs)
            return Obj(self._with(self._chosen.with_parameters(kwargs)))

    def _with(self, chosen: Chosen) -> Self:
        # The same code, and callers keep what an option says of calls.
        retrying = chosen.options.retrying or self._retrying
        return type(self)(self.name, self._binding, self._raw, self._members, retrying, chosen)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self._raw is None:
            raise AttributeError(name)
        if self._members is not None and name in self._members and self._members[name][1].remote:
            raise SwellError("bad_call", f"Make an object first: {self.name}().{name}.remote(…).")
        return getattr(self._raw, name)


class Obj:
    """An object of a remote class: each method is a `Function`; other attributes are those of a local instance."""

    def __init__(self, cls: Cls) -> None:
        self._cls = cls
        self._functions: dict[str, Function] = {}

    def __repr__(self) -> str:
        return f"<swell.Obj {self._cls._chosen.written(self._cls.name)}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self._functions:
            members = self._cls._members
            if members is None:
                cls = self._cls
                self._functions[name] = Function(f"{cls.name}.{name}", cls._binding, chosen=cls._chosen)
            elif name in members and members[name][1].remote:
                self._functions[name] = self._bind(name, *members[name])
            else:
                return getattr(self._instance, name)
        return self._functions[name]

    @property
    def update_autoscaler(self) -> Any:
        """Of the replicas it shares with all objects of its class that have the same parameters and options."""
        return self._cls.update_autoscaler

    def _bind(self, name: str, raw: Callable[..., Any], marked: Marks) -> Function:
        @functools.wraps(raw)
        def call(*args: Any, **kwargs: Any) -> Any:
            return raw(self._instance, *args, **kwargs)

        generator = is_generator(raw) if marked.generator is None else marked.generator
        local = LocalCode(call, raw, marked.web, Known(generator, self._cls._retrying, marked.cache is not None))
        return Function(f"{self._cls.name}.{name}", self._cls._binding, local, chosen=self._cls._chosen)

    @functools.cached_property
    def _instance(self) -> Any:
        """Made here on first use, with its start-up hooks run as a replica would."""
        assert self._cls._raw is not None
        made = self._cls._raw()
        for value in self._cls._chosen.parameters:
            setattr(made, value.name, value.plain)
        for hook in ("enter_snap", "enter"):
            for name, (_, marked) in (self._cls._members or {}).items():
                if marked.hook == hook:
                    _finish(getattr(made, name)())
        return made


stand_in(
    Cls,
    {
        "lookup": "Cls.lookup() is called Cls.from_name() now.",
        "remote": "A class is called as it is: Model().method.remote(…).",
    },
)


def _finish(result: Any) -> None:
    if inspect.isawaitable(result):
        import asyncio

        async def wait() -> None:
            await result

        asyncio.run(wait())
