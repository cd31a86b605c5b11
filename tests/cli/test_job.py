"""Is what is said of jobs all there is to know of them, in lines that fit?"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from swell.cli.job import HEADS, listing, standing
from swell.model.call import call_id
from swell.wire.call_rows import CallRow
from swell.wire.calls import Progress
from swell.wire.http import ErrorBody

NOW = 1_700_000_000.0
ID = call_id(1_700_000_000_000, b"0123456789")
ROW = CallRow(ID, "queued", "default", "train", "fit", NOW - 90, NOW - 90, 0)
DIED = ErrorBody("replica_died", "rank 2: The replica ended while it had the call.")


def row(**changes: Any) -> CallRow:
    return msgspec.structs.replace(ROW, **changes)


def test_a_line_for_each() -> None:
    failed = row(state="failed", attempts=3, error=DIED, nodes=2)
    heads, one, other = listing([row(nodes=4), failed], NOW).splitlines()
    assert heads.split() == list(HEADS)
    assert one.split() == [ID, "queued", "1m30s", "0", "4", "train/fit"]
    assert other.split()[:6] == [ID, "failed", "1m30s", "3", "2", "train/fit"]
    assert other.endswith(DIED.message)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "waits"),
        ({"waits": "3 of 4 fit"}, "waits: 3 of 4 fit"),
        ({"attempts": 1, "error": DIED}, f"waits, after {DIED.message}"),
        ({"state": "leased", "attempts": 1}, "runs, try 1"),
        ({"state": "leased", "attempts": 2, "progress": Progress(NOW, 3, 10)}, "runs, try 2: 3 of 10, 30%"),
        ({"state": "done", "ended_at": NOW, "attempts": 1}, "is done"),
        ({"state": "failed", "ended_at": NOW, "error": DIED}, "is failed"),
        ({"state": "cancelled", "ended_at": NOW, "error": DIED}, "is cancelled"),
    ],
)
def test_how_one_stands(changes: dict[str, Any], words: str) -> None:
    assert standing(row(**changes)) == f"{ID} {words}"
