"""Is an answer given only for what is equal, only while it may be, and only as many as there is room for?"""

from __future__ import annotations

import math
from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from swell.decide.cache import OVERHEAD, Kept, Store, Wish, key_of, may_keep, wish_of

NAMES = st.sampled_from([b"a", b"b", b"c", b"d"])
STEPS = st.lists(st.tuples(st.sampled_from(["get", "put"]), NAMES, st.integers(0, 400), st.floats(0, 20)), max_size=60)


def kept(size: int, until: float = math.inf) -> Kept:
    return Kept(b"", b"", b"x" * size, "r", 0.0, until)


@given(steps=STEPS, most=st.integers(0, 4 * OVERHEAD))
def test_it_is_bounded_and_gives_the_newest_that_may_still_be_given(steps: list[tuple], most: int) -> None:
    """Against a model that keeps all, in the order in which they were last asked for."""
    store, model, now = Store(most), OrderedDict[bytes, Kept](), 0.0
    for what, name, size, seconds in steps:
        now += seconds
        if what == "put":
            one = kept(size, now + 10)
            store.put(name, one)
            model.pop(name, None)
            if one.size <= most:
                model[name] = one
            while sum(each.size for each in model.values()) > most:
                model.popitem(last=False)
        else:
            due = model.get(name)
            if due is not None and due.until <= now:
                due = None
                del model[name]
            elif due is not None:
                model.move_to_end(name)
            assert store.get(name, now) is due
        assert store.bytes == sum(each.size for each in model.values()) <= most
        assert len(store) == len(model)


def test_without_room_nothing_is_kept() -> None:
    store = Store(0)
    store.put(b"a", kept(1))
    assert (store.get(b"a", 0.0), store.bytes) == (None, 0)


PARTS = st.lists(st.binary(max_size=3), max_size=4)


@given(one=st.tuples(PARTS, st.lists(st.binary(max_size=4))), other=st.tuples(PARTS, st.lists(st.binary(max_size=4))))
def test_a_key_is_equal_where_all_parts_and_the_whole_body_are(one: tuple, other: tuple) -> None:
    same = one[0] == other[0] and b"".join(one[1]) == b"".join(other[1])
    if len(one[0]) == len(other[0]):  # A method's requests all have as many.
        assert (key_of(*one) == key_of(*other)) is same


def test_what_a_request_wishes_for() -> None:
    assert wish_of("") == wish_of("max-age=soon") == wish_of("only-if-cached") == Wish(math.inf)
    assert wish_of("No-Cache") == Wish(-1.0)
    assert wish_of("max-age=10, no-store") == Wish(-1.0, keep=False)
    assert wish_of("max-age=60, max-age=5") == Wish(5.0)


@given(st.text(max_size=30))
def test_any_header_can_be_read(said: str) -> None:
    assert wish_of(said).keep is ("no-store" not in map(str.strip, said.lower().split(",")))
    assert isinstance(may_keep(said), bool)


def test_an_answer_says_whether_it_may_be_kept() -> None:
    assert may_keep("")
    assert may_keep("max-age=3, public")
    assert not any(map(may_keep, ("private", "No-Store", "public, no-cache")))
