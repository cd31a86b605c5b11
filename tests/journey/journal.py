"""What did control write down? The world log that a platform left in its state directory."""

from __future__ import annotations

from pathlib import Path

from swell.model.events import Event, PlanCommitted
from swell.model.plan import Action
from swell.store.sqlite import SqliteStore


def world_log(home: Path) -> list[Event]:
    """Every event, oldest first. The platform must be down: the store has one opener."""
    store = SqliteStore(home / "control.db")
    try:
        return [event for _, event in store.world.events()]
    finally:
        store.close()


def actions(log: list[Event]) -> list[Action]:
    """What was decided, in order."""
    return [action for event in log if isinstance(event, PlanCommitted) for action in event.plan.actions]
