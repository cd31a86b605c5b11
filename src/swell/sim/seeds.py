"""Does it hold on these seeds, and what came about in their runs? `swell sim` asks."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from swell.sim.cluster import Cluster
from swell.sim.faults import KINDS
from swell.sim.hits import Hits, told
from swell.sim.kept import Kept, keep
from swell.sim.scenario import scenario

ADDED = ("events", "requests", "answered", "refused", "deadline", "held", "starts")
"""Numbers of outcomes that are told of all together."""


def hold(
    chosen: range, keep_in: Path | None, first: bool, histories: bool, branches: bool, say: Callable[[str], None]
) -> bool:
    """Run each seed, say which broke a promise, and what happened in all of them together. Do all promises hold, and
    does each run prove something? `keep_in`: where a file is left of each that broke one; `first`: it ends with that;
    `histories`, `branches`: the hash of each run, and each branch of a decision, are told too."""
    # What is logged of the faults that are made here is no news.
    logging.disable()
    begun, hits, history = time.monotonic(), Hits(), hashlib.sha256()
    total: Counter[str] = Counter()
    broken = poor = 0
    for seed in chosen:
        drawn = scenario(seed)
        with hits.counted():
            outcome = Cluster(seed, drawn).run()
        total.update(outcome.faults)
        total.update({name: getattr(outcome, name) for name in ADDED})
        history.update(outcome.history.encode())
        broken += bool(outcome.broken)
        poor += bool(outcome.poor)
        if histories:
            say(f"seed {seed}: {outcome.history}")
        for promise in outcome.broken:
            say(f"seed {seed}: {promise}")
        if outcome.poor:
            say(f"seed {seed} proves little: {outcome.poor}")
        if outcome.broken and keep_in is not None:
            keep(Kept(seed, outcome.broken[0], drawn), keep_in)
        if outcome.broken and first:
            return False
    say("what went wrong, and how often:")
    for name, count in sorted(total.items(), key=lambda each: (each[0] not in KINDS, each[0])):
        say(f"  {name:<40}{count:10,}{'' if name in KINDS else '  (no fault)'}")
    for line in told(hits.branches(), branches):
        say(f"  {line}")
    verdict = f"{broken} broke a promise" if broken else "every promise kept"
    verdict += f", {poor} prove little" if poor else ""
    took_s = time.monotonic() - begun
    say(f"{len(chosen)} seeds in {took_s:.1f} s, history {history.hexdigest()[:16]}: {verdict}")
    return not broken and (first or not poor)
