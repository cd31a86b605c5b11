"""What must every durable queue tell of its calls, and forget? Runs against each adapter of the port `CallRecords`."""

from __future__ import annotations

from typing import Any

from calls_suite import BOOM, NOW, OUT, POOL, STOPPED, CallsCase, F, call, counts, digest, leased, order, work
from msgspec.structs import replace

from swell.model.call import (
    PAGE_BYTES,
    Again,
    Body,
    Cancel,
    Depth,
    Done,
    Failed,
    Forget,
    GroupEnd,
    Head,
    Keeping,
    Members,
    Queued,
    Remove,
    Retry,
    Work,
)
from swell.model.ports import Store
from swell.model.variant import Value
from swell.model.workload import Options, Variant


def variant(name: str) -> Variant:
    return Variant((Value("name", "str", name),), Options(memory_mib=512, variables=(("A", "B"),)))


class CallRecordsSuite(CallsCase):
    """What is known of calls."""

    # -- looking -------------------------------------------------------------------------------------

    def test_depth_counts_what_is_due_up_to_what_was_asked_for(self, store: Store) -> None:
        assert store.calls.depth(F, NOW, 9) == Depth(0, None)
        store.calls.add([work(f"fc-{n}", priority=n % 3) for n in range(6)])
        store.calls.add([work("fc-8", due_at=NOW + 5), work("fc-9", due_at=NOW + 3, priority=-1)])
        assert store.calls.depth(F, NOW, 99) == Depth(6, NOW + 3, ((2, 2), (1, 2), (0, 2)))
        assert store.calls.depth(F, NOW, 5) == Depth(5, NOW + 3, ((2, 2), (1, 2), (0, 1)))
        assert store.calls.depth(F, NOW, 0) == Depth(0, NOW + 3)
        assert store.calls.depth(F, NOW + 5, 99) == Depth(8, None, ((2, 2), (1, 2), (0, 3), (-1, 1)))
        order(store)
        assert store.calls.depth(F, NOW, 99) == Depth(0, NOW + 3)

    def test_what_stands_at_a_start_is_told(self, store: Store) -> None:
        last, first = leased(store, "fc-9", token=4), leased(store, "fc-1", token=5)
        store.calls.add([work("fc-2", due_at=NOW + 7), work("fc-3", due_at=NOW + 5, priority=-1)])
        store.calls.add([work("fc-0", "default/b/g", due_at=NOW - 1), work("fc-4", "default/b/h")])
        store.calls.change([Cancel("fc-4", NOW, STOPPED)])
        standing = store.calls.standing()
        assert standing.queued == {F: Queued(2, NOW + 5), "default/b/g": Queued(1, NOW - 1)}
        assert standing.leased == (first.call, last.call)

    def test_the_newest_come_first_in_pages_by_workload_and_state(self, store: Store) -> None:
        store.calls.add([work(f"fc-{n}", f"default/a/{'fg'[n % 2]}") for n in range(6)])
        store.calls.add([work("fc-7", "other/a/f"), work("fc-6", "default/aa/f")])
        order(store)

        def newest(prefix: str, *more: Any) -> str:
            return "".join(each.id.removeprefix("fc-") for each in store.call_records.newest(prefix, *more))

        assert newest("", None, 99) == "76543210"
        assert newest("default/a/", None, 4) == "5432"
        assert newest("default/a/", None, 4, "fc-2") == "10"
        assert newest(F, "leased", 99) == "420"
        assert newest("default/", "queued", 2) == "65"
        assert newest("default/", "queued", 2, "fc-5") == "31"
        assert newest("", "done", 9) == newest("nobody", None, 9) == newest("%", None, 9) == newest("", None, 0) == ""
        assert store.call_records.newest("", "leased", 1) == [store.call_records.get("fc-4")]

    def test_those_of_one_workload_are_told_without_those_whose_names_begin_so(self, store: Store) -> None:
        for n, workload in enumerate(("default/a/f", "default/a/f2", "default/a/f", "default/a/f~x", "other/a/f")):
            store.calls.add([work(f"fc-{n}", workload)])

        def of(workload: str, **which: Any) -> str:
            found = store.call_records.newest(workload, None, which.pop("most", 9), exact=True, **which)
            return "".join(each.id.removeprefix("fc-") for each in found)

        assert [of(name) for name in (F, "default/a/f2", "default/a/", "")] == ["20", "1", "", ""]
        assert [of(F, before="fc-2"), of(F, most=1), of(F, jobs=True)] == ["0", "2", ""]

    def test_jobs_are_told_without_other_calls(self, store: Store) -> None:
        for n in range(8):
            workload = ["default/a/f", "default/b/f"][n % 2]
            store.calls.add([work(f"fc-{n}", workload, members=n % 4, key=["", "k1"][n // 4])])
        order(store, most=1)
        assert {store.call_records.get(f"fc-{n}").members for n in range(8)} == set(range(4))  # type: ignore[union-attr]

        def of(prefix: str, *more: Any, **which: Any) -> str:
            found = store.call_records.newest(prefix, *more, jobs=True, **which)
            return "".join(each.id.removeprefix("fc-") for each in found)

        assert [of(prefix, None, 9) for prefix in ("", "default/a/", "default/b/", "x")] == ["765321", "62", "7531", ""]
        assert [of("", None, 2), of("", None, 2, "fc-5")] == ["76", "32"]
        assert [of("", None, 9, key=key) for key in ("", "k1", "k2")] == ["321", "765", ""]
        assert [of("", state, 9) for state in ("queued", "leased", "done")] == ["765321", "", ""]
        assert of(F, "queued", 9, exact=True) == "62"

    def test_those_of_one_api_key_are_told_alone(self, store: Store) -> None:
        store.calls.add([work(f"fc-{n}", key=["", "k1", "k2"][n % 3]) for n in range(7)])

        def of(key: str | None, *more: Any) -> str:
            found = store.call_records.newest("default/", *more, key=key)
            return "".join(each.id.removeprefix("fc-") for each in found)

        assert of(None, None, 9) == "6543210"
        assert [of(key, None, 9) for key in ("", "k1", "k2", "k3")] == ["630", "41", "52", ""]
        assert of("k1", "queued", 1) == "4"
        assert of("k1", None, 1, "fc-4") == "1"

    def test_many_are_told_at_once_by_their_ids(self, store: Store) -> None:
        store.calls.add([work(f"fc-{n}") for n in range(3)])
        found = store.call_records.get_many(["fc-2", "nobody", "fc-0", "fc-2"])
        assert found == {id: store.call_records.get(id) for id in ("fc-0", "fc-2")}
        assert store.call_records.get_many([]) == store.call_records.get_many(["fc-", "%", '"', ""]) == {}

    def test_whose_calls_these_are_is_told_of_those_that_are_kept(self, store: Store) -> None:
        store.calls.add([work("fc-0"), work("fc-1", key="k"), work("fc-2", "default/a/g"), work("fc-3")])
        found = store.call_records.whose(["fc-2", "nobody", "fc-0", "fc-1", "fc-2"])
        assert found == {"fc-0": (F, ""), "fc-1": (F, "k"), "fc-2": ("default/a/g", "")}
        assert store.call_records.whose([]) == store.call_records.whose(["fc-", "%", '"', ""]) == {}

    def test_of_these_calls_the_ends_are_told_with_what_came_of_them(self, store: Store) -> None:
        store.calls.add([work(f"fc-{n}", group="g" if n == 2 else "") for n in range(8)])
        ids = [f"fc-{n}" for n in range(7)]
        store.calls.lease(F, 5, NOW, 5, "r1-1", POOL)
        assert store.call_records.ends(ids) == []
        store.calls.finish([Done("fc-2", 5, NOW, OUT), Failed("fc-0", 5, NOW, BOOM, b"{}"), Again("fc-1", 5, NOW)])
        store.calls.change([Cancel("fc-6", NOW, STOPPED), Cancel("fc-7", NOW, STOPPED)])
        found = store.call_records.ends([*ids[::-1], "nobody", "fc-2"])
        assert [call.id for call, _ in found] == ["fc-0", "fc-2", "fc-6"]
        assert found == [(store.call_records.get(call.id), store.call_records.result(call.id)) for call, _ in found]
        store.calls.change([Retry("fc-0", NOW)])
        assert [call.id for call, _ in store.call_records.ends(ids)] == ["fc-2", "fc-6"]
        assert store.call_records.ends([]) == store.call_records.ends(["fc-", "%", '"', ""]) == []

    def test_ends_with_large_results_come_a_few_at_a_time_and_one_at_least(self, store: Store) -> None:
        large = Body("x", bytes(PAGE_BYTES // 2))
        ids = [f"fc-{n}" for n in range(6)]
        store.calls.add([work(id) for id in ids])
        store.calls.lease(F, 9, NOW, 5, "r1-1", POOL)
        store.calls.finish([Done(id, 5, NOW, OUT if id == "fc-3" else large) for id in ids])
        pages = []
        while page := store.call_records.ends(ids):
            pages.append([call.id for call, _ in page])
            ids = [id for id in ids if id not in pages[-1]]
        assert [len(page) for page in pages] == [2, 3, 1]
        assert [id for page in pages for id in page] == [f"fc-{n}" for n in range(6)]

    def test_a_group_tells_each_of_its_ends_once_in_their_order(self, store: Store) -> None:
        store.calls.add([work(f"fc-{n}", group="g") for n in range(5)])
        store.calls.add([work("fc-5", group="h"), work("fc-6"), work("fc-7", "default/a/g", group="g")])
        store.calls.lease(F, 4, NOW, 5, "r1-1", POOL)
        assert store.call_records.ended("g", 0, 9) == []
        # In the same moment, and one whose time is before that of another which was recorded sooner.
        store.calls.finish([Done("fc-3", 5, NOW + 1, OUT), Again("fc-2", 5, NOW), Done("fc-1", 5, NOW + 1, OUT)])
        store.calls.change([Cancel(f"fc-{n}", NOW, STOPPED) for n in (5, 6, 7)])
        first, *more = store.call_records.ended("g", 0, 2)
        assert [each.call.id for each in (first, *more)] == ["fc-3", "fc-1"]
        assert first.call == store.call_records.get("fc-3")
        assert first.result == OUT
        (third,) = store.call_records.ended("g", more[-1].number, 9)
        assert (third.call, third.result) == (store.call_records.get("fc-7"), None)
        store.calls.finish([Failed("fc-0", 5, NOW - 5, BOOM, b"{}")])
        (last,) = store.call_records.ended("g", third.number, 9)
        assert (last.call, last.result) == (store.call_records.get("fc-0"), Body("application/json", b"{}"))
        numbers = [each.number for each in store.call_records.ended("g", 0, 9)]
        assert numbers == sorted({first.number, more[0].number, third.number, last.number})
        assert [each.call.id for each in store.call_records.ended("h", 0, 9)] == ["fc-5"]
        assert store.call_records.ended("", 0, 9) == store.call_records.ended("g", 0, 0) == []

    def test_what_is_still_to_be_done_of_a_group_is_told_and_all_of_it_in_numbers(self, store: Store) -> None:
        store.calls.add([work(f"fc-{n}", group="g", key="k" if n == 4 else "") for n in range(5)])
        store.calls.add([work("fc-5", group="h"), work("fc-6"), work("fc-7", "default/a/g", group="g")])

        def open(group: str, after: str, most: int) -> str:
            found = store.call_records.open(group, after, most)
            assert found == [store.call_records.get(each.id) for each in found]
            return "".join(each.id.removeprefix("fc-") for each in found)

        store.calls.lease(F, 3, NOW, 5, "r1-1", POOL)
        assert open("g", "", 99) == "012347"
        store.calls.finish([Done("fc-0", 5, NOW, OUT), Failed("fc-1", 5, NOW, BOOM), Again("fc-2", 5, NOW)])
        store.calls.change([Cancel("fc-7", NOW, STOPPED)])
        assert (open("g", "", 99), open("g", "", 2), open("g", "fc-3", 9)) == ("234", "23", "4")
        assert open("", "", 9) == open("g", "", 0) == open("i", "", 9) == ""
        expected = [Members(F, "", 2, 2), Members(F, "k", 1, 0), Members("default/a/g", "", 0, 1)]
        assert store.call_records.members("g") == expected
        assert store.call_records.members("g", False) == [Members(F, "", 2, 0), Members(F, "k", 1, 0)]
        store.calls.change([Retry("fc-1", NOW)])
        assert open("g", "", 99) == "1234"
        assert store.call_records.members("g")[0] == Members(F, "", 3, 1)
        assert store.call_records.members("") == store.call_records.members("i") == []

    def test_what_was_had_of_a_group_is_forgotten_of_one_sender_up_to_a_number(self, store: Store) -> None:
        keeping = Keeping(60, 60)
        store.calls.add([work(f"fc-{n}", group="g", idempotency_key=f"g {n}", keeping=keeping) for n in range(5)])
        store.calls.add([work("fc-5", group="g", key="k"), work("fc-6", group="h"), work("fc-7")])
        store.calls.lease(F, 3, NOW, 5, "r1-1", POOL)
        store.calls.finish([Done("fc-0", 5, NOW, Body("x", digest=digest("a"))), Failed("fc-1", 5, NOW, BOOM, b"{}")])
        store.calls.change([Cancel(f"fc-{n}", NOW, STOPPED) for n in (5, 6, 7, 3)])
        numbers = {each.call.id: each.number for each in store.call_records.ended("g", 0, 9)}
        assert list(numbers) == ["fc-0", "fc-1", "fc-5", "fc-3"]
        assert store.calls.change([Forget("g", "", numbers["fc-5"])]) == [None]
        assert [each.call.id for each in store.call_records.ended("g", 0, 9)] == ["fc-5", "fc-3"]
        gone = ("fc-0", "fc-1")
        assert [store.call_records.get(id) for id in gone] == [store.call_records.result(id) for id in gone]
        assert [store.call_records.input(id) for id in gone] == [None, None]
        assert list(store.call_records.digests()) == []
        assert counts(store) == {(F, "cancelled"): 4, (F, "leased"): 1, (F, "queued"): 1}
        store.calls.change([Forget("g", "", 10**9), Forget("", "", 10**9)])
        left = sorted(each.id for each in store.call_records.newest("", None, 9))
        assert left == ["fc-2", "fc-4", "fc-5", "fc-6", "fc-7"]
        assert store.calls.add([work("fc-9", group="g", idempotency_key="g 0")]) == ["fc-9"], "it is a new one"

    def test_what_has_ended_is_forgotten_when_that_is_asked_for_and_nothing_else_is(self, store: Store) -> None:
        store.calls.add([work(f"fc-{n}", idempotency_key=f"k{n}") for n in range(5)])
        store.calls.lease(F, 3, NOW, 5, "r1-1", POOL)
        store.calls.finish([Done("fc-0", 5, NOW, Body("x", digest=digest("a"))), Failed("fc-1", 5, NOW, BOOM, b"{}")])
        store.calls.change([Cancel("fc-3", NOW, STOPPED)])
        changes = [*(Remove(f"fc-{n}") for n in range(5)), Remove("fc-0"), Remove("fc-9")]
        assert store.calls.change(changes) == [None] * len(changes)
        assert sorted(each.id for each in store.call_records.newest("", None, 9)) == ["fc-2", "fc-4"]
        gone = ("fc-0", "fc-1", "fc-3")
        assert [store.call_records.result(id) for id in gone] == [None] * 3
        assert [store.call_records.input(id) for id in gone] == [None] * 3
        assert list(store.call_records.digests()) == []
        assert counts(store) == {(F, "leased"): 1, (F, "queued"): 1}
        assert store.calls.finish([Done("fc-2", 5, NOW, Body("x"))]) == [True]
        assert store.calls.add([work("fc-8", idempotency_key="k0")]) == ["fc-8"], "it is a new one"

    def test_one_is_found_by_its_idempotency_key(self, store: Store) -> None:
        store.calls.add([work("fc-1", key="k", idempotency_key="g 1"), work("fc-2", method="m"), work("fc-3")])
        assert store.call_records.once(F, "f", "k", "g 1") == store.call_records.get("fc-1")
        others = (F, "f", "", "g 1"), (F, "m", "k", "g 1"), (F, "f", "k", "g 2"), ("default/a/g", "f", "k", "g 1")
        for other in (*others, (F, "f", "", "")):
            assert store.call_records.once(*other) is None

    def test_the_kinds_of_calls_in_a_group_are_told_each_once(self, store: Store) -> None:
        store.calls.add([work(f"fc-{n}", group="g", key="k" if n == 4 else "") for n in range(5)])
        store.calls.add([work("fc-5", group="h"), work("fc-6"), work("fc-7", "default/a/g", group="g")])
        store.calls.change([Cancel(f"fc-{n}", NOW, STOPPED) for n in (0, 4, 6)])
        assert sorted(store.call_records.kinds("g")) == [(F, "f", ""), (F, "f", "k"), ("default/a/g", "f", "")]
        assert list(store.call_records.kinds("h")) == [(F, "f", "")]
        assert list(store.call_records.kinds("")) == list(store.call_records.kinds("i")) == []

    def test_a_dead_letter_that_ends_once_more_is_told_once_more(self, store: Store) -> None:
        store.calls.add([work("fc-1", group="g"), work("fc-2", group="g", keeping=Keeping(result_s=1))])
        store.calls.lease(F, 2, NOW, 5, "r1-1", POOL)
        store.calls.finish([Failed("fc-1", 5, NOW, BOOM), Done("fc-2", 5, NOW, OUT)])
        before = store.call_records.ended("g", 0, 9)
        store.calls.change([Retry("fc-1", NOW)])
        assert store.call_records.ended("g", 0, 9) == before[1:]
        assert store.calls.sweep(NOW + 2, 9) != []
        assert store.call_records.ended("g", 0, 9) == []
        store.calls.lease(F, 1, NOW, 6, "r1-1", POOL)
        store.calls.finish([Done("fc-1", 6, NOW, OUT)])
        again = store.call_records.ended("g", before[-1].number, 9)
        assert [each.call.id for each in again] == ["fc-1"], "with a higher number, though those before are gone"

    def test_large_results_come_a_few_at_a_time(self, store: Store) -> None:
        large = Body("x", bytes(PAGE_BYTES // 2))
        store.calls.add([work(f"fc-{n}", group="g") for n in range(6)])
        store.calls.lease(F, 9, NOW, 5, "r1-1", POOL)
        store.calls.finish([Done(f"fc-{n}", 5, NOW, OUT if n == 3 else large) for n in range(6)])
        told: list[GroupEnd] = []
        pages = []
        while page := store.call_records.ended("g", told[-1].number if told else 0, 99):
            pages.append(len(page))
            told += page
        assert [each.call.id for each in told] == [f"fc-{n}" for n in range(6)]
        assert pages == [2, 3, 1]

    # -- forgetting ----------------------------------------------------------------------------------

    def test_what_has_ended_is_forgotten_in_its_time_and_nothing_else(self, store: Store) -> None:
        keeping = Keeping(result_s=10, dead_letter_s=20)
        store.calls.add([work(f"fc-{n}", keeping=keeping) for n in range(5)])
        store.calls.lease(F, 3, NOW, 5, "r1-1", POOL)
        store.calls.finish([Done("fc-0", 5, NOW + 2, OUT), Failed("fc-1", 5, NOW, BOOM)])
        store.calls.change([Cancel("fc-3", NOW + 1, STOPPED)])
        assert store.calls.sweep(NOW + 10.9, 9) == []
        assert store.calls.sweep(NOW + 15, 1) == ["fc-3"]
        assert store.calls.sweep(NOW + 15, 9) == ["fc-0"]
        assert [store.call_records.get("fc-0"), store.call_records.input("fc-0")] == [None] * 2
        assert store.call_records.result("fc-0") is None
        assert counts(store) == {(F, "failed"): 1, (F, "leased"): 1, (F, "queued"): 1}
        assert store.calls.change([Retry("fc-1", NOW + 16)]) != [None]
        assert store.calls.sweep(NOW + 1e9, 9) == [], "one that is tried again, one that is leased, one that waits"
        assert sorted(each.id for each in store.call_records.newest("", None, 9)) == ["fc-1", "fc-2", "fc-4"]

    def test_what_variants_are_is_known_as_long_as_calls_of_them_are_kept(self, store: Store) -> None:
        first, second = f"{F}~1", f"{F}~2"
        variants = {first: variant("a"), second: variant("b")}
        store.calls.add(
            [work("fc-1", first, keeping=Keeping(1.0, 100.0)), work("fc-2", second), work("fc-3")], variants
        )
        store.calls.add([work("fc-4", first, keeping=Keeping(5.0, 5.0))], {first: variant("a")})
        assert store.call_records.variants([first, second, F, "default/a/none"]) == variants
        assert store.call_records.variants([second]) == {second: variant("b")}
        assert store.call_records.variants([]) == {}
        store.calls.change([Cancel("fc-1", NOW, STOPPED), Cancel("fc-4", NOW, STOPPED)])
        store.calls.sweep(NOW + 2.0, 9)
        assert store.call_records.variants([first, second]) == variants, "one of each is kept"
        store.calls.sweep(NOW + 6.0, 9)
        assert store.call_records.variants([first, second]) == {second: variant("b")}
        # It may have been forgotten with no call of it: who comes again says it again.
        store.calls.add([work("fc-5", first)], {first: variant("a")})
        assert store.call_records.variants([first, second]) == variants

    def test_what_waits_for_apps_of_programs_is_told_by_workload(self, store: Store) -> None:
        assert store.call_records.owned() == []
        run = ("default/run--1/f", "default/run--1/g", "default/run--2/f", "default/run--3/f")
        store.calls.add([work(f"fc-{n}{at}", key, owned=True) for n, key in enumerate(run) for at in range(3)])
        store.calls.add([work("fc-a"), work("fc-b", run[0], owned=False)])
        store.calls.change([Cancel(f"fc-2{at}", NOW, STOPPED) for at in range(3)])
        store.calls.lease(run[3], 9, NOW, 1, "r1-1", POOL)
        assert store.call_records.owned() == [run[0], run[1]]
        store.calls.finish([Again("fc-30", 1, NOW)])
        assert store.call_records.owned() == [run[0], run[1], run[3]]
        again = store.call_records.get("fc-30")
        assert again is not None
        assert again.owned
        assert [call.owned for call in store.call_records.get_many(["fc-a", "fc-b"]).values()] == [False, False]

    def test_what_code_said_beside_its_result_is_kept_and_forgotten_with_it(self, store: Store) -> None:
        leased(store, "fc-1", group="g1")
        said = replace(OUT, head=Head(404, (("x-mine", "yes"), ("x-other", "\xe9"))))
        store.calls.finish([Done("fc-1", 1, NOW, said)])
        assert store.call_records.result("fc-1") == said
        assert [end.result for end in store.call_records.ended("g1", 0, 9)] == [OUT]
        assert [result for _, result in store.call_records.ends(["fc-1"])] == [OUT]
        store.calls.sweep(NOW + 1e8, 9)
        assert store.call_records.result("fc-1") is None
        leased(store, "fc-2")
        store.calls.finish([Done("fc-2", 1, NOW, OUT)])
        assert store.call_records.result("fc-2") == OUT, "nothing of one that had its place before"

    def test_blobs_are_named_as_long_as_a_call_that_names_them_is_kept(self, store: Store) -> None:
        told, kept, mine, both = (digest(letter) for letter in "abcd")
        keeping = Keeping(result_s=10)
        store.calls.add([Work(call(f"fc-{n}", keeping=keeping), Body("x", digest=both)) for n in (1, 2, 3)])
        store.calls.add([Work(call("fc-4"), Body("x", digest=kept))])
        store.calls.lease(F, 9, NOW, 5, "r1-1", POOL)
        assert list(store.call_records.digests()) == [kept, both]
        results = [Body("x", digest=d) for d in (mine, kept, told)]
        store.calls.finish([Done(f"fc-{n}", 5, NOW + n, results[n - 1]) for n in (1, 2, 3)])
        store.calls.add([Work(call("fc-5"), OUT)])
        store.calls.lease(F, 9, NOW, 6, "r1-1", POOL)
        store.calls.finish([Done("fc-5", 6, NOW, Body("x", digest=told))])
        assert list(store.call_records.digests()) == [told, kept, mine], "no input of one that is done"
        assert store.calls.sweep(NOW + 11, 9) == ["fc-1"]
        assert list(store.call_records.digests()) == [told, kept]
        assert store.calls.sweep(NOW + 99, 9) == ["fc-2", "fc-3"]
        assert list(store.call_records.digests()) == [told, kept]

    def test_many_blobs_are_told_each_once(self, store: Store) -> None:
        names = [f"sha256-{n:064x}" for n in range(2500)]
        ids = [f"fc-{n:04}" for n in range(2000)]
        store.calls.add([Work(call(ids[n]), Body("x", digest=names[n])) for n in range(2000)])
        store.calls.lease(F, 1500, NOW, 5, "r1-1", POOL)
        store.calls.finish([Done(ids[n], 5, NOW, Body("x", digest=names[2499 - n])) for n in range(1500)])
        assert list(store.call_records.digests()) == names[1000:]
