"""Which writes belong together? Those made while a transaction is open in the same task or thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

Op = TypeVar("Op")

_open: ContextVar[Mapping[Any, Writes[Any]]] = ContextVar("swell_store_transactions", default={})  # noqa: B039 (never mutated)


class Writes(Generic[Op]):
    """What a transaction has collected. A task or thread that was started inside knows it even after its end."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.ended = False


class Transactions(Generic[Op]):
    """Collects one store's writes while a transaction is open, and hands them over together."""

    def __init__(self, commit: Callable[[list[Op]], object]) -> None:
        self._commit = commit

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Nothing is written before the end, nothing at all after an exception. Inner ones join the outer."""
        if self._present() is not None:
            yield
            return
        writes: Writes[Op] = Writes()
        token = _open.set({**_open.get(), self: writes})
        try:
            yield
        finally:
            writes.ended = True
            _open.reset(token)
        if writes.ops:
            self._commit(writes.ops)

    def takes(self, op: Op) -> bool:
        """True: a transaction is open and now holds `op`."""
        writes = self._present()
        if writes is None:
            return False
        writes.ops.append(op)
        return True

    def _present(self) -> Writes[Op] | None:
        writes = _open.get().get(self)
        return None if writes is None or writes.ended else writes
