"""What is done with replicas that were taken for lost with their node, and come back with it?"""

from __future__ import annotations

import msgspec
import pytest

from control.test_reactor import a_reactor, hear, one_ready, seen, starts, stops
from swell.model.events import NodeSeen
from swell.model.gang import Seat
from swell.model.orders import Inventory, StopOrder
from swell.model.replica import Phase
from swell.model.resources import Needs


@pytest.mark.parametrize("alone", [True, False])
def test_what_was_taken_for_lost_and_comes_back_has_its_room_until_it_has_ended(alone: bool) -> None:
    reactor, pool = a_reactor(needs=Needs(cpu=3.0))
    order = one_ready(reactor, pool)
    node = reactor.world.nodes["n1"]
    reactor.take(NodeSeen(110.0, msgspec.structs.replace(node, alive=False)))
    reactor.step(110.0)
    assert not reactor.world.replicas
    hear(reactor, NodeSeen(120.0, node))
    back = seen(order, Phase.READY, 120.0)
    if not alone:
        back = msgspec.structs.replace(back, seat=Seat(order.replica, 0, 2))
    hear(reactor, Inventory("n1", 120.0, 1, (back,)))
    effects = reactor.step(120.0)
    # What it has in flight may end; what a gang works on is another's.
    assert stops(effects) == [StopOrder(order.replica, "unknown", 5.0 if alone else 0.0, "n1")]
    assert not starts(effects), "there is room for one"
    assert reactor.world.room("n1").cpu == 1.0
    assert reactor.world.ready(pool) == 0
    hear(reactor, seen(order, Phase.GONE, 121.0, "unknown"))
    (following,) = starts(reactor.step(121.0))
    assert following.replica != order.replica
