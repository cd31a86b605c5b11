"""Does it hold on these seeds? `python -m swell.sim --seeds 0-199`; exit code 1 if a promise was broken."""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

from swell.sim.cluster import Cluster
from swell.sim.faults import KINDS
from swell.sim.hits import Hits, told
from swell.sim.kept import Kept, keep
from swell.sim.scenario import scenario

COUNTED = 10
"""Of one seed in so many it is counted which branches of decisions are taken."""

ADDED = ("events", "requests", "answered", "refused", "deadline", "held", "starts")
"""Numbers of outcomes that are told of all together."""


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
    parser.add_argument("--first", action="store_true", help="end with the first that broke one; count no branches")
    parser.add_argument("--histories", action="store_true", help="print the hash of each seed's history")
    parser.add_argument("--branches", action="store_true", help="print how often each branch of a decision was taken")
    arguments = parser.parse_args()
    chosen: range = arguments.seeds
    # What is logged of the faults that are made here is no news.
    logging.disable()
    begun, hits, histories = time.monotonic(), Hits(), hashlib.sha256()
    total: Counter[str] = Counter()
    broken = poor = 0
    for seed in chosen:
        drawn = scenario(seed)
        with nullcontext() if arguments.first or seed % COUNTED else hits.counted():
            outcome = Cluster(seed, drawn).run()
        total.update(outcome.faults)
        total.update({name: getattr(outcome, name) for name in ADDED})
        histories.update(outcome.history.encode())
        broken += bool(outcome.broken)
        poor += bool(outcome.poor)
        if arguments.histories:
            sys.stdout.write(f"seed {seed}: {outcome.history}\n")
        for promise in outcome.broken:
            sys.stdout.write(f"seed {seed}: {promise}\n")
        if outcome.poor:
            sys.stdout.write(f"seed {seed} proves little: {outcome.poor}\n")
        if outcome.broken and arguments.keep is not None:
            keep(Kept(seed, outcome.broken[0], drawn), arguments.keep)
        if outcome.broken and arguments.first:
            return 1
    sys.stdout.write("what went wrong, and how often:\n")
    for name, count in sorted(total.items(), key=lambda each: (each[0] not in KINDS, each[0])):
        sys.stdout.write(f"  {name:<40}{count:10,}{'' if name in KINDS else '  (no fault)'}\n")
    for line in told(hits.branches(), arguments.branches):
        sys.stdout.write(f"  {line}\n")
    verdict = f"{broken} broke a promise" if broken else "every promise kept"
    verdict += f", {poor} prove little" if poor else ""
    took_s = time.monotonic() - begun
    sys.stdout.write(f"{len(chosen)} seeds in {took_s:.1f} s, history {histories.hexdigest()[:16]}: {verdict}\n")
    return 1 if broken or (poor and not arguments.first) else 0


if __name__ == "__main__":
    sys.exit(main())
