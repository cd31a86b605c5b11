"""What does a durable call cost, from its submission to its end? Beside procrastinate, huey and Celery.

Nothing to do, two workers, 1 and 16 submitters (threads of one process); a burst, and one after the other. Each tool
keeps what it is given where it usually does: Swell and huey in SQLite, procrastinate in PostgreSQL, Celery in Redis.
By their documented defaults, and as durable as Swell is: what is accepted is synced to disk first, and a task is
acknowledged only once it has run. PostgreSQL does so by default. They are installed, when they are first needed,
into an environment of their own below bench/out.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench import APPS
from bench.row import Options, Row, quantile, row
from bench.servers import postgresql, redis, syncs, used_s
from private_swell import Failed, private_swell

QUEUES = Path(__file__).with_name("queues")
OTHERS = Path(__file__).with_name("out") / "queues"
PACKAGES = ("celery[redis]==5.7.0", "huey==3.5.4", "procrastinate==3.10.0", "psycopg[binary]>=3.2")
STOP_S = 30.0
SLOWED = "accepted and done, in a round of its own: strace counts each fsync and fdatasync, and slows all of it"


class Contestant(NamedTuple):
    """One tool that runs, set up in one way."""

    tool: str
    setup: str
    """"" where it is durable, else in what it is not."""
    python: str
    environ: dict[str, str]
    pids: Sequence[int]
    """Its servers and workers; what came of them works for it, too."""


class Seen(NamedTuple):
    """Of one round."""

    accepted_per_s: float
    done_per_s: float
    cpu_us: float
    """Of its servers and workers, a call."""
    client_us: float
    took_ms: list[float]
    """One after the other, each call."""


def run(options: Options) -> list[Row]:
    """All of them once in each round, one after the other: only one runs at a time."""
    seen: dict[tuple[str, str, int], list[Seen]] = defaultdict(list)
    synced: dict[tuple[str, int], list[float]] = defaultdict(list)
    python = _installed()
    for _ in range(options.rounds(3, 1)):
        for tool, setup in CONTESTANTS:
            with CONTESTANTS[tool, setup](python) as contestant:
                for submitters in (1, 16):
                    seen[tool, setup, submitters].append(_round(contestant, submitters, options))
                    if not setup:
                        synced[tool, submitters].append(_calls_a_sync(contestant, submitters, options))
    rows: list[Row] = []
    for submitters in (1, 16):
        for (tool, setup, count), rounds in seen.items():
            if count == submitters:
                rows += _rows(f"{tool}{', ' if setup else ''}{setup}, {submitters} submitters", rounds)
        for (tool, count), values in synced.items():
            if count == submitters:
                rows.append(row("queue", f"{tool}, {submitters} submitters: calls a sync", "", values, note=SLOWED))
    return [*rows, *_ratios(seen)]


def _installed() -> str:
    """The Python that has the others."""
    python = OTHERS / "bin" / "python"
    try:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "uv", "venv", "-q", "-p", sys.executable, OTHERS], check=True)
        subprocess.run([sys.executable, "-m", "uv", "pip", "install", "-q", "--python", python, *PACKAGES], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failed(f"the others cannot be installed: {error}") from None
    return str(python)


# -- those that run ------------------------------------------------------------------------------


@contextmanager
def _swell(_python: str) -> Iterator[Contestant]:
    with private_swell() as here:
        here.run("deploy", str(APPS / "queue_app.py"))
        # The oldest started the others.
        yield Contestant("Swell", "", sys.executable, here.environ, [here.processes()[0].pid])


@contextmanager
def _celery(python: str, durable: bool) -> Iterator[Contestant]:
    with redis(durable) as server:
        environ = {"QUEUE_URL": server.url, **({"QUEUE_DURABLE": "1"} if durable else {})}
        words = [python, "-m", "celery", "-A", "on_celery", "worker", "-c", "2", "-l", "ERROR"]
        with _workers(environ, words) as pids:
            yield Contestant("Celery", "" if durable else "defaults", python, environ, [server.pid, *pids])


@contextmanager
def _huey(python: str, durable: bool) -> Iterator[Contestant]:
    with tempfile.TemporaryDirectory(prefix="sw-huey") as folder:
        environ = {"QUEUE_FILE": f"{folder}/huey.db", **({"QUEUE_DURABLE": "1"} if durable else {})}
        words = [python, "-m", "huey.bin.huey_consumer", "on_huey.huey", "-w", "2", "-q"]
        with _workers(environ, words) as pids:
            yield Contestant("huey", "" if durable else "defaults", python, environ, pids)


@contextmanager
def _procrastinate(python: str) -> Iterator[Contestant]:
    with postgresql() as server:
        environ = {"QUEUE_URL": server.url}
        words = [python, "-m", "procrastinate", "--app", "on_procrastinate.app"]
        made = subprocess.run([*words, "schema", "--apply"], env=_environ(environ), cwd=QUEUES, capture_output=True)
        if made.returncode:
            raise Failed(f"procrastinate has no schema:\n{made.stderr.decode()}")
        with _workers(environ, [*words, "worker"], [*words, "worker"]) as pids:
            client = {**environ, "QUEUE_CLIENT": "1"}
            yield Contestant("procrastinate", "", python, client, [server.pid, *pids])


CONTESTANTS: dict[tuple[str, str], Any] = {
    ("Swell", ""): _swell,
    ("procrastinate", ""): _procrastinate,
    ("huey", ""): lambda python: _huey(python, durable=True),
    ("Celery", ""): lambda python: _celery(python, durable=True),
    ("huey", "defaults"): lambda python: _huey(python, durable=False),
    ("Celery", "defaults"): lambda python: _celery(python, durable=False),
}


@contextmanager
def _workers(environ: dict[str, str], *commands: list[str]) -> Iterator[list[int]]:
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        started = []
        for words in commands:
            worker = subprocess.Popen(
                words, env=_environ(environ), cwd=QUEUES, stdout=log, stderr=log, start_new_session=True
            )
            started.append(worker)
            stack.callback(_ended, worker)
        yield [worker.pid for worker in started]


def _ended(worker: subprocess.Popen[bytes]) -> None:
    """With those that it started."""
    worker.send_signal(signal.SIGTERM)
    try:
        worker.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def _environ(more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(QUEUES), **more}


# -- one round -----------------------------------------------------------------------------------


@contextmanager
def _driver(contestant: Contestant, submitters: int, calls: int, turns: int) -> Iterator[subprocess.Popen[str]]:
    """Who submits."""
    words = [contestant.python, str(QUEUES / "driver.py"), contestant.tool.lower()]
    environ = {**contestant.environ, "PYTHONPATH": str(QUEUES)}
    with subprocess.Popen(
        [*words, str(submitters), str(calls), str(turns)],
        env={**os.environ, **environ},
        text=True,
        cwd=QUEUES,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as driver:
        yield driver


def _round(contestant: Contestant, submitters: int, options: Options) -> Seen:
    with _driver(contestant, submitters, options.rounds(2400, 160), options.rounds(160, 32)) as driver:
        _told(driver)
        before_s = used_s(*contestant.pids)
        burst = _told(driver)
        cpu_s = used_s(*contestant.pids) - before_s
        took_ms = _told(driver)
    done = burst["calls"]
    us = (cpu_s / done * 1e6, burst["client_cpu_s"] / done * 1e6)
    return Seen(burst["accepted_per_s"], burst["done_per_s"], *us, took_ms)


def _calls_a_sync(contestant: Contestant, submitters: int, options: Options) -> float:
    """Of a burst, how many calls share a sync of a file: of whoever submits them, too, who may write by itself."""
    with (
        _driver(contestant, submitters, options.rounds(800, 160), submitters) as driver,
        syncs(*contestant.pids, driver.pid) as count,
    ):
        _told(driver)
        before = count()
        calls: int = _told(driver)["calls"]
        synced = count() - before
        _told(driver)
    return calls / max(synced, 1)


def _told(driver: subprocess.Popen[str]) -> Any:
    """The next line; it is told to go on."""
    assert driver.stdin and driver.stdout  # noqa: PT018 — for the types
    assert driver.stderr
    line = driver.stdout.readline()
    if not line:
        raise Failed(f"{' '.join(map(str, driver.args))} ended:\n{driver.stderr.read()}")  # type: ignore[arg-type]
    try:
        driver.stdin.write("\n")
        driver.stdin.flush()
    except BrokenPipeError:
        # After its last line.
        pass
    return json.loads(line)


def _rows(what: str, rounds: list[Seen]) -> list[Row]:
    took_ms = [ms for one in rounds for ms in one.took_ms]
    return [
        row("queue", f"{what}: accepted", "1/s", [one.accepted_per_s for one in rounds]),
        row("queue", f"{what}: done", "1/s", [one.done_per_s for one in rounds]),
        row("queue", f"{what}: one after the other", "ms", took_ms),
        row("queue", f"{what}: its p99", "ms", [quantile(one.took_ms, 0.99) for one in rounds]),
        row("queue", f"{what}: CPU a call, servers and workers", "µs", [one.cpu_us for one in rounds]),
        row("queue", f"{what}: CPU a call, client", "µs", [one.client_us for one in rounds]),
    ]


def _ratios(seen: dict[tuple[str, str, int], list[Seen]]) -> list[Row]:
    """Swell beside the best of the others that are as durable, round by round."""
    rows: list[Row] = []
    for submitters in (1, 16):
        ours = seen["Swell", "", submitters]
        others = [
            rounds for (tool, setup, n), rounds in seen.items() if tool != "Swell" and not setup and n == submitters
        ]
        done = [us.done_per_s / max(one.done_per_s for one in them) for us, *them in zip(ours, *others, strict=True)]
        p99 = [
            quantile(us.took_ms, 0.99) / min(quantile(one.took_ms, 0.99) for one in them)
            for us, *them in zip(ours, *others, strict=True)
        ]
        at = f"{submitters} submitters, of the best other that is as durable"
        rows += [row("queue", f"done, {at}", "×", done, "≥ 1.0"), row("queue", f"p99, {at}", "×", p99, "≤ 1.0")]
    return rows
