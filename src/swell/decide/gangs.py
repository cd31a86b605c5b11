"""Gangs as they are counted, which of them are of no use, and which would give way to one that is worth more.

A gang is counted as one replica of its pool: it takes one input, and it starts, works and ends as one.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from swell.decide.place import capacity
from swell.model.call import PRIORITY_MAX
from swell.model.demand import Demand
from swell.model.gang import Gang
from swell.model.replica import Phase, Replica
from swell.model.resources import Held, Needs, Room
from swell.model.world import World


class Giving(NamedTuple):
    """What may give its room to a gang: something to spare, or a gang of a lower priority."""

    at: float
    """From then on."""
    replicas: list[Replica]
    reason: str


def held(world: World, giving: Giving, rooms: Mapping[str, Room]) -> list[tuple[str, Held]]:
    """What it holds of these."""
    return [(each.node, world.held(each)) for each in giving.replicas if each.node in rooms]


def by_gang(replicas: Iterable[Replica]) -> dict[str, list[Replica]]:
    """The members that these are, by gang and by rank."""
    found: dict[str, list[Replica]] = {}
    for replica in sorted((r for r in replicas if r.seat is not None), key=lambda r: r.seat.rank if r.seat else 0):
        assert replica.seat is not None
        found.setdefault(replica.seat.gang, []).append(replica)
    return found


def as_one(members: list[Replica]) -> Replica:
    """What stands for a gang: the first of those that are left of it, ready once all of these are."""
    first = members[0]
    unready = [member.phase for member in members if member.phase is not Phase.READY]
    if unready:
        return msgspec.structs.replace(first, phase=unready[0], ready_at=None)
    return msgspec.structs.replace(first, ready_at=max(member.ready_at or 0.0 for member in members))


def staying(world: World, gang: str, leaving: Container[str] = ()) -> list[Replica]:
    """The members of a gang that do not end, by rank. `leaving`: those that are stopped already."""
    members = world.gangs.get(gang, {}).values()
    there = [member for member in members if member.phase is not Phase.DRAINING and member.id not in leaving]
    return by_gang(there).get(gang, [])


def leaves_at(world: World, members: Iterable[Replica]) -> float | None:
    """When the first of the nodes that these are on goes, where one is known to."""
    nodes = (world.nodes.get(member.node) for member in members)
    return min((node.leaving_at for node in nodes if node is not None and node.leaving_at is not None), default=None)


def priority_of(world: World, gang: str) -> int:
    """Of the call that it has; of the one that it was started for, until it is given one."""
    seats = (member.seat for member in world.gangs[gang].values())
    return world.given.get(gang, max(seat.priority for seat in seats if seat is not None))


def awaited(demand: Demand, gangs: Sequence[Replica], starts: int) -> list[int]:
    """What priorities so many that are started next are for, beside those `gangs` of the pool, each as one: the calls
    of the highest are for those that are there and have none. The lowest where nobody waits."""
    free = len(gangs) - min(demand.in_flight, sum(gang.phase is Phase.READY for gang in gangs))
    waiting = [priority for priority, calls in demand.priorities for _ in range(calls)]
    found = waiting[free : free + starts]
    return [*found, *[-PRIORITY_MAX] * (starts - len(found))]


def lesser(world: World, priority: int, leaving: Container[str]) -> Iterator[list[Replica]]:
    """Gangs of a lower priority than this, whole: the lowest first, of equals the one that was begun last, since it
    loses least."""
    found = []
    for gang in world.gangs:
        members, theirs = staying(world, gang, leaving), priority_of(world, gang)
        if members and theirs < priority:
            found.append((theirs, -members[0].planned_at, gang, members))
    for *_, members in sorted(found):
        yield members


def unmet(world: World, needs: Needs, gang: Gang, fit: int, why_not: str) -> str:
    """Why a gang waits, of which so many fit now."""
    enough = f" (it starts with {gang.at_least})" if gang.at_least < gang.size else ""
    nodes = (node for node in world.nodes.values() if node.alive and node.leaving_at is None)
    whole = capacity(needs, (node.room() for node in nodes))
    if whole < gang.at_least:
        return f"{fit} of {gang.size} fit{enough}, and {whole} if nothing else ran: it waits for more nodes"
    return f"{fit} of {gang.size} fit{enough}: {why_not}"
