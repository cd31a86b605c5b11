"""Who is worked on at a simulated replica, and whose turn is next there? The one counter that is true of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from swell.decide.room import Told
from swell.runtime.turns import Line

R = TypeVar("R")


class Ticket:
    """A gateway's question for a slot, and the slot once it is `given`."""

    def __init__(self, given: Callable[[Ticket, Told], None]) -> None:
        self.given = given


class Slots(Generic[R]):
    """What `runtime/slots` and `runtime/turns` are in a replica."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running: list[R] = []
        self.line: Line[Ticket] = Line()

    @property
    def free(self) -> int:
        """Slots that nobody has."""
        return self.limit - len(self.running) - len(self.line.given)

    def take(self, request: R, ticket: Ticket | None) -> bool:
        """A request is here, perhaps for the slot that was kept for it. Is it admitted?"""
        if ticket is not None:
            self.line.leave(ticket)
        admitted = self.free > 0
        if admitted:
            self.running.append(request)
        self._pass_on()
        return admitted

    def end(self, request: R) -> None:
        """It is over, however."""
        if request in self.running:
            self.running.remove(request)
            self._pass_on()

    def ask(self, ticket: Ticket) -> None:
        """Somebody wants the next slot that is free."""
        self.line.waiting.append(ticket)
        self._pass_on()

    def leave(self, ticket: Ticket) -> None:
        """It wants none any more, or does not use the one it has."""
        self.line.leave(ticket)
        self._pass_on()

    def _pass_on(self) -> None:
        while self.line.waiting and self.free > 0:
            ticket = self.line.next()
            ticket.given(ticket, Told(self.free, len(self.line.waiting)))
