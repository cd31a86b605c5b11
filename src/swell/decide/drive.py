"""Which orders are still owed, and which replicas are lost? Compares what should be with what is.

Level-triggered: it never remembers having said something, so a lost order is said again and a repeated
one is harmless.
"""

from __future__ import annotations

import msgspec

from swell.decide.drain import drain_grace_s
from swell.model.ends import UNKNOWN
from swell.model.events import ReplicaSeen
from swell.model.gang import Seat
from swell.model.orders import Inventory, Order, StartOrder, StopOrder
from swell.model.policy import Policy
from swell.model.replica import Phase, Replica
from swell.model.world import World

UNKNOWN_GRACE_S = 5.0
"""A replica nobody wants any more still gets this long for what it has in flight. A member of a gang gets nothing: what
the gang had is worked on by another one perhaps, or is to be, in the same checkpoint folder."""


class Owed(msgspec.Struct, frozen=True):
    """Orders to give now, and facts to take in first."""

    orders: tuple[Order, ...]
    lost: tuple[ReplicaSeen, ...]


def drive(world: World, inventory: Inventory, policy: Policy) -> Owed:
    """What is owed to one node, given everything its runner has."""
    has = {seen.replica: seen for seen in inventory.replicas}
    orders: list[Order] = []
    lost: list[ReplicaSeen] = []
    for replica in world.replicas.values():
        if replica.node != inventory.node:
            continue
        if replica.id in has or replica.phase is Phase.PLANNED:
            order = order_for(world, replica, policy)
            if order is not None:
                orders.append(order)
        else:
            lost.append(_lost(replica, inventory.at))
    orders += [
        StopOrder(replica=id, reason=UNKNOWN, grace_s=_unknown_grace_s(seen.seat), node=inventory.node)
        for id, seen in has.items()
        if id not in world.replicas
    ]
    return Owed(tuple(orders), tuple(lost))


def order_for(world: World, replica: Replica, policy: Policy) -> Order | None:
    """The order this replica's phase calls for: planned → start, draining → stop, else none."""
    revision = world.revision(replica.pool)
    if replica.phase is Phase.DRAINING:
        grace_s = replica.grace_s
        if grace_s is None and replica.reason == UNKNOWN:
            grace_s = _unknown_grace_s(replica.seat)
        if grace_s is None:
            grace_s = drain_grace_s(revision, replica.role, policy)
        # One that drains unasked says why: it cannot stop an input, or had the one that it was for.
        return StopOrder(replica=replica.id, reason=replica.reason or "served", grace_s=grace_s, node=replica.node)
    if replica.phase is not Phase.PLANNED or revision is None:
        return None
    return StartOrder(
        replica=replica.id,
        pool=replica.pool,
        role=replica.role,
        node=replica.node,
        revision=revision,
        template=replica.template,
        seat=replica.seat,
        gpus=replica.gpus,
    )


def _unknown_grace_s(seat: Seat | None) -> float:
    return UNKNOWN_GRACE_S if seat is None else 0.0


def _lost(replica: Replica, at: float) -> ReplicaSeen:
    return ReplicaSeen(
        at=at,
        replica=replica.id,
        phase=Phase.LOST,
        pool=replica.pool,
        role=replica.role,
        node=replica.node,
        reason="lost",
        detail="its runner no longer has it",
    )
