"""What calls are named, and when they may be forgotten."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swell.model.call import Call, CallError, Keeping, State, call_id, fencing_token

times_ms = st.integers(0, 2**48 - 1)
chances = st.binary(min_size=10, max_size=10)


@given(times_ms, chances, times_ms, chances)
def test_ids_sort_by_time_and_differ_by_chance(ms: int, chance: bytes, other_ms: int, other: bytes) -> None:
    one, two = call_id(ms, chance), call_id(other_ms, other)
    assert re.fullmatch(r"fc-[0-7][0-9A-HJKMNP-TV-Z]{25}", one)
    assert (one < two) is ((ms, chance) < (other_ms, other))
    assert (one == two) is ((ms, chance) == (other_ms, other))


def test_an_id_is_written_as_others_write_them() -> None:
    assert call_id(1_469_918_176_385, bytes(10)) == "fc-01ARYZ6S410000000000000000"
    assert call_id(2**48 - 1, b"\xff" * 10) == "fc-7ZZZZZZZZZZZZZZZZZZZZZZZZZ"


@given(st.lists(st.tuples(st.integers(1, 2**20), st.integers(1, 2**40 - 1)), min_size=2, max_size=9))
def test_tokens_grow_with_the_incarnation_and_the_number(made: list[tuple[int, int]]) -> None:
    assert sorted(made) == sorted(made, key=lambda pair: fencing_token(*pair))
    assert len({fencing_token(*pair) for pair in made}) == len(set(made))
    assert all(0 < fencing_token(*pair) < 2**63 for pair in made)


@pytest.mark.parametrize(("state", "kept_s"), [("done", 5.0), ("cancelled", 5.0), ("failed", 9.0)])
def test_a_call_expires_some_time_after_its_end(state: State, kept_s: float) -> None:
    call = Call("fc-1", "default/a/f", "f", 0.0, 0.0, keeping=Keeping(5.0, 9.0))
    assert call.expires_at is None
    assert replace(call, state=state, ended_at=100.0).expires_at == 100.0 + kept_s


def test_an_error_has_a_code_however_it_is_made() -> None:
    error = CallError("exception", "")
    with pytest.raises(ValueError, match="has a code"):
        CallError("", "words")
    with pytest.raises(ValueError, match="has a code"):
        replace(error, code="")
    with pytest.raises(msgspec.ValidationError, match="has a code"):
        msgspec.msgpack.decode(msgspec.msgpack.encode({"code": "", "message": "words"}), type=CallError)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(error), type=CallError) == error
