"""Does no key, whoever made it with which, get more than the one it comes from: not to do, not longer, not faster?"""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decide.met import Met, come
from swell.decide.access import SERVER, Holder, Key, may_manage, standing, unfit
from swell.decide.lineage import LINEAGE_MAX, end_of, ends_at, lineage, may_make
from swell.model.errors import SwellError
from swell.model.key import ApiKey, Scope, allows, scope_of
from swell.model.limits import Limits

SLACK = 1e-6
POWERS = ["call", "deploy", "admin"]
NEEDED = [Scope(p, n, a) for p in POWERS for n in ("n", "m", "*") for a in ("a", "b", "*")]  # type: ignore[arg-type]

scopes = st.lists(
    st.one_of(
        st.sampled_from([scope_of("admin"), scope_of("admin:n/*"), scope_of("admin:n/a")]),
        st.builds(Scope, st.sampled_from(POWERS), st.sampled_from(["n", "m"]), st.sampled_from("ab*")),
    ),
    min_size=1,
    max_size=3,
)
wishes = st.lists(
    st.tuples(
        st.integers(-1, 12),  # which key is used to make it: one of those there are, or the server's own
        scopes,
        st.one_of(st.none(), st.floats(1, 100)),  # how long it is to last
        st.floats(0, 20),  # how much later
        st.integers(-1, 12),  # which one is revoked meanwhile
    ),
    max_size=14,
)


class Ring:
    """Keys as they are made, by the rules alone."""

    def __init__(self) -> None:
        self.keys: dict[str, ApiKey] = {}
        self.now = 0.0

    def stands(self, id: str) -> Holder:
        return standing(self.keys[id], self.keys.get, self.now)

    def make(self, maker: str, wanted: list[Scope], asked_s: float | None, limits: Limits = Limits()) -> str | None:
        holder = self.stands(maker) if maker else SERVER
        line = lineage(self.keys[maker], self.keys.get) if maker else ()
        if holder.key is not Key.OURS or may_manage(holder, wanted) is not None or may_make(line) is not None:
            return None
        try:
            expires_at = end_of(asked_s, line, self.now)
        except SwellError:
            return None
        id = f"k{len(self.keys)}"
        self.keys[id] = ApiKey(id, id, b"", tuple(wanted), self.now, expires_at, limits=limits, made_by=maker)
        return id

    def play(self, wishes: list[tuple[int, list[Scope], float | None, float, int]]) -> None:
        for maker, wanted, asked_s, later_s, revoked in wishes:
            there = [*self.keys]
            self.make(there[maker] if 0 <= maker < len(there) else "", wanted, asked_s)
            self.now += later_s
            if 0 <= revoked < len(there):
                self.keys[there[revoked]] = msgspec.structs.replace(self.keys[there[revoked]], revoked_at=self.now)


@given(wishes, st.floats(0, 200))
def test_a_key_works_only_while_all_do_that_it_comes_from(
    wishes: list[tuple[int, list[Scope], float | None, float, int]], later_s: float
) -> None:
    ring = Ring()
    ring.play(wishes)
    ring.now += later_s
    for id, key in ring.keys.items():
        if not key.made_by:
            continue
        found, maker = ring.stands(id), ring.stands(key.made_by)
        assert found.key is not Key.OURS or maker.key is Key.OURS
        assert (found.key is Key.OURS) == (not found.ended and unfit(found) is None and key.works(ring.now))
        if found.key is not Key.OURS:
            refused = unfit(found)
            assert refused is not None
            assert id in refused.message
            assert found.ended in refused.message


@given(wishes)
def test_a_key_may_do_nothing_that_one_it_comes_from_may_not_and_does_not_outlive_it(
    wishes: list[tuple[int, list[Scope], float | None, float, int]],
) -> None:
    ring = Ring()
    ring.play(wishes)
    for key in ring.keys.values():
        for above in lineage(key, ring.keys.get):
            assert not [needed for needed in NEEDED if allows(key.scopes, needed) > allows(above.scopes, needed)]
            assert above.expires_at is None or (key.expires_at is not None and key.expires_at <= above.expires_at)


limits_of = st.builds(
    lambda rate, burst, at_once: Limits(rate, burst if rate else 0, at_once),
    st.sampled_from([0.0, 0.5, 3.0, 50.0]),
    st.integers(1, 6),
    st.integers(0, 4),
)


@given(
    st.lists(st.tuples(st.integers(-1, 6), limits_of), min_size=1, max_size=7),
    st.lists(st.tuples(st.integers(0, 6), st.floats(0, 2), st.booleans()), max_size=60),
)
def test_all_keys_that_come_from_one_are_together_let_in_no_more_than_that(
    made: list[tuple[int, Limits]], calls: list[tuple[int, float, bool]]
) -> None:
    ring = Ring()
    for maker, limits in made:
        there = [*ring.keys]
        ring.make(there[maker] if 0 <= maker < len(there) else "", [scope_of("admin")], None, limits)
    met = {id: Met(id, key.limits) for id, key in ring.keys.items()}
    let_in: dict[str, list[float]] = {id: [] for id in met}
    under_way = dict.fromkeys(met, 0)
    running: list[list[str]] = []
    now = 0.0
    for which, later_s, ends in calls:
        now += later_s
        if ends and running:
            for id in running.pop(0):
                met[id].in_flight -= 1
                under_way[id] -= 1
        line = [key.id for key in lineage([*ring.keys.values()][which % len(ring.keys)], ring.keys.get)]
        if come([met[id] for id in line], now) is not None:
            continue
        running.append(line)
        for id in line:
            let_in[id].append(now)
            under_way[id] += 1
            assert under_way[id] <= (ring.keys[id].limits.concurrency or len(calls))
    for id, times in let_in.items():
        limits = ring.keys[id].limits
        for first, begun in enumerate(times):
            for last in range(first, len(times)):
                most = limits.burst_max + limits.rate_per_s * (times[last] - begun) + SLACK
                assert not limits.rate_per_s or last - first + 1 <= most


def test_a_key_ends_with_the_one_it_is_made_with_where_it_does_not_say_when() -> None:
    maker = (ApiKey("one", "one", b"", (), 0.0, 100.0), ApiKey("two", "two", b"", (), 0.0, 50.0))
    assert ends_at(maker) == 50.0
    assert end_of(None, maker, 10.0) == 50.0
    assert end_of(40.0, maker, 10.0) == 50.0
    assert end_of(None, (), 10.0) is None
    assert end_of(1e9, (), 10.0) == 1e9 + 10
    with pytest.raises(SwellError, match=r"it would outlive one.* ends in 40 s\. Ask for no more") as raised:
        end_of(40.5, maker, 10.0)
    assert (raised.value.code, raised.value.status) == ("bad_limit", 422)


def test_keys_made_with_keys_come_to_an_end() -> None:
    ring = Ring()
    ids: list[str] = [""]
    while (made := ring.make(ids[-1], [scope_of("admin")], None)) is not None:
        ids.append(made)
    assert len(ids) - 1 == LINEAGE_MAX
    refused = may_make(lineage(ring.keys[ids[-1]], ring.keys.get))
    assert refused is not None
    assert "the server's own" in refused.message
    # What cannot have been made so opens nothing, nor does what comes from a key that is not known, or from itself.
    for id, made_by in (("deep", ids[-1]), ("lost", "nobody"), ("loop", "loop")):
        ring.keys[id] = ApiKey(id, id, b"", (), 0.0, made_by=made_by)
        assert ring.stands(id).key is Key.REVOKED
