"""What calls are named, and when they may be forgotten."""

from __future__ import annotations

import math
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swell.model.call import (
    NAME_MAX,
    PRIORITY_MAX,
    Call,
    CallError,
    Keeping,
    State,
    call_id,
    check,
    fencing_token,
)
from swell.model.errors import SwellError
from swell.model.retrying import Retrying

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


@given(st.text(st.characters()), st.sampled_from(["", "\0", "\ud800", "\udfff\0"]))
def test_an_error_is_told_whatever_its_words_are(words: str, odd: str) -> None:
    error = CallError("exception", words + odd + "end")
    error.message.encode()
    assert "\0" not in error.message
    assert error.message.endswith("end")
    plain = words.encode("utf-8", "ignore").decode() == words and "\0" not in words
    assert (error.message == f"{words}{odd}end") is (plain and not odd)


CALL = Call("fc-1", "default/a/f", "f", 0.0, 0.0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"priority": PRIORITY_MAX + 1}, "101 is no priority: they are from -100 to 100."),
        ({"priority": -PRIORITY_MAX - 1}, "-101 is no priority: they are from -100 to 100."),
        ({"due_at": math.inf}, "due_at cannot be inf: it is no finite number."),
        ({"timeout_s": math.nan}, "timeout_s cannot be nan: it is no finite number."),
        ({"retrying": Retrying(max_delay_s=math.inf)}, "max_delay_s cannot be inf: it is no finite number."),
        ({"retrying": Retrying(max_retries=2**63)}, "max_retries cannot be 9223372036854775808: it is too large."),
        ({"keeping": Keeping(result_s=-math.inf)}, "result_s cannot be -inf: it is no finite number."),
        ({"accept": "a\0"}, r"accept cannot be 'a\x00': it has a NUL, or half a surrogate pair, in it."),
        ({"method": "\udc80"}, r"method cannot be '\udc80': it has a NUL, or half a surrogate pair, in it."),
        ({"idempotency_key": "k" * 257}, "The idempotency key .* has 257 characters; it may have 256."),
        ({"group": "k" * 257}, "The group .* has 257 characters; it may have 256."),
    ],
)
def test_what_cannot_be_kept_is_refused_in_words(changed: dict[str, object], said: str) -> None:
    with pytest.raises(SwellError) as refused:
        check(replace(CALL, **changed))
    assert (refused.value.code, refused.value.status) == ("bad_request", 400)
    assert re.fullmatch(said if ".*" in said else re.escape(said), refused.value.message)


def test_what_can_just_be_kept_is_not_refused() -> None:
    for priority in (-PRIORITY_MAX, PRIORITY_MAX):
        check(replace(CALL, priority=priority, idempotency_key="k" * NAME_MAX, group="é" * NAME_MAX, due_at=1e300))
