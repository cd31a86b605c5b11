"""Would the same facts lead to the same decisions? Replays a recorded world log through `plan`.

Every plan in the log holds the demand it was decided on, and every event before it is there: so each
decision can be made again, and must come out the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from swell.decide.plan import plan
from swell.model.events import Event, Opened, PlanCommitted
from swell.model.plan import Plan
from swell.model.policy import Policy
from swell.model.world import World


class Difference(msgspec.Struct, frozen=True):
    """A decision that came out otherwise."""

    recorded: Plan
    replayed: Plan


class Replay(msgspec.Struct, frozen=True):
    """How many plans were made again, and which differed."""

    plans: int
    differences: tuple[Difference, ...]


def replay(events: Iterable[Event]) -> Replay:
    """Run a log through the planner. Events before the first `Opened` cannot be placed and are passed over."""
    world, policy, opened = World(), Policy(), False
    plans, differences = 0, []
    for event in events:
        if isinstance(event, Opened):
            opened, policy = True, event.policy
        elif isinstance(event, PlanCommitted) and opened:
            recorded = event.plan
            again = plan(world, dict(recorded.demand), recorded.at, recorded.pools, policy)
            plans += 1
            if again != recorded:
                differences.append(Difference(recorded, again))
        if opened:
            world.apply(event)
    return Replay(plans, tuple(differences))
