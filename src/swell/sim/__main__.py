"""Does it hold on these seeds? `python -m swell.sim --seeds 0-199`; exit code 1 if a promise was broken."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

from swell.sim.cluster import Cluster
from swell.sim.hits import Hits, told
from swell.sim.kept import Kept, keep
from swell.sim.scenario import scenario

COUNTED = 10
"""Of one seed in so many it is counted which branches of decisions are taken."""


def seeds(words: str) -> range:
    """ "7" or "100-199", the last one included."""
    first, _, last = words.partition("-")
    try:
        chosen = range(int(first), int(last or first) + 1)
    except ValueError:
        chosen = range(0)
    if not chosen:
        # Of none, every promise would be kept.
        raise argparse.ArgumentTypeError(f"{words!r} is no seed: give one (7) or a range, the lesser first (100-199)")
    return chosen


def main() -> int:
    """Run each seed, say which broke a promise, and what happened in all of them together."""
    parser = argparse.ArgumentParser(prog="make sim", description=__doc__)
    parser.add_argument("--seeds", type=seeds, default=seeds("0-999"), help="one, or first-last (0-999)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where a file is left of each that broke a promise")
    parser.add_argument("--histories", action="store_true", help="print the hash of each seed's history")
    arguments = parser.parse_args()
    chosen: range = arguments.seeds
    # What is logged of the faults that are made here is no news.
    logging.disable()
    begun, hits = time.monotonic(), Hits()
    total: Counter[str] = Counter()
    broken = 0
    for seed in chosen:
        drawn = scenario(seed)
        with hits.counted() if seed % COUNTED == 0 else nullcontext():
            outcome = Cluster(seed, drawn).run()
        total.update(outcome.faults)
        total.update(
            {name: getattr(outcome, name) for name in ("requests", "answered", "refused", "deadline", "starts")}
        )
        broken += bool(outcome.broken)
        if arguments.histories:
            sys.stdout.write(f"seed {seed}: {outcome.history}\n")
        for promise in outcome.broken:
            sys.stdout.write(f"seed {seed}: {promise}\n")
        if outcome.broken and arguments.keep is not None:
            keep(Kept(seed, outcome.broken[0], drawn), arguments.keep)
    for name, count in total.items():
        sys.stdout.write(f"  {name:<20}{count:10,}\n")
    for line in told(hits.branches()):
        sys.stdout.write(f"  {line}\n")
    verdict = f"{broken} broke a promise" if broken else "every promise kept"
    sys.stdout.write(f"{len(chosen)} seeds in {time.monotonic() - begun:.1f} s: {verdict}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
