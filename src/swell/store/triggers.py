"""How do triggers stand in a database? A row for each, with how far it has come, and one for each of its newest
firings."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from swell.model.event_trigger import EventTriggerState
from swell.model.schedule import Schedule
from swell.model.subscription import Subscription
from swell.model.trigger import FIRINGS_KEPT, FIRINGS_KEPT_S, Delivery, Firing, TriggerState
from swell.store import statements as sql
from swell.store.calls import Read, Write
from swell.store.database import Connection

log = logging.getLogger("swell.store")

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode
_schedule: msgspec.msgpack.Decoder[Schedule] = msgspec.msgpack.Decoder(Schedule)
_subscription = msgspec.msgpack.Decoder(Subscription)


class SqlTriggers:
    """The `Triggers` port."""

    def __init__(self, write: Write, read: Read) -> None:
        self._write = write
        self._read = read

    def put(self, states: Sequence[TriggerState | EventTriggerState]) -> None:
        """Add triggers, or replace those of their keys; on disk before it returns."""
        self._write(partial(_put, tuple(states)), True)

    def remove(self, keys: Sequence[str]) -> None:
        """Forget triggers and what is known of them; on disk before it returns."""
        self._write(partial(_remove, tuple(keys)), True)

    def all(self) -> list[TriggerState]:
        """Those that have schedules, by key."""
        return [TriggerState(key, _read(_schedule, key, body), *rest) for key, body, *rest in self._read(sql.TRIGGERS)]

    def for_events(self) -> list[EventTriggerState]:
        """The others, by key."""
        rows = self._read(sql.EVENT_TRIGGERS)
        return [EventTriggerState(key, _read(_subscription, key, body), *rest) for key, body, *rest in rows]

    def deliver(self, deliveries: Iterable[Delivery]) -> None:
        """Record firings; on disk before it returns."""
        self._write(partial(_deliver, deliveries), True)

    def history(self, key: str, most: int) -> list[Firing]:
        """The newest firings of a trigger, newest first."""
        return [Firing(key, *row) for row in self._read(sql.FIRINGS, key, max(most, 0))]


def _read(decoder: msgspec.msgpack.Decoder[T], key: str, body: bytes) -> T | None:
    """None where it is none: the others are read all the same."""
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        log.error("what is kept of the trigger %s cannot be read: %s", key, error)
        return None


def trim_firings(now: float, connection: Connection) -> None:
    """Forget those that are too old."""
    connection.execute(sql.TRIM_FIRINGS_AGE, (now - FIRINGS_KEPT_S,))


def _put(states: Sequence[TriggerState | EventTriggerState], connection: Connection) -> int:
    for s in states:
        if isinstance(s, TriggerState):
            row: tuple[object, ...] = (s.key, _encode(s.schedule), s.began_at, s.fired_to, s.paused_at, s.incarnation)
            connection.execute(sql.SET_TRIGGER, row)
        else:
            row = (s.key, _encode(s.subscription), s.began_at, s.watermark, s.paused_at)
            connection.execute(sql.SET_EVENT_TRIGGER, row)
    return len(states)


def _remove(keys: Sequence[str], connection: Connection) -> int:
    for statement in sql.DROP_TRIGGER:
        connection.executemany(statement, [(key,) for key in keys])
    return len(keys)


def _deliver(deliveries: Iterable[Delivery], connection: Connection) -> int:
    count = 0
    for delivery in deliveries:
        count += 1
        firing = delivery.firing
        row = (firing.trigger, firing.id, firing.due_at, firing.at, firing.how, firing.call, firing.missed_from)
        if connection.execute(sql.ADD_FIRING, row).rowcount:
            connection.execute(sql.COUNT_FIRING, (firing.at, firing.trigger))
            connection.execute(sql.TRIM_FIRINGS, (firing.trigger, FIRINGS_KEPT))
        if delivery.moves:
            connection.execute(sql.MOVE_TRIGGER, (firing.due_at, firing.trigger))
        if delivery.watermark:
            connection.execute(sql.MOVE_WATERMARK, (delivery.watermark, firing.trigger, delivery.began_at))
    return count
