"""Do the parts that a simulated queue is made of do what they say? Processes, links, disks, and the planted defects."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import mutants
from swell.model.call import Body, Call, Work
from swell.model.errors import SwellError
from swell.sim.clock import Timeline
from swell.sim.disk import Database, Disk, Medium, Memory
from swell.sim.network import Link, Weather
from swell.sim.process import Process, process_of

# -- processes --------------------------------------------------------------------------------


def process(time: Timeline, broken: list[str] | None = None) -> Process:
    return process_of("one", time, (broken if broken is not None else []).append, lambda: 1.0)


def test_what_waits_takes_no_time_and_the_clock_is_where_it_would_be() -> None:
    time = Timeline()
    one, seen = process(time), []

    async def main() -> None:
        await asyncio.sleep(3600.0)
        seen.append(time.now())
        try:
            async with asyncio.timeout(5.0):
                await asyncio.Event().wait()
        except TimeoutError:
            seen.append(time.now())
        seen.append(await asyncio.to_thread(time.now))
        seen.append(time.now())

    one.do(lambda: one.create_task(main()))
    time.run(10_000.0)
    assert seen == [3600.0, 3605.0, 3606.0, 3607.0]


@given(st.floats(0.0, 10.0))
def test_a_process_that_is_killed_does_nothing_more(killed_at: float) -> None:
    time = Timeline()
    one, ticks, wrote = process(time), [], []

    async def main() -> None:
        try:
            while True:
                await asyncio.sleep(1.0)
                ticks.append(time.now())
                await asyncio.to_thread(wrote.append, time.now())
        finally:
            ticks.append(-1.0)

    one.do(lambda: one.create_task(main()))
    time.at(killed_at, one.kill)
    time.run(20.0)
    assert all(0 <= at <= killed_at for at in ticks)
    assert all(at + 1.0 <= killed_at for at in wrote)


def test_what_nobody_catches_is_told() -> None:
    time, broken = Timeline(), []
    one = process(time, broken)
    one.do(lambda: one.call_soon(lambda: 1 / 0))
    time.run(1.0)
    assert "division by zero" in broken[0]


# -- links ------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.lists(st.floats(0.0, 2.0), max_size=30))
def test_a_link_keeps_the_order_and_loses_only_what_is_under_way_when_it_is_cut(seed: int, gaps: list[float]) -> None:
    time, heard = Timeline(), []
    link = Link(time, Random(seed), Weather(delay_s=1.0), lambda _: None)
    assert not link.send("up", lambda: heard.append(-1))
    link.connect()
    at = 0.0
    for number, gap in enumerate(gaps):
        at += gap
        time.at(at, lambda number=number: link.send("up", lambda: heard.append(number)))  # type: ignore[misc]
    time.at(at / 2, link.cut)
    time.at(at / 2, link.connect)
    time.run(at + 10.0)
    assert heard == sorted(set(heard))
    sent = [sum(gaps[: number + 1]) for number in range(len(gaps))]
    assert all(number in heard for number, then in enumerate(sent) if then + 1.0 < at / 2 or then > at / 2)


def test_a_silent_link_takes_what_it_does_not_carry() -> None:
    time, heard = Timeline(), []
    link = Link(time, Random(1), Weather(), lambda _: None)
    link.connect()
    link.silent = True
    assert link.send("up", lambda: heard.append(1))
    time.run(1.0)
    assert not heard


def test_messages_come_twice_and_out_of_order_where_they_do() -> None:
    time, heard, counted = Timeline(), [], []
    link = Link(time, Random(1), Weather(delay_s=1.0, reorder=0.5, repeat=0.5), counted.append)
    link.connect()
    for number in range(50):
        link.send("up", lambda number=number: heard.append(number))  # type: ignore[misc]
    time.run(10.0)
    assert set(heard) == set(range(50))
    assert len(heard) == 50 + counted.count("message repeated") > 50
    assert heard != sorted(heard)


# -- disks ------------------------------------------------------------------------------------


def work(number: int) -> Work:
    call = Call(f"fc-{number:026d}", "default/a/f", "f", accepted_at=1.0, due_at=1.0)
    return Work(call, Body("application/json", b"%d" % number * 2000))


@pytest.fixture(params=[Memory, Database])
def medium(request: pytest.FixtureRequest) -> Iterator[Medium]:
    made: Medium = request.param()
    yield made
    made.close()


def test_a_power_cut_takes_what_was_not_synced_and_nothing_else(medium: Medium) -> None:
    """However much of what was not is left in the log of the database: half a record of it, perhaps."""
    disk, chance = Disk(medium), Random(1)
    for number in range(12):
        with disk.transaction():
            disk.calls.add([work(number)])
        for _ in range(3):
            disk.calls.lease("default/a/f", 1, 2.0, number + 1, "r1", "p")
        disk.medium.cut_power(chance)
        kept = disk.call_records.newest("", None, 100)
        assert len(kept) == number + 1
        assert all(disk.call_records.input(call.id) == work(int(call.id[3:])).input for call in kept)


def test_a_write_that_was_torn_is_told() -> None:
    medium, chance = Database(), Random(1)
    disk = Disk(medium)
    torn = []
    for number in range(8):
        with disk.transaction():
            disk.calls.add([work(number)])
        disk.calls.lease("default/a/f", 1, 2.0, number + 1, "r1", "p")
        torn.append(disk.medium.cut_power(chance))
    assert any(torn)
    assert not disk.medium.cut_power(chance), "all was on disk"
    medium.close()


class Least(Random):
    """The least that can be."""

    def randint(self, a: int, b: int) -> int:
        return a


@pytest.mark.parametrize(("power", "left"), [(True, 0), (False, 1)])
def test_leases_are_lost_with_the_power_and_outlive_a_process(medium: Medium, power: bool, left: int) -> None:
    disk = Disk(medium)
    with disk.transaction():
        disk.calls.add([work(1)])
    disk.calls.lease("default/a/f", 1, 2.0, 7, "r1", "p")
    if power:
        disk.medium.cut_power(Least())
    else:
        disk.medium.restart()
    assert len(disk.calls.standing().leased) == left


def test_a_full_disk_has_nothing_of_it_or_all_and_says_so(medium: Medium) -> None:
    disk = Disk(medium)
    for when, kept in (("before", 0), ("after", 1)):
        disk.full = when
        with pytest.raises(SwellError, match="no space"), disk.transaction():
            disk.calls.add([work(1)])
        assert len(disk.call_records.newest("", None, 100)) == kept


# -- planted defects ----------------------------------------------------------------------------


def test_each_planted_defect_still_fits_the_source() -> None:
    names = mutants.names()
    assert len(names) >= 10
    for name in names:
        check = ["git", "apply", "--check", str(mutants.FOLDER / f"{name}.patch")]
        done = subprocess.run(check, cwd=mutants.ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a-new-control-forgets-leases"])
def test_a_planted_defect_is_caught(name: str, tmp_path: Path) -> None:
    assert mutants.caught(mutants.planted(name, tmp_path), 10)
