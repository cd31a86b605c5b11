"""What are the parts that have functions called by themselves, and how are they joined?"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping

from swell.control.calls import CallKeeper
from swell.control.event_desk import EveryTriggerDesk, samples
from swell.control.event_triggers import EventTriggers, Live
from swell.control.events import EventDesk
from swell.control.feeds import Feeds, Open
from swell.control.own_sources import OwnSources
from swell.control.secrets import SecretKeeper
from swell.control.trigger_desk import TriggerDesk
from swell.control.triggers import TriggerKeeper
from swell.model.metrics import Labels, Sample
from swell.model.ports import Clock, Store
from swell.model.world import World


class TriggerParts:
    """Those of one server, while this incarnation of control lasts."""

    def __init__(
        self,
        open: Open,
        store: Store,
        clock: Clock,
        calendar: Clock,
        calls: CallKeeper,
        secrets: SecretKeeper,
        world: World,
        deployed_at: Mapping[str, float],
    ) -> None:
        """`open`: the feed of a source. `calendar`: the clock that schedules go by. `deployed_at`: when each app was
        deployed, by its key."""
        self._clock = clock
        waiting = calls.hands.counted
        feeds = Feeds(open, calls.accept, store.triggers, secrets.value, waiting, clock)
        own = OwnSources(calls, store.call_records, clock)

        def read(live: Live) -> Coroutine[None, None, None]:
            return feeds.read(live) if live.trigger.subscription.read is not None else own.read(live)

        self.schedules = TriggerKeeper(store, calendar, world, calls.accept, waiting, deployed_at)
        self.events = EventTriggers(store.triggers, clock, world, read, deployed_at, own.leave)
        self.take = EventDesk(self.events, calls.accept, secrets.value, waiting, clock).take
        """An event that was posted; the id of its call, once that is on disk."""
        schedules = TriggerDesk(self.schedules, store.triggers, store.call_records, world, calendar)
        self.next_at = schedules.next_at
        """When a schedule of an app fires next."""
        self.desk = EveryTriggerDesk(schedules, self.events, store.triggers, store.call_records)

    def changed(self, app: str, at: float) -> None:
        """The app of that key was deployed or stopped, or another version of it has the traffic."""
        self.schedules.changed(app, at)
        self.events.changed(app, at)

    def metrics(self, labels: Callable[[str], Labels]) -> Iterator[Sample]:
        """What is told to who scrapes; `labels`: those of a workload, by its key."""
        return samples(self.events.live.values(), labels, self._clock.now())

    def chores(self) -> Iterator[Coroutine[None, None, None]]:
        """What fires, and what reads; neither ends by itself."""
        yield self.schedules.run()
        yield self.events.run()
