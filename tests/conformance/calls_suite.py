"""What must every durable queue do? Runs against each adapter of the ports `Calls` and `CallRecords`."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swell.model.call import (
    PRIORITY_MAX,
    Again,
    Body,
    Call,
    CallError,
    Cancel,
    Cancelled,
    Depth,
    Done,
    Failed,
    Keeping,
    Outcome,
    Queued,
    Retry,
    Work,
    fencing_token,
)
from swell.model.ports import Store
from swell.model.retrying import Retrying

NOW = 1_000_000_000.0
F = "default/a/f"
BOOM = CallError("exception", "ValueError: boom")
STOPPED = CallError("cancelled", "It was cancelled.")
OUT = Body("application/json", b"42")
POOL = "default/a/f@rv-1"
HELD: dict[str, Any] = {"replica": "r1-1", "pool": POOL, "leased_at": NOW}
"""What a call says that was handed out, as here they mostly are."""

Open = Callable[[], Store]


def call(id: str, workload: str = F, due_at: float = NOW, **more: Any) -> Call:
    return Call(id, workload, more.pop("method", "f"), NOW, due_at, **more)


def work(id: str, workload: str = F, due_at: float = NOW, **more: Any) -> Work:
    return Work(call(id, workload, due_at, **more), Body("application/json", id.encode()))


def counts(store: Store) -> dict[tuple[str, str], int]:
    """How many calls of a workload are in each state."""
    return Counter((each.workload, each.state) for each in store.call_records.newest("", None, 1_000_000))


def digest(name: str) -> str:
    return "sha256-" + name * 64


def leased(store: Store, id: str, token: int = 1, **more: Any) -> Work:
    """The one call of a queue, accepted and handed out."""
    store.calls.add([work(id, **more)])
    (got,) = store.calls.lease(F, 9, NOW, token, "r1-1", POOL)
    assert got.call.id == id
    return got


def order(store: Store, workload: str = F, now: float = NOW, most: int = 99) -> list[str]:
    return [each.call.id for each in store.calls.lease(workload, most, now, 1, "r1-1", POOL)]


class CallsCase:
    """Subclasses give `opener`: each call opens the same state (again)."""

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Open:
        raise NotImplementedError

    @pytest.fixture
    def store(self, opener: Open) -> Iterator[Store]:
        store = opener()
        yield store
        store.close()

    @pytest.fixture
    def eager_threads(self) -> Iterator[None]:
        """Threads take turns as often as they can."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        yield
        sys.setswitchinterval(before)


class CallsSuite(CallsCase):
    """What moves calls."""

    # -- accepting ---------------------------------------------------------------------------------

    def test_a_call_comes_back_as_it_was_accepted_with_its_input(self, store: Store) -> None:
        whole = call(
            "fc-1",
            accept="application/json",
            key="k1",
            priority=-3,
            idempotency_key="once\té",
            group="g1",
            retrying=Retrying(4, 1.5, 0.25, 9.0),
            jitter=0.75,
            timeout_s=7200.0,
            keeping=Keeping(5.0, 6.0),
            owned=True,
        )
        body = Body("application/octet-stream", digest=digest("a"))
        assert store.calls.add([Work(whole, body), work("fc-2")]) == ["fc-1", "fc-2"]
        assert store.call_records.get("fc-1") == whole
        assert store.call_records.input("fc-1") == body
        assert store.call_records.input("fc-2") == Body("application/json", b"fc-2")
        assert store.call_records.result("fc-1") is None
        assert store.call_records.get("nobody") is store.call_records.input("nobody") is None

    def test_nothing_to_do_is_done(self, store: Store) -> None:
        assert store.calls.add([]) == store.calls.finish([]) == store.calls.change([]) == []
        assert store.calls.lease(F, 0, NOW, 1, "r", POOL) == store.calls.lease(F, 9, NOW, 1, "r", POOL) == []
        assert store.calls.sweep(NOW, 9) == []

    def test_an_id_that_is_known_adds_nothing(self, store: Store) -> None:
        store.calls.add([work("fc-1")])
        assert store.calls.add([work("fc-2"), replace(work("fc-1", priority=5), input=OUT)]) == ["fc-2", "fc-1"]
        assert store.call_records.get("fc-1") == call("fc-1")
        assert store.call_records.input("fc-1") == Body("application/json", b"fc-1")
        assert counts(store) == {(F, "queued"): 2}

    def test_an_idempotency_key_gives_the_kept_call_that_has_it(self, store: Store) -> None:
        first, again, other = (work(id, idempotency_key="k") for id in ("fc-1", "fc-2", "fc-3"))
        assert store.calls.add([first, again]) == ["fc-1", "fc-1"]
        assert store.calls.add([work("fc-4"), again]) == ["fc-4", "fc-1"]
        assert store.calls.add([work("fc-5", "default/a/g", idempotency_key="k")]) == ["fc-5"], "of another workload"
        store.calls.change([Cancel("fc-1", NOW, STOPPED)])
        assert store.calls.add([other]) == ["fc-1"], "whatever became of it"
        assert store.call_records.get("fc-2") is None
        store.calls.sweep(NOW + 365 * 86_400, 9)
        assert store.calls.add([other]) == ["fc-3"], "until it is forgotten"

    def test_another_api_keys_call_is_not_given_for_an_idempotency_key(self, store: Store) -> None:
        store.calls.add([work("fc-1", key="k1", idempotency_key="1")])
        assert store.calls.add([work("fc-2", key="k2", idempotency_key="1")]) == ["fc-2"]
        assert store.calls.add([work("fc-3", idempotency_key="1")]) == ["fc-3"]
        again = [work(f"fc-{n + 4}", key=key, idempotency_key="1") for n, key in enumerate(["k1", "k2", ""])]
        assert store.calls.add(again) == ["fc-1", "fc-2", "fc-3"]
        store.calls.change([Cancel("fc-1", NOW, STOPPED)])
        store.calls.sweep(NOW + 365 * 86_400, 9)
        assert store.calls.add(again) == ["fc-4", "fc-2", "fc-3"]

    def test_another_methods_call_is_not_given_for_an_idempotency_key(self, store: Store) -> None:
        charge, ship = (work(id, method=id[3:], idempotency_key="k") for id in ("fc-charge", "fc-ship"))
        assert store.calls.add([charge, ship]) == ["fc-charge", "fc-ship"]
        again = [work("fc-1", method="charge", idempotency_key="k"), work("fc-2", method="ship", idempotency_key="k")]
        assert store.calls.add(again) == ["fc-charge", "fc-ship"]

    # -- handing out ---------------------------------------------------------------------------------

    def test_the_order_is_priority_then_due_time_then_id(self, store: Store) -> None:
        store.calls.add(
            [
                work("fc-5", due_at=NOW),
                work("fc-4", due_at=NOW - 1),
                work("fc-3", due_at=NOW),
                work("fc-2", due_at=NOW, priority=1),
                work("fc-1", due_at=NOW - 9, priority=-1),
                work("fc-0", "default/a/g"),
            ]
        )
        assert order(store, most=2) == ["fc-2", "fc-4"]
        assert order(store) == ["fc-3", "fc-5", "fc-1"]
        assert order(store) == []
        assert order(store, "default/a/g") == ["fc-0"]

    def test_the_highest_and_the_lowest_priority_are_handed_out_too(self, store: Store) -> None:
        store.calls.add([work("fc-1", priority=-PRIORITY_MAX), work("fc-2"), work("fc-3", priority=PRIORITY_MAX)])
        assert store.calls.depth(F, NOW, 9) == Depth(3, None, ((PRIORITY_MAX, 1), (0, 1), (-PRIORITY_MAX, 1)))
        assert store.calls.standing().queued == {F: Queued(3, NOW)}
        assert order(store) == ["fc-3", "fc-2", "fc-1"]

    def test_a_lower_priority_waits_however_long_it_is_due(self, store: Store) -> None:
        store.calls.add([work("fc-0", due_at=NOW - 1e6, priority=-1)])
        for n in range(1, 4):
            store.calls.add([work(f"fc-{n}", due_at=NOW + n)])
            assert order(store, now=NOW + n, most=1) == [f"fc-{n}"]
        assert order(store, now=NOW + 4, most=1) == ["fc-0"]

    def test_what_is_not_due_yet_stands_in_nobodys_way(self, store: Store) -> None:
        store.calls.add([work(f"fc-{n}", due_at=NOW + 10 + n, priority=9) for n in range(5)])
        store.calls.add([work("fc-9")])
        assert store.calls.depth(F, NOW, 99) == Depth(1, NOW + 10, ((0, 1),))
        assert order(store) == ["fc-9"]
        assert order(store, now=NOW + 11) == ["fc-0", "fc-1"]

    def test_a_lease_says_who_has_it_and_counts_as_an_attempt(self, store: Store) -> None:
        store.calls.add([work("fc-1")])
        (got,) = store.calls.lease(F, 1, NOW, 7, "r1-2", POOL)
        assert got.call == call("fc-1", state="leased", attempts=1, token=7, replica="r1-2", pool=POOL, leased_at=NOW)
        assert got.input == Body("application/json", b"fc-1")
        assert store.call_records.get("fc-1") == got.call
        assert counts(store) == {(F, "leased"): 1}

    # -- finishing -----------------------------------------------------------------------------------

    def test_one_result_is_recorded_whatever_else_comes(self, store: Store) -> None:
        leased(store, "fc-1", token=5)
        done = Done("fc-1", 5, NOW + 2, OUT, cpu_us=10, run_us=20)
        late = [replace(done, token=4), replace(done, id="nobody"), replace(done, result=Body("x", b"other"))]
        assert store.calls.finish([late[0], late[1], done, late[2]]) == [False, False, True, False]
        assert store.calls.finish([done, Failed("fc-1", 5, NOW, BOOM), Again("fc-1", 5, NOW)]) == [False] * 3
        kept = store.call_records.get("fc-1")
        assert kept == call("fc-1", state="done", attempts=1, token=5, **HELD, ended_at=NOW + 2, cpu_us=10, run_us=20)
        assert store.call_records.result("fc-1") == OUT
        assert order(store, now=NOW + 99) == []

    def test_of_two_that_have_it_only_the_last_one_is_heard(self, store: Store) -> None:
        leased(store, "fc-1", token=5)
        assert store.calls.finish([Again("fc-1", 5, NOW)]) == [True]
        assert store.calls.finish([Done("fc-1", 0, NOW, OUT)]) == [False], "a call in the queue has no token"
        store.calls.lease(F, 1, NOW, 6, "r1-2", POOL)
        old, new = (Done("fc-1", token, NOW, Body("x", b"%d" % token)) for token in (5, 6))
        assert store.calls.finish([old, new]) == [False, True]
        assert store.call_records.result("fc-1") == Body("x", b"6")

    def test_a_call_that_is_tried_again_waits_for_its_time_and_keeps_its_error(self, store: Store) -> None:
        leased(store, "fc-1", token=5)
        store.calls.finish([Again("fc-1", 5, NOW + 3, BOOM, cpu_us=1, run_us=2)])
        assert store.call_records.get("fc-1") == call(
            "fc-1", due_at=NOW + 3, attempts=1, error=BOOM, cpu_us=1, run_us=2
        )
        assert order(store, now=NOW + 2) == []
        (got,) = store.calls.lease(F, 1, NOW + 3, 6, "r1-2", POOL)
        assert (got.call.attempts, got.call.error) == (2, BOOM)
        store.calls.finish([Again("fc-1", 6, NOW + 3, counts=False, cpu_us=1, run_us=2)])
        assert store.call_records.get("fc-1") == call(
            "fc-1", due_at=NOW + 3, attempts=1, error=BOOM, cpu_us=2, run_us=4
        )
        store.calls.lease(F, 1, NOW + 3, 7, "r1-2", POOL)
        store.calls.finish([Done("fc-1", 7, NOW + 4, OUT, cpu_us=1, run_us=2)])
        kept = store.call_records.get("fc-1")
        assert kept is not None
        assert (kept.state, kept.attempts, kept.error, kept.cpu_us, kept.run_us) == ("done", 2, None, 3, 6)

    def test_a_dead_letter_keeps_its_input_and_can_be_tried_again(self, store: Store) -> None:
        leased(store, "fc-1", token=5)
        assert store.calls.finish([Failed("fc-1", 5, NOW + 1, BOOM, b"{}", cpu_us=3)]) == [True]
        kept = store.call_records.get("fc-1")
        assert kept == call("fc-1", state="failed", attempts=1, token=5, **HELD, error=BOOM, ended_at=NOW + 1, cpu_us=3)
        assert store.call_records.result("fc-1") == Body("application/json", b"{}")
        assert store.call_records.input("fc-1") == Body("application/json", b"fc-1")
        (after,) = store.calls.change([Retry("fc-1", NOW + 9)])
        assert after == store.call_records.get("fc-1") == call("fc-1", due_at=NOW + 9, error=BOOM, cpu_us=3)
        assert store.call_records.result("fc-1") is None
        assert store.calls.finish([Done("fc-1", 5, NOW, OUT)]) == [False]
        (got,) = store.calls.lease(F, 1, NOW + 9, 6, "r1-1", POOL)
        assert got.call.attempts == 1
        assert store.calls.finish([Done("fc-1", 6, NOW, OUT)]) == [True]

    def test_a_dead_letter_may_be_tried_again_with_another_input(self, store: Store) -> None:
        other = Body("application/msgpack", b"\x80")
        for id in ("fc-1", "fc-2", "fc-3"):
            leased(store, id, token=5)
        store.calls.finish([Failed("fc-1", 5, NOW, BOOM), Failed("fc-2", 5, NOW, BOOM), Done("fc-3", 5, NOW, OUT)])
        changes = [Retry(id, NOW, other) if id != "fc-2" else Retry(id, NOW) for id in ("fc-1", "fc-2", "fc-3")]
        assert [call and call.id for call in store.calls.change(changes)] == ["fc-1", "fc-2", None]
        # Another came later: it is queued by then, and keeps what it has.
        assert store.calls.change([Retry("fc-1", NOW, Body("x", b"late"))]) == [None]
        inputs = [store.call_records.input(id) for id in ("fc-1", "fc-2", "fc-3")]
        assert inputs == [other, Body("application/json", b"fc-2"), None]
        got = store.calls.lease(F, 9, NOW, 6, "r1-1", POOL)
        assert [each.input for each in got] == inputs[:2]

    def test_an_attempt_that_was_stopped_is_not_tried_again_and_what_it_used_is_known(self, store: Store) -> None:
        leased(store, "fc-1", token=5, keeping=Keeping(result_s=10))
        stopped = Cancelled("fc-1", 5, NOW + 1, STOPPED, cpu_us=3, run_us=4)
        assert store.calls.finish([replace(stopped, token=4), stopped, stopped]) == [False, True, False]
        assert store.call_records.get("fc-1") == call(
            "fc-1",
            keeping=Keeping(result_s=10),
            state="cancelled",
            attempts=1,
            **HELD,
            error=STOPPED,
            ended_at=NOW + 1,
            cpu_us=3,
            run_us=4,
        )
        assert store.call_records.result("fc-1") is None
        assert store.calls.change([Retry("fc-1", NOW), Cancel("fc-1", NOW, STOPPED)]) == [None, None]
        assert order(store) == []
        assert store.calls.sweep(NOW + 11, 9) == ["fc-1"]

    # -- changing ------------------------------------------------------------------------------------

    def test_a_cancelled_call_ends_at_once_and_tells_who_has_it(self, store: Store) -> None:
        leased(store, "fc-1", token=5)
        store.calls.add([work("fc-2")])
        queued, held, nobody = store.calls.change([Cancel(id, NOW + 1, STOPPED) for id in ("fc-2", "fc-1", "fc-3")])
        assert queued == call("fc-2", state="cancelled", error=STOPPED, ended_at=NOW + 1)
        assert held == call("fc-1", state="cancelled", attempts=1, token=5, **HELD, error=STOPPED, ended_at=NOW + 1)
        assert nobody is None
        assert store.call_records.get("fc-1") == held
        assert store.calls.finish([Done("fc-1", 5, NOW, OUT)]) == [False]
        assert store.call_records.result("fc-1") is None
        assert order(store) == []

    @pytest.mark.parametrize(
        "late",
        [
            Done("fc-1", 5, NOW + 9, OUT, cpu_us=3, run_us=4),
            Failed("fc-1", 5, NOW + 9, BOOM, b"{}", cpu_us=3, run_us=4),
            Again("fc-1", 5, NOW + 9, BOOM, cpu_us=3, run_us=4),
            Cancelled("fc-1", 5, NOW + 9, STOPPED, cpu_us=3, run_us=4),
        ],
    )
    def test_of_what_a_replica_says_of_a_cancelled_call_only_what_it_used_is_recorded_once(
        self, store: Store, late: Outcome
    ) -> None:
        leased(store, "fc-1", token=5)
        store.calls.add([work("fc-2")])
        held, _queued = store.calls.change([Cancel(id, NOW + 1, STOPPED) for id in ("fc-1", "fc-2")])
        assert held is not None
        before = store.call_records.get("fc-2")
        assert store.calls.finish([replace(late, token=4), late, late, replace(late, id="fc-2")]) == [False] * 4
        assert store.calls.finish([replace(late, id="fc-2", token=0)]) == [False]
        assert store.call_records.get("fc-1") == replace(held, token=0, cpu_us=3, run_us=4)
        assert store.call_records.result("fc-1") is None
        assert store.call_records.get("fc-2") == before
        assert counts(store) == {(F, "cancelled"): 2}

    def test_what_has_ended_is_not_changed(self, store: Store) -> None:
        leased(store, "fc-1", token=5)
        store.calls.finish([Done("fc-1", 5, NOW, OUT)])
        store.calls.add([work("fc-2"), work("fc-3")])
        store.calls.change([Cancel("fc-2", NOW, STOPPED)])
        before = [store.call_records.get(id) for id in ("fc-1", "fc-2", "fc-3")]
        changes = [Cancel("fc-1", NOW, BOOM), Cancel("fc-2", NOW, BOOM), *(Retry(f"fc-{n}", NOW) for n in (1, 2, 3, 4))]
        assert store.calls.change(changes) == [None] * 6
        assert [store.call_records.get(id) for id in ("fc-1", "fc-2", "fc-3")] == before

    # -- together with others --------------------------------------------------------------------------

    def test_a_transaction_answers_at_its_end(self, store: Store) -> None:
        store.calls.add([work("fc-1", idempotency_key="k"), work("fc-2")])
        (held,) = store.calls.lease(F, 1, NOW, 5, "r1-1", POOL)
        with store.transaction():
            done = store.calls.finish([Done(held.call.id, 5, NOW, OUT), Done("fc-2", 5, NOW, OUT)])
            ids = store.calls.add([work("fc-3", "default/a/g"), work("fc-4", idempotency_key="k")])
            works = store.calls.lease("default/a/g", 9, NOW, 6, "r1-1", POOL)
            after = store.calls.change([Cancel("fc-2", NOW, STOPPED)])
            swept = store.calls.sweep(NOW, 9)
            assert done == ids == works == after == swept == []
            assert store.call_records.result(held.call.id) is None
            assert store.call_records.get("fc-3") is None
        assert done == [True, False]
        assert ids == ["fc-3", "fc-1"]
        assert [each.call for each in works] == [store.call_records.get("fc-3")]
        assert after == [store.call_records.get("fc-2")]
        assert store.call_records.result(held.call.id) == OUT

    def test_what_was_begun_in_a_transaction_and_writes_after_its_end_is_written(self, store: Store) -> None:
        with store.transaction():
            store.calls.add([work("fc-1")])
            # As a task or a thread that is started here has it.
            begun = copy_context()
        assert begun.run(store.calls.add, [work("fc-2")]) == ["fc-2"]

        def together() -> None:
            with store.transaction():
                store.calls.add([work("fc-3")])

        begun.run(together)
        assert [each.id for each in store.call_records.newest("", None, 9)] == ["fc-3", "fc-2", "fc-1"]

    def test_a_transaction_that_raises_leaves_nothing(self, store: Store) -> None:
        leased(store, "fc-1", token=5)
        with suppress(InterruptedError), store.transaction():
            store.calls.add([work("fc-2")])
            store.calls.finish([Done("fc-1", 5, NOW, OUT)])
            raise InterruptedError
        assert counts(store) == {(F, "leased"): 1}

    # -- from several threads --------------------------------------------------------------------------

    def test_many_threads_hand_out_and_record_each_call_once(self, store: Store, eager_threads: None) -> None:
        def one(thread: int) -> list[str]:
            done: list[str] = []
            for n in range(25):
                store.calls.add([work(f"fc-{thread}-{n}-{i}", group="g") for i in range(3)])
                token = fencing_token(1, n * 10 + thread + 1)
                got = [each.call.id for each in store.calls.lease(F, 4, NOW, token, "r1-1", POOL)]
                told = store.calls.finish([Done(id, token, NOW, Body("x", digest=digest("a"))) for id in got])
                assert told == [True] * len(got)
                done += got
                assert set(store.call_records.digests()) <= {digest("a")}
                assert {each.id for each in store.call_records.newest("", "done", 999)} >= set(done)
                assert len(store.call_records.get_many(done)) == len(done)
                assert len(store.call_records.ended("g", 0, 999)) >= len(done)
                store.calls.standing()
                store.calls.depth(F, NOW, 9)
            return done

        with ThreadPoolExecutor(4) as threads:
            done = [id for found in threads.map(one, range(4)) for id in found]
        assert len(done) == len(set(done))
        assert counts(store)[F, "done"] == len(done)

    def test_a_transaction_shows_whole_to_other_threads(self, store: Store, eager_threads: None) -> None:
        over = threading.Event()
        store.calls.add([work(f"fc-0-{i:02}") for i in range(20)])
        store.calls.lease(F, 20, NOW, 1, "r1-1", POOL)

        def chain() -> None:
            try:
                for n in range(50):
                    with store.transaction():
                        store.calls.finish([Done(f"fc-{n}-{i:02}", n + 1, NOW, OUT) for i in range(20)])
                        store.calls.add([work(f"fc-{n + 1}-{i:02}") for i in range(20)])
                        store.calls.lease(F, 20, NOW, n + 2, "r1-1", POOL)
            finally:
                over.set()

        with ThreadPoolExecutor(1) as threads:
            chained = threads.submit(chain)
            while not over.is_set():
                assert {**counts(store), (F, "done"): 0} == {(F, "leased"): 20, (F, "done"): 0}
            chained.result()
        assert counts(store) == {(F, "done"): 1000, (F, "leased"): 20}
