"""Is a call that was accepted done once, whatever is killed? A short form of `make bench PARTS=kills`."""

from __future__ import annotations

import os
import random

import pytest

from bench.kills import begin, reckoned
from private_swell import unstarted_swell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("victims", [["runner", "control", "gateway"], ["all"]], ids=["one", "all"])
def test_no_call_is_lost_or_recorded_twice(victims: list[str]) -> None:
    seed = int(os.environ.get("SWELL_KILL_SEED") or random.SystemRandom().randrange(2**32))
    print(f"SWELL_KILL_SEED={seed}")
    with unstarted_swell() as swell:
        begin(swell)
        told = reckoned(swell, 500, victims, random.Random(seed))
    assert (told.accepted, told.lost, told.doubled) == (500, 0, 0)
