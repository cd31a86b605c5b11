"""Which writes belong together? Those made while a transaction is open in the same task or thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

Op = TypeVar("Op")

_open: ContextVar[Mapping[Any, list[Any]]] = ContextVar("swell_store_transactions", default={})  # noqa: B039 (never mutated)


class Transactions(Generic[Op]):
    """Collects one store's writes while a transaction is open, and hands them over together."""

    def __init__(self, commit: Callable[[list[Op]], object]) -> None:
        self._commit = commit

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Nothing is written before the end, nothing at all after an exception. Inner ones join the outer."""
        if self in _open.get():
            yield
            return
        ops: list[Op] = []
        token = _open.set({**_open.get(), self: ops})
        try:
            yield
        finally:
            _open.reset(token)
        if ops:
            self._commit(ops)

    def takes(self, op: Op) -> bool:
        """True: a transaction is open and now holds `op`."""
        ops = _open.get().get(self)
        if ops is None:
            return False
        ops.append(op)
        return True
