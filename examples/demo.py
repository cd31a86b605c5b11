"""A model wakes from zero, is parked, wakes from its template, and is gone again. `make demo` runs it.

Everything is proved from outside: `swell ps` says that nothing runs, and a census of processes by pid and
start time agrees. Exit code 0 only if every step happened. With `--home DIR` what the platform wrote is left there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))  # The tests run on the same private platform.

from private_swell import Answer, Failed, PrivateSwell, Process, unstarted_swell, wait_until

HERE = Path(__file__).resolve().parent
PICTURE = HERE / "receipt.png"
TO_READ = ("Flat white", "Almond cake", "11.70", "26.60")
"""What is on the picture, and must be in the answer."""
TEMPLATE_IDLE_S = 10.0
"""The platform's default keeps templates for minutes; a demonstration would rather see them go."""
DEPLOY_WAIT_S = 1800.0
"""The first deploy downloads and installs the model's packages."""
WAIT_S = 120.0
INDENT = 28
"""Columns in front of what came of a step."""
WIDTH = 80 - INDENT
BAR = 24
SMALLEST_MS = 0.05
"""Phases below it are not shown."""


def step(words: str, act: Callable[[], str]) -> None:
    """One line of the story: what, how long it took, what came of it."""
    print(f"  {words:<14}", end="", flush=True)
    begun = time.monotonic()
    came = act()
    first, *more = came.splitlines()
    print(f"{time.monotonic() - begun:7.1f} s   {first}")
    for line in more:
        print(f"{'':{INDENT}}{line}")


class Story:
    """The steps, and what one has to tell the next."""

    def __init__(self, swell: PrivateSwell, templates: bool) -> None:
        self.swell = swell
        self.templates = templates
        self.servers: set[Process] = set()
        """The platform's own processes; all that may be there at zero."""
        self.every: set[Process] = set()
        """Every process that was ever seen, for the count at the end."""
        self.requests: list[str] = []
        """Calls that `swell why` must be able to explain at the end."""
        self.bar_ms = 0.0
        """What a whole bar stands for: the first call. All are drawn to this one scale, so that they compare."""

    def tell(self) -> None:
        """All of it, in order."""
        step("start", self.start)
        step("deploy", self.deploy)
        step("at zero", self.at_zero)
        step("from zero", self.call)
        if self.templates:
            step("parked", self.parked)
            step("from parked", self.call)
        else:
            step("at zero", self.back_at_zero)
            step("from zero", self.call)
        step("at zero", self.back_at_zero)
        step("stop", self.stop)

    def start(self) -> str:
        self.swell.run("up", "-d", "--set", f"template_idle_s={TEMPLATE_IDLE_S:g}")
        self.servers = set(self.look())
        told = [f"pid {one.pid}, running since {_clock(one)}" for one in self.look()]
        return "\n".join([f"swell up -d; {len(self.servers)} processes:", *told])

    def deploy(self) -> str:
        self.swell.run("deploy", str(HERE / "ocr.py"), wait_s=DEPLOY_WAIT_S)
        return "swell deploy examples/ocr.py;\nenvironment built, import checked"

    def at_zero(self) -> str:
        if listed := self.listed():
            raise Failed(f"nothing was called, yet `swell ps` lists {listed}")
        if extra := self.extra():
            raise Failed(f"processes that were not there before the deploy: {', '.join(map(str, extra))}")
        return f"swell ps is empty; only the first {len(self.servers)} run"

    def call(self) -> str:
        with self.swell.connect() as client:
            answer = client.call("ocr/Reader.read", body=PICTURE.read_bytes())
        self.look()
        if answer.headers.get("swell-cold") != "1":
            raise Failed("the call found a warm replica; it was to wake one")
        self.bar_ms = self.bar_ms or answer.ms
        lines: list[str] = answer.value
        if missing := [words for words in TO_READ if words not in lines]:
            raise Failed(f"the answer lacks {missing}: {lines}")
        self.requests.append(answer.request)
        return "\n".join(
            [
                f"{PICTURE.name}, {PICTURE.stat().st_size / 1000:.0f} kB, holds {len(lines)} texts:",
                *(f"  {line}" for line in _wrap(lines)),
                *_bars(answer, self.bar_ms),
                f"its own work costs ${float(answer.headers['swell-cost-usd']) * 1e6:.2f} per million such calls;",
                f"more in: swell why {answer.request}",
            ]
        )

    def parked(self) -> str:
        wait_until("a template and nothing else", lambda: self.look() and self.swell.parked(), WAIT_S, pause_s=0.25)
        (template,) = self.listed()
        if {one.pid for one in self.extra()} != {template["pid"]}:
            raise Failed(f"`swell ps` lists {template['pid']}, and there is {', '.join(map(str, self.extra()))}")
        (one,) = self.extra()
        return (
            f"only a template: pid {template['pid']}, since {_clock(one)},\n"
            f"{template['memory_mib']:.0f} MiB, takes no traffic"
        )

    def back_at_zero(self) -> str:
        wait_until("nothing of the model left", lambda: not self.extra() and not self.listed(), WAIT_S, pause_s=0.25)
        return f"swell ps is empty; only the first {len(self.servers)} run"

    def stop(self) -> str:
        for request in self.requests:
            self.swell.run("why", request)
        self.swell.run("down")
        wait_until("nothing left at all", lambda: not self.look(), WAIT_S)
        return f"swell down; none of the {len(self.every)} processes seen is left"

    def listed(self) -> list[dict[str, object]]:
        """What the platform says is there."""
        rows: list[dict[str, object]] = json.loads(self.swell.run("ps", "--json"))
        return rows

    def look(self) -> list[Process]:
        """What is really there."""
        found = self.swell.processes()
        self.every.update(found)
        return found

    def extra(self) -> list[Process]:
        """What is there beside the platform's own processes."""
        return [one for one in self.look() if one not in self.servers]


def _wrap(lines: list[str], width: int = WIDTH - 2) -> list[str]:
    """Texts side by side, as many as fit a line."""
    rows = [""]
    for line in lines:
        longer = f"{rows[-1]} · {line}" if rows[-1] else line
        if len(longer) <= width:
            rows[-1] = longer
        else:
            rows.append(line)
    return rows


def _bars(answer: Answer, bar_ms: float) -> list[str]:
    """Where the time went, a whole bar being `bar_ms`; what a start-up was made of is indented below the time held."""
    phases = dict(answer.phases_ms)
    starting = {f"  {name.removeprefix('start-')}": ms for name, ms in phases.items() if name.startswith("start-")}
    total = phases.pop("total")
    rows: dict[str, float] = {}
    for name, ms in phases.items():
        if not name.startswith("start-"):
            rows[name] = ms
            rows.update(starting if name == "held" else {})
    shown = {name: ms for name, ms in rows.items() if ms >= SMALLEST_MS} | {"total": total, "at the client": answer.ms}
    return [f"{name:<14}{ms:8.1f} ms  {_bar(ms / bar_ms)}".rstrip() for name, ms in shown.items()]


def _clock(one: Process) -> str:
    """When it was started, by the clock on the wall."""
    since_boot = Path("/proc/uptime").exists()
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) if since_boot else 0.0
    at = booted + one.started
    return f"{time.strftime('%H:%M:%S', time.localtime(at))}.{int(at % 1 * 100):02}"


def _bar(share: float) -> str:
    """As long as the share of a whole bar, in eighths of a character; the least there is for anything. What is longer
    than a whole one, as a second call on a slow moment may be, is cut, and shown to be."""
    if share > 1:
        return "█" * BAR + "…"
    eighths = max(round(BAR * 8 * share), 1)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def templates_on(environ: Mapping[str, str]) -> bool:
    return environ.get("SWELL_TEMPLATES", "1").lower() not in ("0", "false", "no", "off")


def new_directory(named: str) -> Path:
    """A state directory that nothing was written to. For argparse."""
    path = Path(named).resolve()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise argparse.ArgumentTypeError(f"{named} is not empty; the story begins with a directory that is new")
    return path


def main() -> int:
    """Tell the story on a platform of its own; whatever happens, leave no process behind."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    kept = "leave the platform's state in this new or empty directory; without, it is removed at the end"
    parser.add_argument("--home", type=new_directory, metavar="DIR", help=kept)
    home: Path | None = parser.parse_args().home
    templates = templates_on(os.environ)
    print("\n  Swell: a model wakes from zero" + ("" if templates else " (templates are off)") + "\n", flush=True)
    try:
        with unstarted_swell(home=home) as swell:
            try:
                Story(swell, templates).tell()
            except Failed:
                print(f"did not happen.\n\n{swell.log()}\n", flush=True)
                raise
    except (Failed, KeyboardInterrupt) as error:
        print(f"\n  It did not go as promised: {error or 'interrupted'}\n")
        return 1
    print("\n  Everything happened as promised.\n" + (f"  What the platform wrote is in {home}\n" if home else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
