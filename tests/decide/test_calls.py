"""Whether a call whose attempt failed is tried again, when, and what is said of it at last."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swell.decide.calls import FAILURES, LOST_RETRIES, NOT_BEGUN, End, after, delay_s
from swell.model.call import LOSSES, Again, Call, CallError, Cancelled, Failed, State
from swell.model.retrying import Retrying

NOW = 1000.0
CALL = Call("fc-1", "default/a/f", "f", 900.0, 950.0, state="leased", attempts=1, token=7, replica="r1-1")
codes = st.sampled_from(sorted(FAILURES | LOSSES | NOT_BEGUN))


def tried(attempts: int, max_retries: int) -> Call:
    return replace(CALL, attempts=attempts, retrying=Retrying(max_retries=max_retries))


def end(code: str, id: str = "fc-1", token: int = 7) -> End:
    return End(id, token, code, "words", b"{}", cpu_us=3, run_us=4)


@pytest.mark.parametrize("code", sorted(FAILURES))
@pytest.mark.parametrize(("attempts", "retries", "again"), [(1, 0, False), (1, 1, True), (2, 1, False), (3, 3, True)])
def test_a_failure_of_the_code_is_tried_again_as_often_as_its_author_said(
    code: str, attempts: int, retries: int, again: bool
) -> None:
    became = after(tried(attempts, retries), end(code), NOW, 0.0)
    assert isinstance(became, Again if again else Failed)
    assert became is not None
    assert became.error is not None
    assert (became.id, became.token, became.error.code) == ("fc-1", 7, code)
    assert (became.cpu_us, became.run_us) == (3, 4)


@pytest.mark.parametrize("code", sorted(LOSSES))
@pytest.mark.parametrize("retries", [0, 1, LOST_RETRIES, 9])
def test_a_call_that_kills_its_replicas_is_a_dead_letter_after_its_attempts(code: str, retries: int) -> None:
    most = 1 + max(retries, LOST_RETRIES)
    became = [after(tried(n, retries), end(code), NOW, 0.0) for n in range(1, most + 1)]
    assert all(isinstance(each, Again) and each.counts for each in became[:-1])
    assert became[-1] == Failed(
        "fc-1", 7, NOW, CallError(code, f"words (the last of {most} attempts)"), b"{}", cpu_us=3, run_us=4
    )


def test_what_was_lost_before_counts_as_an_attempt_of_the_code_too() -> None:
    assert isinstance(after(tried(2, 1), end("exception"), NOW, 0.0), Failed)


@pytest.mark.parametrize("code", sorted(NOT_BEGUN))
@pytest.mark.parametrize("attempts", [1, 99])
def test_what_was_not_begun_keeps_its_place_and_its_attempts(code: str, attempts: int) -> None:
    assert after(tried(attempts, 0), end(code), NOW, 0.5) == Again(
        "fc-1", 7, CALL.due_at, None, counts=False, cpu_us=3, run_us=4
    )


@pytest.mark.parametrize("code", ["bad_arguments", "not_running", "bad_result", "anything"])
def test_what_would_end_alike_is_not_tried_again(code: str) -> None:
    assert after(tried(1, 9), end(code), NOW, 0.0) == Failed(
        "fc-1", 7, NOW, CallError(code, "words"), b"{}", cpu_us=3, run_us=4
    )


def test_what_was_cancelled_is_cancelled_whatever_retries_it_has() -> None:
    assert after(tried(1, 9), end("cancelled"), NOW, 0.0) == Cancelled(
        "fc-1", 7, NOW, CallError("cancelled", "words"), cpu_us=3, run_us=4
    )


@given(
    codes | st.sampled_from(["cancelled", "bad_result"]),
    st.sampled_from(["queued", "leased", "leased", "done", "failed", "cancelled"]),
    st.sampled_from(["fc-1", "fc-1", "fc-2"]),
    st.sampled_from([0, 6, 7, 7, 8]),
)
def test_an_end_of_another_lease_than_the_call_has_is_nothing_to_do(
    code: str, state: State, id: str, token: int
) -> None:
    call = replace(CALL, state=state, token=7 if state != "queued" else 0)
    became = after(call, end(code, id, token), NOW, 0.5)
    assert (became is not None) is (state == "leased" and (id, token) == ("fc-1", 7))


def test_an_end_without_a_code_is_not_made_an_error() -> None:
    with pytest.raises(ValueError, match="has a code"):
        after(CALL, end(""), NOW, 0.0)


@given(
    st.integers(1, 2000),
    st.floats(1.0, 10.0),
    st.floats(0.0, 60.0),
    st.floats(0.0, 86_400.0),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0, exclude_max=True),
)
def test_a_delay_grows_up_to_its_bound_and_chance_takes_no_more_than_its_share(
    attempts: int, coefficient: float, first_s: float, most_s: float, jitter: float, chance: float
) -> None:
    policy = Retrying(max_retries=9999, backoff_coefficient=coefficient, initial_delay_s=first_s, max_delay_s=most_s)
    call = replace(CALL, attempts=attempts, retrying=policy, jitter=jitter)
    whole = delay_s(call, 0.0)
    assert whole == most_s or whole == pytest.approx(first_s * coefficient ** (attempts - 1))
    assert whole <= delay_s(replace(call, attempts=attempts + 1), 0.0) <= most_s
    assert whole * (1 - jitter) * 0.999999 <= delay_s(call, chance) <= whole
    became = after(call, end("exception"), NOW, chance)
    assert became == Again("fc-1", 7, NOW + delay_s(call, chance), CallError("exception", "words"), cpu_us=3, run_us=4)


@given(st.integers(0, 10), st.lists(codes, min_size=20, max_size=60))
def test_whatever_happens_its_attempts_come_to_an_end(retries: int, ends: list[str]) -> None:
    attempts = counted = 0
    for code in ends:
        attempts += 1
        became = after(tried(attempts, retries), end(code), NOW, 0.0)
        counted += code not in NOT_BEGUN
        if isinstance(became, Failed):
            break
        assert isinstance(became, Again)
        attempts -= not became.counts
        assert attempts == counted
    assert counted <= 1 + max(retries, LOST_RETRIES)
