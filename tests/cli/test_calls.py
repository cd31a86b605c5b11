"""Is what is told of calls in the queue all there is to know of them, in lines that fit?"""

from __future__ import annotations

import json
import pickle
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.cli.calls import HEADS, SHOWN_MAX, called, listing, plain, story, told
from swell.cli.main import run
from swell.model.call import call_id, is_call_id
from swell.wire.call_rows import CallRow
from swell.wire.http import JSON, MSGPACK, OCTETS, PICKLE, ErrorBody

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


# -- inputs ----------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(VALUES, max_size=3), st.dictionaries(st.text(min_size=1, max_size=5), VALUES, max_size=3))
def test_plain_arguments_are_shown_whatever_they_came_in(args: list[Any], kwargs: dict[str, Any]) -> None:
    either = kwargs or args
    for content_type, data, value in (
        (JSON, json.dumps(either).encode(), either),
        ("application/x-www-form-urlencoded", json.dumps(either).encode(), either),
        (MSGPACK, msgspec.msgpack.encode(either), either),
        (PICKLE, pickle.dumps((tuple(args), kwargs), protocol=5), [args, kwargs] if args and kwargs else either),
    ):
        assert plain(content_type, data) == value
        assert json.loads(told(ID, content_type, data)) == value


def test_what_is_no_plain_data_is_told_as_what_it_is_and_runs_no_code() -> None:
    for content_type, data in (
        (PICKLE, pickle.dumps(((Fraction(1, 2),), {}))),
        (PICKLE, b"cbuiltins\nexit\n(tR."),
        (PICKLE, pickle.dumps(((b"\xff",), {}))),
        (PICKLE, b"\x80"),
        (MSGPACK, b"\xc1"),
        (MSGPACK, b""),
        (JSON, b"{"),
        (OCTETS, b"[1]"),
        ("text/x\x1b[31m", b"[1]"),
    ):
        assert plain(content_type, data) is None
        words = f"{len(data)} bytes of {content_type}: `swell calls show {ID} --input FILE` writes all of it"
        assert told(ID, content_type, data) == words


def test_of_a_large_input_the_beginning_is_shown() -> None:
    data = json.dumps(["a" * 2 * SHOWN_MAX]).encode()
    shown = told(ID, JSON, data)
    assert shown.startswith('["aaa')
    assert len(shown) < SHOWN_MAX + 200
    assert f"… ({len(data)} bytes): `swell calls show" in shown


@pytest.mark.parametrize(
    "words",
    [
        [],
        [ID, "--app", "shop"],
        ["--function", "price"],
        ["--app", "shop", "--input", "[1]"],
        [ID, "--state", "done"],
        [ID, "--input", "{"],
        [ID, "--input", "1"],
        [ID, "--input", "@/no/such/file"],
    ],
)
def test_what_cannot_be_tried_again_is_refused_before_anything_is_asked(words: list[str]) -> None:
    assert run(["calls", "retry", *words]) == 2
