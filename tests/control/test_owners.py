"""Is a program that ended told from one that is there, on this machine and elsewhere? With real processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from swell.control.owners import OWNER_LOOK_S, TELLS, Owners
from swell.model.owner import Owner
from swell.wire.identity import identify, machine, myself

MINE = Owner(*myself(), machine())
FAR = Owner(MINE.pid, MINE.start_ticks, "another")
NO_PID_HERE = Owner(2**30, 1, "another")
LOOKS_MAX = 15
SILENT_S = LOOKS_MAX * OWNER_LOOK_S


@pytest.mark.parametrize("where", [machine(), ""])
def test_a_program_here_is_seen_to_end_and_needs_to_say_nothing(where: str) -> None:
    owners = Owners(SILENT_S)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as program:
        found = identify(program.pid)
        assert found is not None
        owner = Owner(*found, where)
        assert owners.heard(owner).again_s == 0.0
        for _ in range(2 * LOOKS_MAX):
            assert owners.ended([owner, MINE]) == set()
    assert owners.ended([owner, MINE]) == {owner}


@pytest.mark.parametrize("owner", [FAR, NO_PID_HERE])
def test_a_program_elsewhere_is_there_while_it_says_so(owner: Owner) -> None:
    """Whoever has its pid here, or nobody."""
    owners = Owners(SILENT_S)
    assert owners.ended([owner]) == set()
    for _ in range(5):
        assert [owners.ended([owner]) for _ in range(LOOKS_MAX - 1)] == [set()] * (LOOKS_MAX - 1)
        assert owners.heard(owner).again_s == SILENT_S / TELLS
    assert [owners.ended([owner]) for _ in range(LOOKS_MAX)] == [set()] * (LOOKS_MAX - 1) + [{owner}]


def test_however_short_a_time_is_given_one_that_says_so_in_time_is_there() -> None:
    owners = Owners(0.1)
    assert owners.ended([FAR]) == set()
    for _ in range(5):
        assert 0 < owners.heard(FAR).again_s < OWNER_LOOK_S
        assert owners.ended([FAR]) == set()


def test_of_one_that_owns_nothing_nothing_is_kept_and_what_it_makes_later_has_all_the_time() -> None:
    owners = Owners(SILENT_S)
    for pid in range(1000):
        owners.heard(Owner(pid, 1, "another"))
    assert owners._silent == {}
    for _ in range(LOOKS_MAX):
        owners.ended([FAR])
    assert owners.ended([]) == set()
    assert owners.ended([FAR]) == set(), "what it owned before is over: it begins anew"


def test_one_machine_is_the_same_for_all_its_programs() -> None:
    program = "from swell.wire.identity import machine; print(machine())"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    if sys.platform == "linux":
        assert said == machine()
    else:
        assert said != machine()
