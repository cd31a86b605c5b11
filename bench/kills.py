"""What becomes of durable calls whatever is killed under them? Counted from the client's side, by the ids it was given.

While calls are submitted and worked on, one process chosen by chance, or all of them, are killed with SIGKILL, at
moments chosen by chance. Each call is submitted until it is accepted, with an idempotency key; its result is read when
it is first told, and again at the end. Each run of the code returns a mark of its own: a result that was recorded twice
shows as two marks. SWELL_KILL_SEED repeats a run's choices.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from bench import APPS
from bench.row import Options, Row, row
from private_swell import Answer, Failed, PrivateSwell, exchange, unstarted_swell, wait_until

SUBMITTERS, WATCHERS = 16, 8
VICTIMS = ("control", "gateway", "runner", "replica", "all")
BACK_S = 120.0
END_S = 600.0
PAUSE_S = 0.02


class Reckoning(NamedTuple):
    """What came of one round."""

    accepted: int
    lost: int
    """Accepted, and not done in the end, or another's result."""
    doubled: int
    """Their result was told with one mark first, and with another in the end."""
    ran_again: int
    """Runs beyond the first of each: what ran when something was killed runs once more."""
    kills: int


def run(options: Options) -> list[Row]:
    """Twenty rounds on the same server, 20,000 calls in all; every other round all are killed at once."""
    seed = int(os.environ.get("SWELL_KILL_SEED") or random.SystemRandom().randrange(2**32))
    sys.stderr.write(f"bench: SWELL_KILL_SEED={seed}\n")
    chance = random.Random(seed)
    rounds, calls, kills = options.rounds(20, 2), options.rounds(1000, 400), options.rounds(2, 1)
    told: list[Reckoning] = []
    with unstarted_swell() as here:
        begin(here)
        for number in range(rounds):
            victims = [chance.choice(VICTIMS[:-1]) for _ in range(kills)] if number % 2 else ["all"]
            told.append(reckoned(here, calls, victims, chance))
            sys.stderr.write(f"bench: kills {number + 1} of {rounds}: {', '.join(victims)}: {told[-1]}\n")
    what = f"{sum(one.accepted for one in told):,} calls, {sum(one.kills for one in told)} kills, seed {seed}"
    return [
        row("kills", "lost", "calls", [sum(one.lost for one in told)], "≤ 0", what),
        row("kills", "recorded twice", "calls", [sum(one.doubled for one in told)], "≤ 0"),
        row("kills", "ran once more, of a round", "calls", [one.ran_again for one in told]),
    ]


def begin(here: PrivateSwell) -> None:
    """A server that is started again as often as is killed."""
    here.environ["SWELL_RESTARTS_MAX"] = "1000"
    here.run("up", "-d")
    here.run("deploy", str(APPS / "kills_app.py"))


def reckoned(here: PrivateSwell, calls: int, victims: list[str], chance: random.Random) -> Reckoning:
    """So many calls; each of `victims` is killed when about as many more of them were accepted."""
    with tempfile.NamedTemporaryFile("r", prefix="sw-ran", delete=True) as file:
        round = _Round(here, calls, file.name, f"{chance.getrandbits(64):x}")
        round.begin()
        try:
            for at, victim in enumerate(victims, 1):
                moment = round.calls * (at - chance.random()) / len(victims)
                round.wait("some more are accepted", lambda moment=moment: len(round.ids) >= moment)
                _kill(here, victim)
            round.end()
            return round.reckoned(Counter(int(line.split()[0]) for line in file), len(victims))
        finally:
            round.over.set()


def _kill(here: PrivateSwell, victim: str) -> None:
    """All: also the one that starts the others again, and it first."""
    if victim == "all":
        for process in here.processes():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        wait_until("all are gone", lambda: not here.processes(), wait_s=BACK_S)
        here.run("up", "-d")
        return
    wait_until(f"a {victim} is killed", lambda: _killed(here, victim), wait_s=BACK_S)


def _killed(here: PrivateSwell, victim: str) -> bool:
    """False while it is not there: it may just be being started again."""
    try:
        ready = [one["pid"] for one in here.serving() if one["phase"] == "ready"] if victim == "replica" else []
        os.kill(ready[0] if victim == "replica" else here.server(victim), signal.SIGKILL)
    except (OSError, IndexError, Failed):
        return False
    return True


class _Round:
    """Its clients: some that submit, some that wait for the ends."""

    def __init__(self, here: PrivateSwell, calls: int, file: str, name: str) -> None:
        self.here, self.calls, self.file, self.name = here, calls, file, name
        self.over = threading.Event()
        self.ids: dict[int, str] = {}
        """Number → the id it was given."""
        self.told: dict[int, str] = {}
        """Number → the mark that was told first."""
        self._numbers = iter(range(calls))
        self._lock = threading.Lock()
        self._accepted: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._failed: list[BaseException] = []

    def begin(self) -> None:
        for each in [self._submit] * SUBMITTERS + [self._watch] * WATCHERS:
            threading.Thread(target=self._guarded, args=(each,), daemon=True).start()

    def end(self) -> None:
        """Once all are done."""
        self.wait("all are done", lambda: len(self.told) == self.calls)

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        wait_until(what, lambda: bool(self._failed) or holds(), wait_s=END_S, pause_s=0.002)
        if self._failed:
            raise self._failed[0]

    def reckoned(self, ran: Counter[int], kills: int) -> Reckoning:
        door = _Door(self)
        marks = {number: self._mark(number, door, wait_s=0) for number in self.ids}
        lost = sum(mark is None for mark in marks.values()) + self.calls - len(self.ids)
        doubled = sum(mark is not None and mark != self.told.get(number) for number, mark in marks.items())
        return Reckoning(len(self.ids), lost, doubled, sum(ran.values()) - len(ran), kills)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._failed.append(error)

    def _submit(self) -> None:
        door = _Door(self)
        while not self.over.is_set():
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                return
            body = json.dumps({"number": number, "file": self.file}).encode()
            headers = {"Swell-Async": "true", "Idempotency-Key": f"{self.name}-{number}"}
            answer = door.answer("POST", "/call/bench-kills/marked", body, headers, 202)
            self.ids[number] = answer.value["id"]
            self._accepted.put(number)

    def _watch(self) -> None:
        door = _Door(self)
        while not self.over.is_set():
            with suppress(queue.Empty):
                number = self._accepted.get(timeout=0.1)
                mark = self._mark(number, door, wait_s=60)
                if mark is None:
                    self._accepted.put(number)
                else:
                    self.told[number] = mark

    def _mark(self, number: int, door: _Door, wait_s: int) -> str | None:
        """Of the run whose result it has, once it is done. Another's result is as good as none."""
        call = door.answer("GET", f"/calls/{self.ids[number]}?wait_s={wait_s}", None, {}, 200).value
        if call["state"] in ("failed", "cancelled"):
            raise Failed(f"call {number} came to {call}")
        if call["state"] != "done":
            return None
        told, mark = call["result"]
        return str(mark) if told == number else None


class _Door:
    """A kept connection that asks again until it is answered as it should be."""

    def __init__(self, round: _Round) -> None:
        self._round = round
        self._connection: http.client.HTTPConnection | None = None

    def answer(self, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int) -> Answer:
        until = time.monotonic() + END_S
        while not self._round.over.is_set():
            try:
                if self._connection is None:
                    self._connection = http.client.HTTPConnection("127.0.0.1", self._round.here.port, timeout=90)
                answer = exchange(self._connection, method, path, body, {"Content-Type": "application/json", **headers})
            except (OSError, http.client.HTTPException):
                if self._connection is not None:
                    self._connection.close()
                self._connection = None
            else:
                if answer.status == status:
                    return answer
                if answer.status not in (429, 502, 503, 504):
                    raise Failed(f"{method} {path} was answered {answer.status}: {answer.body[:500]!r}")
            if time.monotonic() > until:
                raise Failed(f"{method} {path} was not answered {status} within {END_S:g} s")
            time.sleep(PAUSE_S)
        raise Failed("the round is over")
