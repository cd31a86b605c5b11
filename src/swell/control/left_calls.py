"""What becomes of queued calls whose workload is not there? Variants are made again; calls for the app of a program
that has ended are cancelled, since nobody will deploy it again. All others wait.

What stands in the queue says what there is to do, and it is looked for again and again: so nothing is forgotten by who
dies in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import groupby, islice

from swell.control.calls import CallKeeper
from swell.control.variants import Variants
from swell.model.call import BATCH_MAX, CallError
from swell.model.errors import SwellError
from swell.model.variant import base_of, is_variant
from swell.model.workload import Workload, app_of

RESTORE_LOOK_S = 1.0
"""How often it is looked for variants that calls wait for."""
END_LOOK_S = 5.0
"""How often it is looked for calls for apps of programs that have ended."""
ENDED = CallError("cancelled", "The program that its app belonged to has ended: nobody can work on it any more.")


class LeftCalls:
    """Those of one server."""

    def __init__(self, keeper: CallKeeper, variants: Variants) -> None:
        self._keeper = keeper
        self._records = keeper.records
        self._variants = variants
        self._world = variants.world
        self._unable: dict[str, Workload] = {}
        """Variants that these workloads cannot have: it is tried again once one is deployed anew."""

    async def restore(self) -> None:
        """Have the variants that calls wait for, of what is there. Where there are as many as may be, the others wait
        until some are done."""
        wanted = list(self._lacking())
        known = await asyncio.to_thread(self._records.variants, wanted) if wanted else {}
        full: set[str] = set()
        for key in wanted:
            base = base_of(key)
            workload = self._world.workloads.get(base)
            if workload is None or base in full:
                continue
            try:
                if key in known:
                    self._variants.want(base, known[key])
            except SwellError as error:
                if error.code == "too_many_variants":
                    full.add(base)
                    continue
            if key not in self._world.workloads:
                self._unable[key] = workload

    def _lacking(self) -> Iterator[str]:
        """Keys of those that may be had, as many of each workload as it may have."""
        there = self._world.workloads
        lacking = {
            key: there[base_of(key)]
            for key in self._keeper.hands.queued()
            if is_variant(key) and key not in there and base_of(key) in there
        }
        self._unable = {key: workload for key, workload in self._unable.items() if lacking.get(key) is workload}
        for _, keys in groupby(sorted(lacking.keys() - self._unable.keys()), base_of):
            yield from islice(keys, self._variants.most)

    async def end(self) -> None:
        """Cancel what waits for apps of programs that have ended."""
        left = ("/".join(app_of(workload)) for workload in await asyncio.to_thread(self._records.owned))
        for app in sorted(set(left) - self._world.apps.keys()):
            last = ""
            while page := await asyncio.to_thread(self._records.newest, f"{app}/", "queued", BATCH_MAX, last):
                # An app of that name that was deployed to stay may be deployed again.
                await asyncio.gather(*(self._keeper.cancel(call.id, ENDED) for call in page if call.owned))
                last = page[-1].id
