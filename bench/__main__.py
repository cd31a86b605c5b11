"""Runs the parts asked for, prints one table, and writes bench/out/bench.json beside it."""

from __future__ import annotations

import argparse
import importlib
import os
import platform as machine
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench import ROOT
from bench.kernel import cores
from bench.row import Options, Row, table
from private_swell import Failed

PARTS = (
    "echo",
    "digits",
    "wake",
    "sandbox",
    "churn",
    "memory",
    "rest",
    "gateways",
    "door",
    "serve",
    "mapped",
    "triggers",
    "queue",
    "kills",
)
OUT = Path(__file__).with_name("out")


def main() -> int:
    """Exit code 1 if a part could not be measured; a missed goal is shown, and is not an error."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="fewer rounds; to see that it works")
    chosen = parser.parse_args()
    parts = [part for part in chosen.parts.split(",") if part]
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for part in parts:
        begun = time.monotonic()
        sys.stderr.write(f"bench: {part} …\n")
        try:
            rows += importlib.import_module(f"bench.{part}").run(Options(quick=chosen.quick))
        except Failed as error:
            failed[part] = str(error)
        sys.stderr.write(f"bench: {part} took {(time.monotonic() - begun) / 60:.1f} min\n")
    sys.stdout.write(f"\n{table(rows)}\n\n" if rows else "")
    for part, why in failed.items():
        sys.stdout.write(f"{part} could not be measured: {why}\n")
    _write(rows, failed, chosen.quick)
    return 1 if failed else 0


def _write(rows: list[Row], failed: dict[str, str], quick: bool) -> None:
    OUT.mkdir(exist_ok=True)
    report = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "python": machine.python_version(),
        "system": f"{machine.system()} {machine.release()} {machine.machine()}",
        "cores": cores(),
        "load_1m": os.getloadavg()[0],
        "rows": rows,
        "failed": failed,
    }
    (OUT / "bench.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    sys.stdout.write(f"written to {(OUT / 'bench.json').relative_to(ROOT)}\n")


if __name__ == "__main__":
    sys.exit(main())
