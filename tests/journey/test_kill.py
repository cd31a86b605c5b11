"""Whatever of ours is killed while many requests are in flight: does every request end well, and all come back?

`SWELL_KILL_SEED` repeats a run; `SWELL_KILL_ROUNDS` makes it longer.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from census import left_over, supervisor, unreconciled
from traffic import ONCE, PROGRAM, SINGLE, STEADY, WAKING, Outcome, Traffic, repeated, traffic, unbegun

from private_swell import Failed, PrivateSwell, unstarted_swell, wait_until

pytestmark = [pytest.mark.slow]

SERVERS = ("control", "gateway", "runner")
"""What the supervisor starts again."""
VICTIMS = (*((name,) for name in (*SERVERS, "template", "replica", "supervisor")),)
PAIRS = (*itertools.combinations(SERVERS, 2), ("runner", "template"), ("control", "replica"))
ROUNDS = int(os.environ.get("SWELL_KILL_ROUNDS", "24"))
CALLERS = [STEADY] * 44 + [SINGLE] * 12 + [ONCE] * 2 + [WAKING] * 4
IN_FLIGHT_MIN = 50
ORPHAN_S = 3.0
KEPT = 1 + 4
"""Replicas of the pools that are always in use, as many as they may be."""
BACK_S = 60.0
"""How long the platform may take to answer again after a kill."""
QUIET_S = 60.0
"""How long it may take to say and be the same once nobody calls."""
AFTER_S = 0.5
"""Traffic that still goes on once it answers again."""


@dataclass(frozen=True)
class Kill:
    """What was killed, each with its pid, and between which two moments."""

    pids: dict[str, int]
    begun: float
    done: float

    def any_of(self, *names: str) -> bool:
        return any(name in self.pids for name in names)


@pytest.fixture
def swell(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PrivateSwell]:
    """With as many gateways as it is asked for."""
    with unstarted_swell() as made:
        made.environ["SWELL_GATEWAYS"] = str(request.param)
        up(made)
        program = tmp_path / "fire.py"
        program.write_text(PROGRAM)
        made.run("deploy", str(program))
        wait_until("the warm ones are there", lambda: len(kept(made)) == 3, wait_s=BACK_S)
        try:
            yield made
        finally:
            # Shown only where the test failed.
            print(made.log(300))


SLOW_TO_IMPORT = """
import pathlib, time
import swell

app = swell.App("slow")
pathlib.Path(MARK).touch()
time.sleep(PAUSE_S)

@app.function()
def version() -> int:
    return VERSION
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", SERVERS)
def test_a_deploy_cut_short_says_so_and_changes_nothing(tmp_path: Path, victim: str) -> None:
    program, mark = tmp_path / "slow.py", tmp_path / "imported"

    def write(version: int, pause_s: float) -> None:
        text = SLOW_TO_IMPORT.replace("MARK", repr(str(mark))).replace("PAUSE_S", f"{pause_s:g}")
        program.write_text(text.replace("VERSION", str(version)))
        mark.unlink(missing_ok=True)

    def version() -> int:
        with swell.connect() as client:
            return int(client.call("slow/version").value)

    with unstarted_swell() as swell:
        up(swell)
        write(1, 0.0)
        swell.run("deploy", str(program))
        assert version() == 1
        write(2, 2.0)
        deploy = subprocess.Popen(
            ["swell", "deploy", str(program)], env=swell.environ, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        wait_until("it is imported here", mark.exists, wait_s=BACK_S)
        mark.unlink()
        wait_until("it is imported there", mark.exists, wait_s=BACK_S)
        os.kill(swell.server(victim), signal.SIGKILL)
        said = deploy.communicate(timeout=60)[1].decode()
        assert deploy.returncode == 1, said
        assert any(line.startswith("Error: ") for line in said.splitlines()), said
        assert "Traceback" not in said
        wait_until("control answers", lambda: answers(swell), wait_s=BACK_S)
        if victim != "gateway":
            # With the gateway only the one who waits is cut off: what control began it ends.
            assert version() == 1
        write(3, 0.0)
        wait_until("it can be deployed", lambda: deploys(swell, program), wait_s=BACK_S)
        wait_until("it serves", lambda: version() == 3, wait_s=BACK_S)
        swell.run("down")
        assert left_over(swell) == []


def deploys(swell: PrivateSwell, program: Path) -> bool:
    try:
        swell.run("deploy", str(program))
    except Failed:
        return False
    return True


@pytest.mark.timeout(60 + 40 * ROUNDS)
@pytest.mark.parametrize(("swell", "count"), [(1, ROUNDS), (2, ROUNDS // 3)], indirect=["swell"], ids=["one", "two"])
def test_kills_under_load(swell: PrivateSwell, count: int, tmp_path: Path) -> None:
    seed = int(os.environ.get("SWELL_KILL_SEED") or random.SystemRandom().randrange(2**32))
    print(f"SWELL_KILL_SEED={seed} SWELL_KILL_ROUNDS={ROUNDS}")
    chance = random.Random(seed)
    rounds: list[tuple[str, ...]] = []
    while len(rounds) < count:
        # Each alone and two at once, in any order.
        rounds += chance.sample([*VICTIMS, chance.choice(PAIRS)], len(VICTIMS) + 1)
    for number, victims in enumerate(rounds[:count]):
        begun = time.monotonic()
        print(f"round {number}: {' and '.join(victims)}", end="", flush=True)
        one_round(swell, victims, chance, tmp_path / f"book-{number}")
        print(f", {time.monotonic() - begun:.1f} s")
    swell.run("down")
    assert left_over(swell) == []
    said = swell.log(lines=100_000)
    assert "over_max" not in said, "more were started than may be"
    assert "did not end within its grace" not in said


def one_round(swell: PrivateSwell, victims: tuple[str, ...], chance: random.Random, book: Path) -> None:
    """Kill under load; see what became of every request, and of everything else."""
    with traffic(swell.port, book, chance, CALLERS) as calls:
        time.sleep(chance.uniform(0.0, 1.0))
        wait_until("all there", lambda: len(kept(swell)) == KEPT, wait_s=BACK_S)
        wait_until("many in flight", lambda: len(calls.in_flight) >= IN_FLIGHT_MIN, wait_s=BACK_S, pause_s=0.001)
        before = kept(swell)
        killed = kill(swell, victims, chance)
        stays = not killed.any_of("replica")
        if killed.any_of("supervisor"):
            stays = chance.random() < 0.5
            if not stays:
                wait_until("the rest ended by itself", lambda: not swell.processes(), wait_s=ORPHAN_S + 60)
            up(swell)
        answers_again(swell, calls, killed)
        time.sleep(AFTER_S)
    check_outcomes(killed, calls.outcomes)
    assert repeated(book) == []
    assert unbegun(book, calls.outcomes) == []
    reconcile(swell)
    if stays:
        assert kept(swell) == before, "these were there, and no others were needed"


def kill(swell: PrivateSwell, victims: tuple[str, ...], chance: random.Random) -> Kill:
    """kill -9 of each, or of one of each."""
    pids = {victim: pid_of(swell, victim, chance) for victim in victims}
    begun = time.monotonic()
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    return Kill(pids, begun, time.monotonic())


def pid_of(swell: PrivateSwell, victim: str, chance: random.Random) -> int:
    if victim == "supervisor":
        return supervisor(swell)
    if victim == "template":
        return chance.choice([row["pid"] for row in swell.replicas() if row["role"] == "template" and row["pid"]])
    if victim == "replica":
        return chance.choice(list(kept(swell).values()))
    return swell.server(victim)


def answers_again(swell: PrivateSwell, calls: Traffic, killed: Kill) -> None:
    """Others are there, and requests that begin now are answered."""
    for name in SERVERS:
        if killed.any_of(name):
            wait_until(f"another {name}", lambda: other(swell, name, killed.pids[name]), wait_s=BACK_S)
    wait_until("control answers", lambda: answers(swell), wait_s=BACK_S)
    since = time.monotonic()
    if killed.any_of("control") and not killed.any_of("gateway"):
        warm_while_down(calls.outcomes, killed, since)
    wanted = {STEADY, SINGLE}
    wait_until(
        f"answers after {list(killed.pids)} were killed",
        lambda: {one.function for one in calls.outcomes if one.answered and one.begun > since} >= wanted,
        wait_s=BACK_S,
    )


def warm_while_down(outcomes: list[Outcome], killed: Kill, back: float) -> None:
    """Requests that began and ended while there was no control."""
    while_down = [one for one in outcomes if one.function == STEADY and one.begun > killed.done and one.ended < back]
    if not killed.any_of("replica"):
        # Otherwise the one that was killed may be the only one there was, and its callers wait for control.
        assert while_down
        assert all(one.answered for one in while_down)


def check_outcomes(killed: Kill, outcomes: list[Outcome]) -> None:
    """Each its own answer, or an error with an id; connections only break with who holds them."""
    assert len({one.id for one in outcomes}) == len(outcomes)
    hung = [str(one) for one in outcomes if "hangs" in one.trouble]
    assert hung == []
    bad = [str(one) for one in outcomes if not (one.answered or one.refused or one.broken)]
    assert bad == []
    broken = [str(one) for one in outcomes if one.broken]
    if not killed.any_of("gateway", "supervisor"):
        assert broken == []
    codes = {one.code for one in outcomes if one.refused}
    if not killed.any_of("supervisor"):
        # Only who is sent to a replica can lose it; nobody else who was killed holds requests and drops them.
        assert codes <= ({"replica_died"} if killed.any_of("replica") else set())
    if not killed.any_of("supervisor", "replica"):
        cold = [str(one) for one in outcomes if one.cold and one.function in (STEADY, SINGLE)]
        assert cold == [], "its replicas were there"
    early = [str(one) for one in outcomes if not one.answered and one.ended < killed.begun]
    assert early == [], "before anything was killed"


def reconcile(swell: PrivateSwell) -> None:
    """Once all is quiet, what it says of itself is what is there."""
    wrong: list[str] = ["never asked"]

    def agrees() -> bool:
        wrong[:] = unreconciled(swell)
        return not wrong

    try:
        wait_until("it agrees with itself", agrees, wait_s=QUIET_S, pause_s=0.1)
    except Failed:
        pytest.fail("; ".join(wrong) + "\n" + swell.log(40))


def kept(swell: PrivateSwell) -> dict[str, int]:
    """Id → pid of the ready replicas that stay however little they are used."""
    return {
        str(row["id"]): int(row["pid"])
        for row in swell.serving()
        if row["phase"] == "ready" and row["workload"].rpartition("/")[2] in (STEADY, SINGLE)
    }


def other(swell: PrivateSwell, name: str, pid: int) -> bool:
    """Is there a process of that name again?"""
    try:
        return swell.server(name) != pid
    except Failed:
        return False


def answers(swell: PrivateSwell) -> bool:
    """Does control answer?"""
    try:
        swell.replicas()
    except Failed:
        return False
    return True


def up(swell: PrivateSwell) -> None:
    """What is killed is started again at once, however often that is."""
    swell.run("up", "-d", "--set", f"orphan_s={ORPHAN_S:g}", "--set", "restarts_within_s=1")
