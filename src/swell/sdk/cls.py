"""How does a user call the methods of a class that lives in replicas?"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from swell.model.errors import SwellError
from swell.model.workload import Retrying
from swell.sdk.binding import Binding, Known, Named
from swell.sdk.function import Function, LocalCode, is_generator
from swell.sdk.handle import Handle
from swell.sdk.marks import Marks
from swell.sdk.retries import NEVER
from swell.sdk.unavailable import stand_in


class Cls(Handle):
    """A class whose instances live in replicas. Call it to get an object with remote methods."""

    def __init__(
        self,
        name: str,
        binding: Binding | Named,
        raw: type[Any] | None = None,
        members: dict[str, tuple[Callable[..., Any], Marks]] | None = None,
        retrying: Retrying | None = None,
    ) -> None:
        super().__init__(name, binding)
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

    def __call__(self, *args: Any, **kwargs: Any) -> Obj:
        """An object whose methods run in replicas."""
        if args or kwargs:
            raise SwellError(
                "not_available",
                f"{self.name}(…) takes no arguments: class parameters are not available yet. Pass them to the methods.",
            )
        return Obj(self)

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
        return f"<swell.Obj {self._cls.name}()>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self._functions:
            members = self._cls._members
            if members is None:
                self._functions[name] = Function(f"{self._cls.name}.{name}", self._cls._binding)
            elif name in members and members[name][1].remote:
                self._functions[name] = self._bind(name, *members[name])
            else:
                return getattr(self._instance, name)
        return self._functions[name]

    @property
    def update_autoscaler(self) -> Any:
        """As of its class: all objects of it share its replicas."""
        return self._cls.update_autoscaler

    def _bind(self, name: str, raw: Callable[..., Any], marked: Marks) -> Function:
        @functools.wraps(raw)
        def call(*args: Any, **kwargs: Any) -> Any:
            return raw(self._instance, *args, **kwargs)

        generator = is_generator(raw) if marked.generator is None else marked.generator
        local = LocalCode(call, raw, marked.web, Known(generator, self._cls._retrying))
        return Function(f"{self._cls.name}.{name}", self._cls._binding, local)

    @functools.cached_property
    def _instance(self) -> Any:
        """Made here on first use, with its start-up hooks run as a replica would."""
        assert self._cls._raw is not None
        made = self._cls._raw()
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
        "with_batching": "Cls.with_batching() is not available yet: put @swell.batched(…) on the method.",
        "with_concurrency": "Cls.with_concurrency() is not available yet: use @concurrent.",
        "with_options": "Cls.with_options() is not available yet: give the options to @app.cls().",
    },
)


def _finish(result: Any) -> None:
    if inspect.isawaitable(result):
        import asyncio

        async def wait() -> None:
            await result

        asyncio.run(wait())
