"""How far have triggers come, where nothing need survive? The same rules over dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from swell.model.event_trigger import EventTriggerState
from swell.model.trigger import FIRINGS_KEPT, FIRINGS_KEPT_S, Delivery, Firing, TriggerState


class MemoryTriggers:
    """The `Triggers` port."""

    def __init__(self, write: Callable[[Callable[[], None]], None]) -> None:
        self._write = write
        self._states: dict[str, TriggerState] = {}
        self._events: dict[str, EventTriggerState] = {}
        self._firings: dict[str, list[Firing]] = {}
        """Of each, oldest first."""

    def put(self, states: Sequence[TriggerState | EventTriggerState]) -> None:
        """Add triggers, or replace those of their keys."""
        kept = tuple(states)
        self._write(lambda: self._put(kept))

    def remove(self, keys: Sequence[str]) -> None:
        """Forget triggers and what is known of them."""
        gone = tuple(keys)
        self._write(lambda: self._remove(gone))

    def all(self) -> list[TriggerState]:
        """Those that have schedules, by key."""
        return sorted(self._states.values(), key=lambda state: state.key)

    def for_events(self) -> list[EventTriggerState]:
        """The others, by key."""
        return sorted(self._events.values(), key=lambda state: state.key)

    def deliver(self, deliveries: Iterable[Delivery]) -> None:
        """Record firings."""
        self._write(lambda: self._deliver(deliveries))

    def history(self, key: str, most: int) -> list[Firing]:
        """The newest firings of a trigger, newest first."""
        return self._firings.get(key, [])[::-1][: max(most, 0)]

    def trim(self, now: float) -> None:
        """Forget firings that are too old."""
        oldest = now - FIRINGS_KEPT_S
        self._firings = {key: [f for f in firings if f.at >= oldest] for key, firings in self._firings.items()}

    def _put(self, states: Sequence[TriggerState | EventTriggerState]) -> None:
        for state in states:
            if isinstance(state, EventTriggerState):
                self._put_for_events(state)
                continue
            known = self._states.get(state.key)
            to = state.fired_to if known is None else max(known.fired_to, state.fired_to)
            fired_at = None if known is None else known.fired_at
            self._states[state.key] = replace(state, fired_to=to, fired_at=fired_at)

    def _put_for_events(self, state: EventTriggerState) -> None:
        known = self._events.get(state.key)
        if known is not None:
            watermark = known.watermark if known.began_at == state.began_at else state.watermark
            state = replace(state, watermark=watermark)
        self._events[state.key] = replace(state, fired_at=None if known is None else known.fired_at)

    def _remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._states.pop(key, None)
            self._events.pop(key, None)
            self._firings.pop(key, None)

    def _deliver(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            firing = delivery.firing
            if firing.trigger not in self._states and firing.trigger not in self._events:
                continue
            firings = self._firings.setdefault(firing.trigger, [])
            if all(each.id != firing.id for each in firings):
                firings.append(firing)
                del firings[:-FIRINGS_KEPT]
                self._change(firing.trigger, fired_at=firing.at)
            read = self._events.get(firing.trigger)
            if delivery.watermark and read is not None and read.began_at == delivery.began_at:
                self._change(firing.trigger, watermark=delivery.watermark)
            if delivery.moves and firing.trigger in self._states:
                to = max(self._states[firing.trigger].fired_to, firing.due_at)
                self._change(firing.trigger, fired_to=to)

    def _change(self, key: str, **fields: object) -> None:
        if key in self._events:
            self._events[key] = replace(self._events[key], **fields)
        else:
            self._states[key] = replace(self._states[key], **fields)
