"""Why a replica ended, from its own words, what was ordered, and what the kernel says."""

from __future__ import annotations

import signal

import pytest

from swell.model.orders import StopOrder
from swell.runtime.runner.children import Child, Ending, verdict
from swell.runtime.runner.processes import Exit


def child(*, stopped: bool, ending: Ending | None = None) -> Child:
    made = Child("r1-1", "default/app/f@rv-1", "serving", None, 10.0, 0.0)
    made.stop = StopOrder(replica=made.id, reason="stopped", grace_s=1.0) if stopped else None
    made.ending = ending
    return made


@pytest.mark.parametrize("status", [0, None, -signal.SIGKILL])
def test_what_was_told_to_end_and_did_or_was_killed_ended_for_that(status: int | None) -> None:
    assert verdict(child(stopped=True), Exit(status, 0.0), 0, ["bye"]) == Ending("stopped")


@pytest.mark.parametrize("status", [1, 3, -signal.SIGSEGV, -signal.SIGABRT])
def test_what_crashed_crashed_also_if_it_was_told_to_end_just_then(status: int) -> None:
    told = verdict(child(stopped=True), Exit(status, 0.0), 0, ["bye"])
    assert told == verdict(child(stopped=False), Exit(status, 0.0), 0, ["bye"])
    assert told.reason == "crashed"


def test_the_kernel_took_its_memory_also_while_it_drained() -> None:
    assert verdict(child(stopped=True), Exit(-signal.SIGKILL, 0.0), 1, []).reason == "out_of_memory"


def test_what_outlived_a_program_of_its_own_that_the_kernel_took_ended_for_what_it_was_told() -> None:
    assert verdict(child(stopped=True), Exit(0, 0.0), 1, []) == Ending("stopped")


def test_what_was_cut_while_it_drained_tells_that() -> None:
    cut = Ending("stopped", "cut after 1 s of draining")
    assert verdict(child(stopped=True, ending=cut), Exit(-signal.SIGKILL, 0.0), 0, []) == cut


def test_one_that_said_it_is_stuck_is_that_whatever_its_status() -> None:
    stuck = Ending("stuck", "request a-1")
    assert verdict(child(stopped=False, ending=stuck), Exit(79, 0.0), 0, []) == stuck
    assert verdict(child(stopped=True, ending=stuck), Exit(79, 0.0), 0, []) == stuck
