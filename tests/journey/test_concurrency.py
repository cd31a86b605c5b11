"""Are inputs counted right: never more in a replica than it takes, and none kept waiting beside a free one?"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from journey.callers import APPS, call, opened_at_the_end, why
from private_swell import Answer, PrivateSwell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CLIENTS = 30

Interval = tuple[float, float]


@pytest.fixture(scope="module")
def crowd(own_swell: PrivateSwell) -> PrivateSwell:
    own_swell.run("deploy", str(APPS / "crowd.py"))
    return own_swell


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def flood(swell: PrivateSwell, function: str, file: Path, seconds: float, calls: int = CLIENTS) -> list[Answer]:
    """This many clients at once, each with one call; all are answered 200."""
    return at_the_same_time(swell, f"crowd/{function}", {"file": str(file), "seconds": seconds}, calls)


def at_the_same_time(swell: PrivateSwell, target: str, arguments: object, calls: int) -> list[Answer]:
    with ThreadPoolExecutor(calls) as clients:
        replies = list(clients.map(lambda _: call(swell, target, arguments), range(calls)))
    assert [reply.status for reply in replies] == [200] * calls
    return replies


def worked(file: Path) -> dict[int, list[Interval]]:
    """What each process noted, in order of beginning."""
    by_pid = defaultdict(list)
    for line in file.read_text().splitlines():
        pid, began, ended = line.split()
        by_pid[int(pid)].append((float(began), float(ended)))
    return {pid: sorted(intervals) for pid, intervals in by_pid.items()}


def at_once(intervals: Sequence[Interval]) -> int:
    """Most intervals that were open at the same moment."""
    steps = sorted([(began, 1) for began, _ in intervals] + [(ended, -1) for _, ended in intervals])
    return max(itertools.accumulate(step for _, step in steps))


def serving(swell: PrivateSwell, function: str) -> list[dict[str, object]]:
    return [one for one in swell.serving() if one["workload"].endswith(f"/{function}") and one["phase"] == "ready"]


@pytest.mark.shows("App.function", "max_containers")
def test_one_input_at_a_time(crowd: PrivateSwell, notes: Path) -> None:
    """30 slow calls over at most 5 replicas: never two in one process, and all five at work."""
    flood(crowd, "alone", notes, 0.0, calls=1)
    notes.unlink()
    flood(crowd, "alone", notes, 0.3)
    by_pid = worked(notes)
    assert sum(map(len, by_pid.values())) == CLIENTS
    assert {at_once(intervals) for intervals in by_pid.values()} == {1}
    assert len(by_pid) == 5
    assert at_once([one for intervals in by_pid.values() for one in intervals]) == 5


def test_none_is_held_beside_free_ones(crowd: PrivateSwell, notes: Path) -> None:
    """Five calls that end only once all five are at work: were one held behind another, none would ever end."""

    def all_were_there() -> bool:
        notes.unlink(missing_ok=True)
        replies = at_the_same_time(crowd, "crowd/meet", {"file": str(notes), "number": 5}, 5)
        assert len({reply.value for reply in replies}) == len(worked(notes)) == 5
        assert len(serving(crowd, "meet")) == 5
        return not any("swell-cold" in reply.headers for reply in replies)

    assert not all_were_there()
    wait_until("five are there before they are asked, and none has ended for idleness", all_were_there, wait_s=120)


@pytest.mark.shows("App.function", "scaledown_window")
def test_back_to_zero(crowd: PrivateSwell, notes: Path) -> None:
    flood(crowd, "alone", notes, 0.0, calls=5)
    wait_until("nothing serves", lambda: not serving(crowd, "alone"), wait_s=120)
    reply = flood(crowd, "alone", notes, 0.0, calls=1)[0]
    assert reply.headers["swell-cold"] == "1"
    reasons = " ".join(why(crowd, reply.request)["reasons"])
    assert "started for" in reasons


@pytest.mark.parametrize("function", ["together", "together_async"])
@pytest.mark.shows("concurrent", "max_inputs")
def test_eight_inputs_at_a_time(crowd: PrivateSwell, notes: Path, function: str) -> None:
    flood(crowd, function, notes, 0.0, calls=1)
    notes.unlink()
    flood(crowd, function, notes, 0.3)
    (intervals,) = worked(notes).values()
    assert len(intervals) == CLIENTS
    assert at_once(intervals) == 8


@pytest.mark.shows("App.function", "single_use_containers")
def test_a_replica_for_each_input(crowd: PrivateSwell, notes: Path) -> None:
    replies = flood(crowd, "once", notes, 0.1, calls=8)
    assert len({reply.value for reply in replies}) == 8
    by_pid = worked(notes)
    assert {len(intervals) for intervals in by_pid.values()} == {1}
    assert at_once([one for intervals in by_pid.values() for one in intervals]) <= 4


@pytest.fixture(scope="module")
def standing(own_swell: PrivateSwell) -> Iterator[PrivateSwell]:
    own_swell.run("deploy", str(APPS / "standing.py"))
    yield own_swell
    own_swell.run("app", "stop", "standing")


@pytest.mark.shows("App.function", "min_containers")
def test_one_is_kept(standing: PrivateSwell, tmp_path: Path) -> None:
    wait_until("one is there before anyone asked", lambda: len(serving(standing, "kept")) == 1, wait_s=120)
    reply = call(standing, "standing/kept")
    assert "swell-cold" not in reply.headers
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(3) as clients, opened_at_the_end(gate):
        busy = [clients.submit(call, standing, "standing/kept", {"until": str(gate)}) for _ in range(3)]
        wait_until("two more", lambda: len(serving(standing, "kept")) == 3, wait_s=120)
    assert len({one.result().value for one in busy}) == 3
    wait_until("one is left", lambda: len(serving(standing, "kept")) == 1, wait_s=120)
    time.sleep(3)
    assert [one["pid"] for one in serving(standing, "kept")] == [reply.value]


@pytest.mark.shows("App.function", "buffer_containers")
def test_one_is_spare(standing: PrivateSwell, tmp_path: Path) -> None:
    assert serving(standing, "spared") == []
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(1) as clients, opened_at_the_end(gate):
        slow = clients.submit(call, standing, "standing/spared", {"until": str(gate)})
        wait_until("a spare one", lambda: len(serving(standing, "spared")) == 2, wait_s=120)
        spare = {one["pid"] for one in serving(standing, "spared")}
        # Answered by the spare one, while the other is at work.
        other = call(standing, "standing/spared")
        assert not slow.done()
        assert other.value in spare
        assert "swell-cold" not in other.headers
    assert slow.result().value in spare - {other.value}
    wait_until("nothing serves", lambda: not serving(standing, "spared"), wait_s=120)
