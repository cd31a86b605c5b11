"""What is around a gang that works on a call? One server with an app whose calls gangs of three work on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from control.calls_place import WAIT_S, Place, new
from swell.control import calls as module
from swell.control import wants
from swell.model.call import Call
from swell.model.gang import Gang
from swell.model.retrying import Retrying
from swell.store.memory import MemoryStore
from swell.wire.calls import EndedHeard, Lease, Revoke

SIZE = 3


def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.001)
    monkeypatch.setattr(wants, "TELL_S", 0.0)


def play(scenario: Callable[[Place], Awaitable[None]], retries: int = 0, gang: Gang | None = None) -> None:
    """One server with an app whose calls gangs of three work on."""

    async def begun() -> None:
        place = Place(MemoryStore())
        await place.open()
        retrying = Retrying(retries, 0.0, 1.0, 0.0)
        place.deploy("a", gang=gang or Gang(SIZE), single_use=True, max_inputs=1, retrying=retrying)
        try:
            await asyncio.wait_for(scenario(place), WAIT_S)
        finally:
            await place.close()

    asyncio.run(begun())


async def given_out(place: Place, size: int = SIZE) -> tuple[str, list[str], list[Lease]]:
    """A call that a gang has: its id, the members, and the lease of each, by rank."""
    members = place.start_gang("a", size)
    id = await place.keeper.accept(new())
    await place.settle()
    leases = [lease for member in members for lease, (at, _) in place.runner.held.items() if at == member]
    assert len(leases) == size
    return id, members, leases


def kept(place: Place, id: str) -> Call:
    found = place.store.call_records.get(id)
    assert found is not None
    return found


def heard(place: Place) -> set[Lease]:
    return {lease for frame in place.sent if isinstance(frame, EndedHeard) for lease in frame.calls}


def revoked(place: Place) -> set[Lease]:
    return {lease for frame in place.sent if isinstance(frame, Revoke) for lease in frame.calls}
