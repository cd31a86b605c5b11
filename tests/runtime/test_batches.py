"""May it be asked, while batches begin and end, whether all of them are stuck?"""

from __future__ import annotations

from types import SimpleNamespace

from swell.model.workload import Batch, Method
from swell.runtime.batched import Batches
from swell.runtime.hooks import Hooks


class Running:
    """A batch of two calls."""

    def __init__(self) -> None:
        self.awaited = {object(), object()}


def test_a_thread_asks_while_they_end() -> None:
    def is_stuck(_call: object) -> bool:
        # The loop's turn, in the middle of the question.
        for each in all_of_them:
            each.awaited.clear()
        batches._running.clear()
        return True

    replica = SimpleNamespace(slots=SimpleNamespace(limit=8, is_stuck=is_stuck))
    batches = Batches(replica, Method("thing", batch=Batch(2, 0)), lambda values: values, Hooks())  # type: ignore[arg-type]
    all_of_them = [Running() for _ in range(3)]
    batches._running.update(all_of_them)  # type: ignore[arg-type]  # all of a batch that is asked
    assert batches.stuck
    assert not batches.stuck, "none runs by then"
