"""`swell sim`: does Swell keep its promises in simulated clusters? For those who work on it."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click


class Seeds(click.ParamType[range]):
    """ "7" or "100-199", the last one included."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> range:
        """None at all are refused: of none, every promise would be kept."""
        if isinstance(value, range):
            return value
        first, _, last = value.partition("-")
        try:
            chosen = range(int(first), int(last or first) + 1)
        except ValueError:
            chosen = range(0)
        if not chosen:
            words = f"{value!r} is no seed: give one (7) or a range, the lesser first (100-199)."
            self.fail(words, param, ctx)
        return chosen


@click.command(short_help="Run simulated clusters; for who works on Swell.")
@click.option("--seeds", type=Seeds(), metavar="N|N-M", default=range(1000), show_default="0-999", help="Which runs.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    default=None,
    help="Leave a file there of each run that broke a promise.",
)
@click.option("--first", is_flag=True, help="End with the first that broke one, and count no branches.")
@click.option("--histories", is_flag=True, help="Print the hash of all that happened in each run.")
@click.option("--branches", is_flag=True, help="Print how often each branch of a decision was taken.")
def sim(seeds: range, keep: Path | None, first: bool, histories: bool, branches: bool) -> int:
    """Run simulated clusters in which everything goes wrong that can, each drawn by its seed, and see whether Swell
    keeps its promises there. The same seed is the same run, on any machine (docs/simulator.md).

    Exit code 1: a promise was broken, or a run proves little.
    """
    from swell.sim.seeds import hold

    say = partial(click.echo, file=sys.stdout)
    return 0 if hold(seeds, keep, first, histories, branches, say) else 1
