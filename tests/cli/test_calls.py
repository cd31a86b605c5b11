"""Is what is told of calls in the queue all there is to know of them, in lines that fit?"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.cli.calls import HEADS, called, listing, story
from swell.model.call import call_id, is_call_id
from swell.wire.call_rows import CallRow
from swell.wire.http import ErrorBody

NOW = 1_700_000_000.0
ID = call_id(1_700_000_000_000, b"0123456789")
ROW = CallRow(ID, "queued", "default", "shop", "price", NOW - 90, NOW - 90, 0)
ERROR = ErrorBody("exception", "ValueError: no such\x1b[31m size\nand more")


def row(**changes: Any) -> CallRow:
    return msgspec.structs.replace(ROW, **changes)


def test_a_line_for_each() -> None:
    rows = [ROW, row(state="failed", namespace="team", function="Model.go", attempts=3, error=ERROR)]
    heads, one, other = listing(rows, NOW).splitlines()
    assert heads.split() == list(HEADS)
    assert one.split() == [ID, "queued", "1m30s", "0", "shop/price"]
    assert other.split()[:5] == [ID, "failed", "1m30s", "3", "team/shop/Model.go"]
    # Of what others wrote the first line, and nothing that would steer a terminal.
    assert other.endswith("ValueError: no such size")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "it waits for a replica"),
        ({"due_at": NOW + 600, "priority": 5}, "it is due in 10m00s"),
        ({"due_at": NOW + 5, "attempts": 1, "error": ERROR}, "the last try failed with exception: ValueError"),
        ({"state": "leased", "attempts": 1, "replica": "r1-2"}, "r1-2 has it"),
        (
            {
                "state": "done",
                "attempts": 2,
                "replica": "r1-2",
                "ended_at": NOW - 5,
                "expires_at": NOW + 86400,
                "run_us": 9,
            },
            "it is kept for another 1d00h",
        ),
        (
            {"state": "failed", "attempts": 3, "ended_at": NOW - 5, "expires_at": NOW + 9, "error": ERROR},
            f"`swell calls retry {ID}` tries it again",
        ),
        (
            {"state": "cancelled", "ended_at": NOW, "error": ErrorBody("cancelled", "It was cancelled.")},
            "It was cancelled.",
        ),
        ({"key": "ci222222"}, "it came with the key ci222222"),
    ],
)
def test_a_story_says_where_it_stands(changes: dict[str, Any], words: str) -> None:
    told = story(row(**changes), NOW)
    assert told.splitlines()[0] == f"{ID}  shop/price  {changes.get('state', 'queued')}"
    assert words in told
    assert "\x1b" not in told


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_ids_are_known_as_such(ms: int, chance: bytes) -> None:
    id = call_id(ms, chance)
    assert is_call_id(id)
    assert not any(is_call_id(other) for other in (id.upper(), id[:-1], f"{id}0", id.replace("fc-", "fc_"), f"{id}\n"))


def test_a_function_with_other_options_is_named_as_it_is_called() -> None:
    assert called(row(function="price~0123456789ab")) == "shop/price~0123456789ab"
