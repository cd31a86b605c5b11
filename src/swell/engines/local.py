"""How does control see the replicas of a real runner? As an engine, over whatever link carries the words.

It holds no process and no socket: orders go out by a callable, facts come in by `hear`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from swell.model.orders import BuildReport, Inventory, Order
from swell.model.ports import Fact
from swell.model.workload import Revision

log = logging.getLogger("swell.engines")


class LocalEngine:
    """The engine port for runners that connect to control."""

    name = "local"
    capabilities: frozenset[str] = frozenset({"gpu"})

    def __init__(
        self,
        send: Callable[[Order, int], None],
        ask_build: Callable[[Revision, Callable[[str], None]], Awaitable[BuildReport]],
    ) -> None:
        """`send(order, epoch)` gives an order to the runner, or loses it: orders are repeated anyway.
        `ask_build(revision, progress)` has a runner build; raises SwellError when there is none."""
        self._send = send
        self._ask_build = ask_build
        self._listeners: list[Callable[[Fact], None]] = []
        self._inventory: Inventory | None = None
        self._epoch = 0

    def apply(self, order: Order, epoch: int) -> None:
        """Pass an order on; one of an epoch below one seen before is refused: its sender was replaced."""
        if epoch < self._epoch:
            log.warning("an order of epoch %d is refused: epoch %d has been seen", epoch, self._epoch)
            return
        self._epoch = epoch
        self._send(order, epoch)

    def inventory(self) -> Inventory | None:
        """The newest full inventory; None while no runner has been heard."""
        return self._inventory

    def listen(self, heard: Callable[[Fact], None]) -> None:
        """Every fact from now on goes to `heard`, in order."""
        self._listeners.append(heard)

    def hear(self, fact: Fact) -> None:
        """A runner said something."""
        if isinstance(fact, Inventory):
            self._inventory = fact
        for heard in self._listeners:
            heard(fact)

    async def build(self, revision: Revision, progress: Callable[[str], None]) -> BuildReport:
        """Make the revision's environment exist and import its module there once."""
        return await self._ask_build(revision, progress)
