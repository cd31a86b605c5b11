"""A model wakes from zero, is parked, wakes from its template, and is gone again. `make demo` runs it.

Everything is proved from outside: `swell ps` says that nothing runs, and a census of processes by pid and
start time agrees. Exit code 0 only if every step happened.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from census import Process, mark, processes

HERE = Path(__file__).resolve().parent
PICTURE = HERE / "receipt.png"
TO_READ = ("Flat white", "Almond cake", "11.70", "26.60")
"""What is on the picture, and must be in the answer."""
TEMPLATE_IDLE_S = 20.0
"""The platform's default keeps templates for minutes; a demonstration would rather see them go."""
DEPLOY_WAIT_S = 900.0
"""The first deploy downloads and installs the model's packages."""
WAIT_S = 120.0
BAR = 28


class Failed(Exception):
    """A step did not happen."""


@dataclass(frozen=True)
class Answer:
    """What came back from one call."""

    lines: list[str]
    request: str
    cold: bool
    seconds: float
    phases: dict[str, float]
    """Milliseconds by phase, in the order in which they passed."""
    usd: float


class Swell:
    """One platform with a state directory and a port of its own, driven through its command line."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = _free_port()
        clean = {name: value for name, value in os.environ.items() if name not in ("SWELL_URL", "SWELL_HOST")}
        self.environ = {**clean, **mark(home), "SWELL_PORT": str(self.port)}
        self.command = Path(sys.executable).with_name("swell")

    def run(self, *words: str, wait_s: float = WAIT_S) -> str:
        """What the command printed; Failed with its own words if it did not succeed."""
        try:
            done = subprocess.run(
                [self.command, *words], env=self.environ, cwd=HERE, capture_output=True, text=True, timeout=wait_s
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"`swell {' '.join(words)}` was not done after {wait_s:g} s") from None
        if done.returncode:
            raise Failed(f"`swell {' '.join(words)}` failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def replicas(self) -> list[dict[str, object]]:
        """What the platform says is there: templates and serving replicas."""
        listed: list[dict[str, object]] = json.loads(self.run("ps", "--json"))
        return listed

    def processes(self) -> list[Process]:
        """What is really there."""
        return processes(self.home)

    def read(self, picture: Path) -> Answer:
        """Send one picture to the model, as any HTTP client would."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        begun = time.perf_counter()
        try:
            connection.request(
                "POST", "/call/ocr/Reader.read", picture.read_bytes(), {"Content-Type": "application/octet-stream"}
            )
            response = connection.getresponse()
            body = response.read()
        except OSError as error:
            raise Failed(f"the call broke: {error}") from None
        finally:
            connection.close()
        seconds = time.perf_counter() - begun
        if response.status != 200:
            raise Failed(f"the call was answered {response.status}: {body.decode(errors='replace')}")
        return Answer(
            lines=json.loads(body),
            request=response.headers["Swell-Request-Id"],
            cold=response.headers["Swell-Cold"] == "1",
            seconds=seconds,
            phases=_phases(response.headers.get("Server-Timing", "")),
            usd=float(response.headers["Swell-Cost-Usd"]),
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _phases(header: str) -> dict[str, float]:
    """Server-Timing as milliseconds by name: `held;dur=41.2, run;dur=380` → {"held": 41.2, "run": 380.0}."""
    phases = {}
    for entry in header.split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key == "dur":
                phases[name] = float(value)
    return phases


def step(words: str, act: Callable[[], str]) -> None:
    """One line of the story: what, how long it took, what came of it."""
    print(f"  {words:<14}", end="", flush=True)
    begun = time.monotonic()
    came = act()
    first, *more = came.splitlines()
    print(f"{time.monotonic() - begun:7.1f} s   {first}")
    for line in more:
        print(f"{'':28}{line}")


def wait_for(what: str, holds: Callable[[], bool]) -> None:
    """Ask until it holds; Failed after a while."""
    until = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > until:
            raise Failed(f"{what}: not after {WAIT_S:g} s")
        time.sleep(0.25)


class Story:
    """The steps, and what one has to tell the next."""

    def __init__(self, swell: Swell, templates: bool) -> None:
        self.swell = swell
        self.templates = templates
        self.servers: set[Process] = set()
        """The platform's own processes; all that may be there at zero."""
        self.every: set[Process] = set()
        """Every process that was ever seen, for the count at the end."""

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

    def start(self) -> str:
        self.swell.run("up", "-d", "--set", f"template_idle_s={TEMPLATE_IDLE_S:g}")
        self.servers = set(self.look())
        return f"swell up -d · {len(self.servers)} processes: {', '.join(str(one.pid) for one in self.look())}"

    def deploy(self) -> str:
        self.swell.run("deploy", "ocr.py", wait_s=DEPLOY_WAIT_S)
        return "swell deploy examples/ocr.py · environment built, import checked"

    def at_zero(self) -> str:
        if listed := self.swell.replicas():
            raise Failed(f"nothing was called, yet `swell ps` lists {listed}")
        if extra := set(self.look()) - self.servers:
            raise Failed(f"processes newer than the start of the platform: {', '.join(map(str, extra))}")
        return f"no replica, no template; only the {len(self.servers)} processes from the start are there"

    def call(self) -> str:
        answer = self.swell.read(PICTURE)
        if not answer.cold:
            raise Failed("the call found a warm replica; it was to wake one")
        if missing := [words for words in TO_READ if words not in answer.lines]:
            raise Failed(f"the answer lacks {missing}: {answer.lines}")
        self.look()
        self.swell.run("why", answer.request)
        return "\n".join(
            [
                f"{PICTURE.name} ({PICTURE.stat().st_size / 1000:.0f} kB) → {len(answer.lines)} texts",
                *_wrap(answer.lines),
                *_bars(answer),
                f"marginal cost ${answer.usd:.7f} · swell why {answer.request}",
            ]
        )

    def parked(self) -> str:
        def template_only() -> bool:
            self.look()
            rows = self.swell.replicas()
            return bool(rows) and all(row["role"] == "template" and row["phase"] == "ready" for row in rows)

        wait_for("a template and nothing else", template_only)
        (template,) = self.swell.replicas()
        extra = set(self.look()) - self.servers
        if {one.pid for one in extra} != {template["pid"]}:
            raise Failed(f"beside the template {template['pid']} there is {', '.join(map(str, extra))}")
        return f"template only: pid {template['pid']}, {template['memory_mib']:.0f} MiB, takes no traffic"

    def back_at_zero(self) -> str:
        wait_for("nothing left of the model", lambda: not self.swell.replicas() and not set(self.look()) - self.servers)
        return "no replica, no template; only the platform's own processes are there"

    def stop(self) -> str:
        self.swell.run("down")
        wait_for("nothing left at all", lambda: not self.look())
        return f"swell down · none of the {len(self.every)} processes seen is left"

    def look(self) -> list[Process]:
        found = self.swell.processes()
        self.every.update(found)
        return found


def _wrap(lines: list[str], width: int = 72) -> list[str]:
    """Texts side by side, as many as fit a line."""
    rows = [""]
    for line in lines:
        longer = f"{rows[-1]} · {line}" if rows[-1] else line
        if len(longer) <= width:
            rows[-1] = longer
        else:
            rows.append(line)
    return rows


def _bars(answer: Answer) -> list[str]:
    """Where the time went, drawn to scale."""
    total = answer.phases.get("total") or answer.seconds * 1000
    rows = []
    for name, ms in answer.phases.items():
        filled = round(BAR * min(ms / total, 1)) if total else 0
        rows.append(f"{name:<10}{ms:9.1f} ms  {'█' * filled}".rstrip())
    return [*rows, f"{'client':<10}{answer.seconds * 1000:9.1f} ms  from sending to having read the answer"]


def templates_on(environ: Mapping[str, str]) -> bool:
    return environ.get("SWELL_TEMPLATES", "1").lower() not in ("0", "false", "no", "off")


def main() -> int:
    """Tell the story in a directory of its own; whatever happens, leave nothing behind."""
    home = Path(tempfile.mkdtemp(prefix="swell-demo-", dir="/tmp"))
    story = Story(Swell(home), templates_on(os.environ))
    problem = ""
    print("\n  Swell: a model wakes from zero" + ("" if story.templates else " (templates are off)") + "\n")
    try:
        story.tell()
    except (Failed, KeyboardInterrupt) as error:
        problem = str(error) or "interrupted"
        print(f"\n  did not happen: {problem}\n")
        _show_log(home)
    try:
        step("stop", story.stop)
    except Failed as error:
        problem = problem or str(error)
        print(f"\n  could not stop: {error}; left: {', '.join(map(str, story.look())) or 'nothing'}")
    shutil.rmtree(home, ignore_errors=True)
    print("\n  It did not go as promised.\n" if problem else "\n  Everything happened as promised.\n")
    return 1 if problem else 0


def _show_log(home: Path) -> None:
    log = home / "logs" / "swell.log"
    if log.exists():
        print("  the end of the platform's own log:")
        print("".join(f"    {line}\n" for line in log.read_text(errors="replace").splitlines()[-20:]))


if __name__ == "__main__":
    sys.exit(main())
