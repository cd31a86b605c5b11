"""Is every object of a store brought once, in whatever order it shows up, wherever reading is broken off?"""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from swell.model.objects import SOON_S, Object, Reading, new_since

KEYS = [*"abcdefgh"]
LATE_S = 100
BEGAN = 1_000_000


class Store(RuleBasedStateMachine):
    """Objects that are written at once, or in parts that take a while, by a clock in halves of a second. Who reads them
    takes a few of a listing at a time, and dies: what it had acknowledged was on disk."""

    known_max, told_max = 1000, 1000

    def __init__(self) -> None:
        super().__init__()
        self.now = float(BEGAN)
        self.objects: dict[str, Object] = {}
        self.uploads: list[tuple[str, float]] = []
        """Keys, and when they were begun."""
        self.written = 0
        self.due: dict[str, Object] = {}
        """By id, what is to be brought: it can still be seen, and showed up in time."""
        self.brought: Counter[str] = Counter()
        self.watermark = ""
        self.taken: list[tuple[str, str]] = []
        """Ids and watermarks, not acknowledged."""
        self.reading = Reading(self.watermark, LATE_S, self.known_max, self.told_max)
        self.portion: list[Object] = []
        self.last = False
        self.looks = 0
        """That came to their end."""

    # -- what is written -----------------------------------------------------------------------

    def appears(self, key: str, at: float) -> None:
        self.gone(key)
        self.written += 1
        made = Object(key, f"e{self.written % 3}", self.written % 2, int(at) * 1000)
        self.objects[key] = made
        # Within a second one may be written twice and be the same.
        if not self.brought[made.id] and self.now - int(at) <= LATE_S:
            self.due[made.id] = made

    def gone(self, key: str) -> None:
        before = self.objects.pop(key, None)
        if before is not None:
            self.due.pop(before.id, None)

    @rule(key=st.sampled_from(KEYS), by=st.sampled_from([0, 0.5, 1, 30, 500]), ago=st.integers(0, LATE_S + 50))
    def write(self, key: str, by: float, ago: int) -> None:
        self.now += by
        self.appears(key, self.now - ago)

    @rule(key=st.sampled_from(KEYS))
    def delete(self, key: str) -> None:
        self.gone(key)

    # -- how it is read ------------------------------------------------------------------------

    @rule(listed=st.integers(1, 9), most=st.integers(1, 9), acknowledged=st.integers(0, 9))
    def read(self, listed: int, most: int, acknowledged: int) -> None:
        self.list_portion(listed)
        self.take(most)
        for _, self.watermark in self.taken[:acknowledged]:
            pass
        del self.taken[:acknowledged]

    def list_portion(self, most: int) -> None:
        if self.portion:
            return
        if not self.reading.key:
            self.reading.begins(self.now)
        behind = sorted(key for key in self.objects if key > self.reading.key)
        self.portion, self.last = [self.objects[key] for key in behind[:most]], len(behind) <= most
        self.ends()

    def ends(self) -> None:
        if self.last and not self.portion:
            self.reading.ended()
            self.last = False
            self.looks += 1

    def take(self, most: int) -> None:
        for _ in range(min(most, len(self.portion))):
            each = self.portion.pop(0)
            if self.reading.is_new(each):
                self.taken.append((each.id, self.reading.found(each)))
                self.brought[each.id] += 1
                self.due.pop(each.id, None)
            else:
                self.reading.passed(each)
        self.ends()

    @rule(dies=st.booleans())
    def breaks(self, dies: bool) -> None:
        """The connection: what was listed is lost, and what was handed out is not. Or who reads dies: that is, too."""
        self.portion, self.last = [], False
        if not dies:
            return
        for id, _ in self.taken:
            self.brought[id] -= 1
            # What comes again was acknowledged before, it may be.
            if not self.brought[id]:
                self.due |= {id: each for each in self.objects.values() if each.id == id}
        self.taken = []
        self.reading = Reading(self.watermark, LATE_S, self.known_max, self.told_max)

    # -- how it ends ---------------------------------------------------------------------------

    def teardown(self) -> None:
        """Two looks, the first of which may have begun long ago."""
        enough = self.looks + 2
        while self.looks < enough:
            self.list_portion(4)
            self.take(9)
        self.check()

    def check(self) -> None:
        assert not self.due, "all of it was brought"
        assert {*self.brought.values()} <= {0, 1}, "and once"


class Crowded(Store):
    """Its memory is short: within `SOON_S` nothing is missed all the same."""

    known_max = 2

    def check(self) -> None:
        assert not self.due


class Forgetful(Store):
    """Its watermarks have one object: what it does not know comes again, and nothing is missed."""

    told_max = 1

    def check(self) -> None:
        assert not self.due


bounds = settings(deadline=None, max_examples=80, stateful_step_count=40)
TestStore = Store.TestCase
TestStore.settings = bounds
TestCrowded = Crowded.TestCase
TestCrowded.settings = bounds
TestForgetful = Forgetful.TestCase
TestForgetful.settings = bounds


def look(reading: Reading, objects: list[Object], at: float) -> list[str]:
    """Keys that one brings."""
    reading.begins(at)
    found = []
    for each in objects:
        if reading.is_new(each):
            reading.found(each)
            found.append(each.key)
        else:
            reading.passed(each)
    return found


def at(key: str, second: int) -> Object:
    return Object(key, "e", 1, second * 1000)


def test_memory_is_bounded_and_where_that_is_short_it_says_so() -> None:
    reading = Reading("", 10 * SOON_S, known_max=8, told_max=4)
    many = [at(f"{n:03}", BEGAN + n) for n in range(50)]
    assert len(look(reading, many, BEGAN + 2 * SOON_S)) == 50
    assert reading.ended(), "the oldest were forgotten, though they are not older than late_s"
    assert len(reading._known) <= 10
    late, soon = at("005", BEGAN + 41), at("new", BEGAN + 50)
    assert look(reading, [*many, late, soon], BEGAN + 2 * SOON_S) == ["new"]
    assert not reading.ended(), "nothing more"


def test_a_watermark_is_short() -> None:
    reading = Reading("", LATE_S)
    mark = ""
    for n in range(2000):
        mark = reading.found(at(f"{n:05}", BEGAN + n))
    assert len(mark) < 8200
    again = Reading(mark, LATE_S)
    assert again.key == "01999"
    assert not again.is_new(at("01999", BEGAN + 1999))
    assert not again.is_new(at("01500", BEGAN + 1500))
    assert again.is_new(at("01499", BEGAN + 1499)), "of this it does not know any more"


def test_who_wants_what_is_new_gets_nothing_from_before() -> None:
    reading = Reading(new_since(BEGAN + 0.5), LATE_S)
    assert look(reading, [at("a", BEGAN - 1), at("b", BEGAN), at("c", BEGAN + 9)], BEGAN) == ["b", "c"]


def test_times_that_are_none_can_be_remembered() -> None:
    reading = Reading("", LATE_S)
    odd = [Object("a", "", 0, -5000), Object("b", "", 0, 2**60)]
    assert len(look(reading, odd, BEGAN)) == 2
    reading.ended()
    assert look(reading, odd, BEGAN) == []
