"""What must every store do with dicts and queues? Runs against each adapter of the ports `Kv`, `Dicts` and `Queues`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swell.model.errors import SwellError
from swell.model.kv import ANSWER_KEPT_S, DICT_KEPT_S, DICT_TOUCH_S, PAGE_MAX, Bounds, Collection, Kind
from swell.model.owner import Owner
from swell.model.ports import Store

NOW = 1_000_000_000.0
DAY_S = 86_400.0
BOUNDS = Bounds(
    key_bytes_max=8,
    value_bytes_max=64,
    item_bytes_max=16,
    request_bytes_max=100,
    entries_max=6,
    items_max=5,
    partitions_max=3,
    partition_name_bytes_max=4,
)

Open = Callable[[], Store]


def collection(id: str, kind: Kind = "dict", name: str = "", namespace: str = "default") -> Collection:
    return Collection(kind, namespace, name or id, id, NOW)


def code(act: Callable[[], object]) -> str:
    with pytest.raises(SwellError) as raised:
        act()
    return raised.value.code


class KvSuite:
    """Subclasses give `opener`: each call opens the same state (again), within `BOUNDS`."""

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Open:
        raise NotImplementedError

    @pytest.fixture
    def store(self, opener: Open) -> Iterator[Store]:
        store = opener()
        store.kv.add(collection("d"))
        store.kv.add(collection("q", "queue"))
        yield store
        store.close()

    # -- by name -----------------------------------------------------------------------------------

    def test_collections_are_kept_in_order_until_they_are_removed(self, store: Store) -> None:
        owned = Collection("dict", "a", "z", "di-2", NOW, Owner(1, 2, "m"))
        store.kv.add(owned)
        store.kv.add(collection("di-3", name="a"))
        assert [each.id for each in store.kv.all()] == ["di-2", "di-3", "d", "q"]
        assert store.kv.all()[0] == owned
        store.kv.remove("di-3")
        store.kv.remove("nobody")
        assert [each.id for each in store.kv.all()] == ["di-2", "d", "q"]

    def test_what_is_removed_takes_all_that_was_in_it_along(self, store: Store) -> None:
        store.dicts.put("d", [(b"k", b"v")], NOW, request="r")
        store.queues.put("q", "", [b"x"], DAY_S, NOW, request="r")
        assert store.kv.sizes() == {"d": 1, "q": 1}
        for id, kind in (("d", "dict"), ("q", "queue")):
            store.kv.remove(id)
            store.kv.add(collection(id, kind))
        assert store.kv.sizes() == {"d": 0, "q": 0}
        assert store.dicts.get("d", b"k", NOW) is None
        assert store.queues.take("q", "", 9, NOW) == []
        assert store.dicts.put("d", [(b"k", b"v")], NOW, request="r") == 1
        assert store.dicts.get("d", b"k", NOW) == b"v", "it is not told what was answered of another"

    def test_of_what_is_not_there_it_is_said(self, store: Store) -> None:
        dicts, queues = store.dicts, store.queues
        for act in (
            lambda: dicts.get("x", b"k", NOW),
            lambda: dicts.contains("x", b"k", NOW),
            lambda: dicts.put("x", [(b"k", b"v")], NOW),
            lambda: dicts.pop("x", b"k", NOW),
            lambda: dicts.page("x", 0, NOW),
            lambda: dicts.count("x", NOW),
            lambda: dicts.clear("x"),
        ):
            assert code(act) == "unknown_dict"
        for act in (
            lambda: queues.put("x", "", [b"v"], DAY_S, NOW),
            lambda: queues.take("x", "", 1, NOW),
            lambda: queues.page("x", "", 0, NOW),
            lambda: queues.partitions("x", NOW),
            lambda: queues.clear("x", None),
        ):
            assert code(act) == "unknown_queue"

    # -- dicts -------------------------------------------------------------------------------------

    def test_an_entry_is_put_got_replaced_and_popped(self, store: Store) -> None:
        dicts = store.dicts
        assert dicts.get("d", b"k", NOW) is None
        assert dicts.put("d", [(b"k", b"1"), (b"j", b"")], NOW) == 2
        assert (dicts.get("d", b"k", NOW), dicts.get("d", b"j", NOW)) == (b"1", b"")
        assert dicts.put("d", [(b"k", b"2")], NOW) == 1
        assert dicts.contains("d", b"k", NOW)
        assert dicts.count("d", NOW) == 2
        assert dicts.pop("d", b"k", NOW) == b"2"
        assert dicts.pop("d", b"k", NOW) is None
        assert not dicts.contains("d", b"k", NOW)
        dicts.clear("d")
        assert dicts.count("d", NOW) == 0

    def test_what_is_there_may_stay_as_it_is(self, store: Store) -> None:
        assert store.dicts.put("d", [(b"k", b"1")], NOW, missing=True) == 1
        assert store.dicts.put("d", [(b"k", b"2"), (b"j", b"3")], NOW, missing=True) == 1
        assert store.dicts.get("d", b"k", NOW) == b"1"
        assert store.dicts.get("d", b"j", NOW) == b"3"

    def test_entries_are_read_page_by_page_in_the_order_they_came(self, store: Store) -> None:
        for key in (b"c", b"a", b"b"):
            store.dicts.put("d", [(key, key * 60)], NOW)
        store.dicts.put("d", [(b"c", b"again" * 10)], NOW)
        first = store.dicts.page("d", 0, NOW)
        assert [(row.key, row.value) for row in first.rows] == [(b"c", b"again" * 10)], "two are more than one answer"
        second = store.dicts.page("d", first.after, NOW)
        assert [row.key for row in second.rows] == [b"a"]
        store.dicts.pop("d", b"a", NOW)
        last = store.dicts.page("d", second.after, NOW)
        assert [row.key for row in last.rows] == [b"b"]
        assert store.dicts.page("d", last.after, NOW) == ((), 0)
        keys = store.dicts.page("d", 0, NOW, values=False)
        assert [(row.key, row.value) for row in keys.rows] == [(b"c", b""), (b"b", b"")]

    def test_an_entry_expires_when_it_was_not_used_for_long(self, store: Store) -> None:
        store.dicts.put("d", [(b"k", b"v"), (b"j", b"v")], NOW)
        assert store.dicts.get("d", b"k", NOW + 5 * DAY_S) == b"v"
        store.dicts.contains("d", b"j", NOW + 5 * DAY_S)
        later = NOW + DICT_KEPT_S + DICT_TOUCH_S
        assert store.dicts.count("d", later - 1) == 2
        # To look whether it is there is no use of it.
        assert not store.dicts.contains("d", b"j", later)
        assert store.dicts.get("d", b"j", later) is None
        assert store.dicts.pop("d", b"j", later) is None
        assert [row.key for row in store.dicts.page("d", 0, later).rows] == [b"k"]
        assert store.dicts.count("d", later) == 1
        assert store.dicts.get("d", b"k", NOW + 5 * DAY_S + DICT_KEPT_S) == b"v", "it was read within that time"
        assert store.dicts.put("d", [(b"j", b"new")], later, missing=True) == 1

    def test_what_has_expired_is_forgotten(self, store: Store) -> None:
        store.dicts.put("d", [(b"k", b"v")], NOW)
        store.dicts.put("d", [(b"j", b"v")], NOW + DAY_S)
        store.queues.put("q", "", [b"x"], 60.0, NOW)
        store.kv.trim(NOW + DICT_KEPT_S + DICT_TOUCH_S)
        assert store.kv.sizes() == {"d": 1, "q": 0}

    def test_a_full_dict_takes_no_more_until_something_goes(self, store: Store) -> None:
        dicts = store.dicts
        dicts.put("d", [(bytes([n]), b"v") for n in range(5)], NOW)
        assert code(lambda: dicts.put("d", [(b"a", b""), (b"b", b"")], NOW)) == "dict_full"
        assert dicts.count("d", NOW) == 5, "all of them or none"
        dicts.put("d", [(b"a", b"")], NOW)
        dicts.put("d", [(b"a", b"again")], NOW)
        assert code(lambda: dicts.put("d", [(b"b", b"")], NOW)) == "dict_full"
        later = NOW + DICT_KEPT_S + DICT_TOUCH_S
        assert dicts.put("d", [(b"b", b"")], later) == 1, "what has expired takes no room"
        assert dicts.count("d", later) == 1

    def test_what_is_too_large_is_refused(self, store: Store) -> None:
        for entries in ([(b"k" * 9, b"")], [(b"k", b"v" * 65)], [(b"k", b"v" * 60), (b"j", b"v" * 60)]):
            assert code(lambda entries=entries: store.dicts.put("d", entries, NOW)) == "value_too_large"
        for values in ([b"x" * 17], [b"x"] * 6):
            assert code(lambda values=values: store.queues.put("q", "", values, 1.0, NOW)) == "value_too_large"
        for partition in ("fünf!", "a\0"):
            assert code(lambda name=partition: store.queues.put("q", name, [b"x"], 1.0, NOW)) == "bad_name"
        assert store.kv.sizes() == {"d": 0, "q": 0}

    def test_a_change_that_is_asked_for_again_is_made_once(self, store: Store) -> None:
        dicts = store.dicts
        assert dicts.put("d", [(b"k", b"1")], NOW, missing=True, request="a") == 1
        assert dicts.put("d", [(b"k", b"1")], NOW + 1, missing=True, request="a") == 1
        assert dicts.pop("d", b"k", NOW, request="b") == b"1"
        assert dicts.put("d", [(b"k", b"2")], NOW) == 1
        assert dicts.pop("d", b"k", NOW + 1, request="b") == b"1", "the answer is the first one's"
        assert dicts.get("d", b"k", NOW) == b"2", "and what came between stays"
        assert dicts.pop("d", b"k", NOW + ANSWER_KEPT_S, request="b") == b"2", "after its time it is another request"

    # -- queues ------------------------------------------------------------------------------------

    def test_items_come_out_in_the_order_they_were_put_once_each(self, store: Store) -> None:
        queues = store.queues
        queues.put("q", "", [b"1", b"2"], DAY_S, NOW)
        queues.put("q", "", [b"3", b""], DAY_S, NOW)
        queues.put("q", "p", [b"other"], DAY_S, NOW)
        assert queues.partitions("q", NOW) == {"": 4, "p": 1}
        assert queues.take("q", "", 0, NOW) == []
        assert queues.take("q", "", 3, NOW) == [b"1", b"2", b"3"]
        assert queues.take("q", "", 3, NOW) == [b""]
        assert queues.take("q", "", 3, NOW) == []
        assert queues.partitions("q", NOW) == {"p": 1}

    def test_items_are_looked_at_and_stay(self, store: Store) -> None:
        store.queues.put("q", "", [b"1", b"2"], DAY_S, NOW)
        page = store.queues.page("q", "", 0, NOW)
        assert [row.value for row in page.rows] == [b"1", b"2"]
        assert store.queues.page("q", "", page.after, NOW) == ((), 0)
        store.queues.put("q", "", [b"3"], DAY_S, NOW)
        assert [row.value for row in store.queues.page("q", "", page.after, NOW).rows] == [b"3"]
        assert store.queues.page("q", "nobody", 0, NOW) == ((), 0)
        assert store.queues.partitions("q", NOW) == {"": 3}

    def test_a_partition_expires_some_time_after_its_last_put(self, store: Store) -> None:
        queues = store.queues
        queues.put("q", "", [b"1"], 60.0, NOW)
        queues.put("q", "", [b"2"], 60.0, NOW + 30)
        queues.put("q", "p", [b"3"], 60.0, NOW)
        assert queues.partitions("q", NOW + 60) == {"": 2}
        assert queues.page("q", "", 0, NOW + 90) == ((), 0)
        assert queues.take("q", "", 9, NOW + 90) == []
        queues.put("q", "", [b"4"], 60.0, NOW + 90)
        assert queues.take("q", "", 9, NOW + 90) == [b"4"], "it begins anew, without what was in it"

    def test_a_full_partition_takes_no_more_until_something_goes(self, store: Store) -> None:
        queues = store.queues
        queues.put("q", "", [b"x"] * 4, DAY_S, NOW)
        assert code(lambda: queues.put("q", "", [b"y", b"y"], DAY_S, NOW)) == "queue_full"
        assert queues.partitions("q", NOW) == {"": 4}
        queues.put("q", "p", [b"y", b"y"], DAY_S, NOW)
        queues.take("q", "", 1, NOW)
        queues.put("q", "", [b"y", b"y"], DAY_S, NOW)
        assert queues.take("q", "", 9, NOW) == [b"x"] * 3 + [b"y"] * 2

    def test_a_queue_has_so_many_partitions_at_most(self, store: Store) -> None:
        queues = store.queues
        for name in ("", "a", "b"):
            queues.put("q", name, [b"x"], 60.0, NOW)
        assert code(lambda: queues.put("q", "c", [b"x"], 60.0, NOW)) == "too_many_partitions"
        queues.put("q", "a", [b"x"], 90.0, NOW)
        queues.take("q", "b", 1, NOW)
        queues.put("q", "c", [b"x"], 60.0, NOW)
        assert code(lambda: queues.put("q", "b", [b"x"], 60.0, NOW)) == "too_many_partitions"
        queues.put("q", "b", [b"x"], 60.0, NOW + 60)
        assert queues.partitions("q", NOW + 60) == {"a": 2, "b": 1}

    def test_a_partition_is_cleared_or_all_of_them(self, store: Store) -> None:
        for name in ("", "a", "b"):
            store.queues.put("q", name, [b"x"], DAY_S, NOW)
        store.queues.clear("q", "")
        store.queues.clear("q", "nobody")
        assert store.queues.partitions("q", NOW) == {"a": 1, "b": 1}
        store.queues.clear("q", None)
        assert store.queues.partitions("q", NOW) == {}
        assert store.kv.sizes()["q"] == 0

    def test_whoever_lost_the_answer_gets_the_same_items_again(self, store: Store) -> None:
        queues = store.queues
        for _ in range(2):
            queues.put("q", "", [b"1", b"2", b"3"], DAY_S, NOW, request="put")
        assert queues.partitions("q", NOW) == {"": 3}
        assert queues.take("q", "", 2, NOW, request="take") == [b"1", b"2"]
        assert queues.take("q", "", 2, NOW + 1, request="take") == [b"1", b"2"]
        assert queues.take("q", "", 2, NOW, request="other") == [b"3"]
        # An empty answer tells nothing that could be lost.
        assert queues.take("q", "", 2, NOW, request="again") == []
        queues.put("q", "", [b"4"], DAY_S, NOW)
        assert queues.take("q", "", 2, NOW, request="again") == [b"4"]

    def test_a_large_answer_ends_early(self, store: Store) -> None:
        for n in range(4):
            store.dicts.put("d", [(bytes([n]), b"v" * 40)], NOW)
        assert len(store.dicts.page("d", 0, NOW).rows) == 2
        assert PAGE_MAX >= len(store.dicts.page("d", 0, NOW, values=False).rows) == 4
