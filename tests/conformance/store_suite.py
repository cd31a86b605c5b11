"""What must every store do? Runs against each adapter of the `Store` port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol, get_args

import msgspec
import pytest

from swell.model.demand import Demand
from swell.model.environment import Environment
from swell.model.events import (
    AppDeployed,
    AppStopped,
    Event,
    GangBroken,
    GangGiven,
    GpusHeld,
    NodeSeen,
    Opened,
    PlanCommitted,
    ReplicaAdopted,
    ReplicaSeen,
    SecretChanged,
    VariantsSet,
)
from swell.model.gang import Seat
from swell.model.key import ApiKey, scope_of
from swell.model.limits import Limits
from swell.model.node import Node
from swell.model.plan import Plan, Start, Stop, Wait
from swell.model.policy import Policy
from swell.model.ports import Store
from swell.model.replica import Phase
from swell.model.request import KeyCount, PoolCount, RequestRecord, Usage
from swell.model.secret import SecretVersion
from swell.model.variant import Value
from swell.model.volume import Quota, Volume
from swell.model.workload import App, Entry, Method, Options, Revision, Variant, Workload, with_variants
from swell.store.retention import Keep

NOW = 1_000_000_000.0
DAY_S = 86_400.0
KEEP = Keep(history_days=2, events_max=50, records_per_pool=3, notable_max=5, slow_ms=100, versions=3)


class Trimming(Store, Protocol):
    """Both stores can be told to forget what is too old."""

    def trim(self) -> None: ...


Open = Callable[[], Trimming]


def app(name: str, *workloads: str, namespace: str = "default", memory: str = "a") -> App:
    revision = Revision(
        environment=Environment(interpreter="/usr/bin/python3", python="3.11"),
        bundle="sha256-" + memory * 64,
        entry=Entry("mod", "f", "function", (Method("f"),)),
    )
    rows = tuple(Workload(namespace, name, w, revision.id) for w in workloads)
    return App(namespace, name, rows, (revision,))


def record(
    id: str, pool: str = "p", at: float = NOW, status: int = 200, ms: float = 5, **more: object
) -> RequestRecord:
    return RequestRecord(id=id, pool=pool, method="f", received_at=at, status=status, total_ms=ms, **more)  # type: ignore[arg-type]


def usage(pool: str, role: str, at: float, cpu_s: float) -> Usage:
    return Usage("r1-1", pool, role, at, wall_s=1.0, cpu_s=cpu_s, memory_mib_s=64.0, starting_s=0.25)


def api_key(id: str, at: float = NOW, **more: object) -> ApiKey:
    return ApiKey(id, f"name of {id}", b"d" * 32, (scope_of("call:default/a"),), at, **more)  # type: ignore[arg-type]


def variant(name: str, workload: str) -> Workload:
    """Of a class: with a parameter, and with options."""
    chosen = Variant((Value("size", "int", "3"),), Options(cpu=2.0, secrets=()))
    return Workload("default", name, workload + chosen.name, app(name).revisions[0].id, variant=chosen)


EVENTS: list[Event] = [
    AppDeployed(NOW, app("a", "f", "g")),
    Opened(NOW, 1, (app("z", "f"),), Policy()),
    NodeSeen(NOW, Node("n1", cpu=2.0, memory_mib=1024, labels=(("zone", "é"),))),
    PlanCommitted(
        NOW,
        Plan(
            at=NOW,
            pools=("p",),
            demand=(("p", Demand(held=1, peaks=((NOW, 3),))),),
            actions=(Start("r1-1", "p", "n1", "serving", "1 waits"), Stop("r1-2", "idle", 30.0, "idle")),
        ),
    ),
    PlanCommitted(NOW, Plan(NOW, ("q",), waits=(Wait("q", "no room"),), look_again=(("q", NOW + 1),))),
    ReplicaSeen(NOW, "r1-1", Phase.READY, "p", "serving", "n1", pid=12, timings_ms=(("fork", 4.0),)),
    ReplicaAdopted(NOW, ReplicaSeen(NOW, "r0-9", Phase.READY, "p", "serving", "n1", address="unix:/r")),
    VariantsSet(NOW, "default", "a", (variant("a", "f"),), app("a").revisions, removed=("f~1",)),
    PlanCommitted(
        NOW, Plan(NOW, ("g",), actions=(Start("r1-3", "g", "n1", "serving", "1 waits", None, Seat("r1-3", 0, 2, 5)),))
    ),
    ReplicaSeen(NOW, "r1-3", Phase.READY, "g", "serving", "n1", seat=Seat("r1-3", 0, 2, 5), meeting="10.0.0.1:7"),
    GangBroken(NOW, "r1-3", "rank 1 of it ended"),
    GangGiven(NOW, "r1-3", -5),
    GpusHeld(NOW, "n1", ("GPU-0", "GPU-1")),
    SecretChanged(NOW, "default", "db"),
    AppStopped(NOW, "default", "a"),
]


class StoreSuite:
    """Subclasses give `opener`: each call opens the same state (again)."""

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Open:
        raise NotImplementedError

    @pytest.fixture
    def store(self, opener: Open) -> Iterator[Trimming]:
        store = opener()
        yield store
        store.close()

    def test_an_epoch_is_higher_than_every_one_before(self, store: Store) -> None:
        epochs = [store.world.open_epoch() for _ in range(3)]
        assert epochs == sorted(set(epochs))
        assert epochs[0] > 0

    def test_every_kind_of_event_is_tried(self) -> None:
        assert {type(event) for event in EVENTS} == set(get_args(Event))

    def test_events_come_back_as_they_were_in_order_and_numbered_from_one(self, store: Store) -> None:
        store.world.append(EVENTS[:3])
        store.world.append(EVENTS[3:], durable=True)
        assert list(store.world.events()) == list(enumerate(EVENTS, 1))
        assert list(store.world.events(since=len(EVENTS) - 1)) == [*enumerate(EVENTS, 1)][-2:]
        assert list(store.world.events(since=99)) == []

    def test_apps_are_those_deployed_and_not_stopped(self, store: Store) -> None:
        one, two, again = app("one", "f"), app("two", "f"), app("one", "f", "g")
        store.world.append([AppDeployed(1.0, one), AppDeployed(2.0, two), AppStopped(3.0, "default", "nobody")])
        assert store.world.apps() == [one, two]
        store.world.append([AppDeployed(4.0, again)], durable=True)
        assert store.world.apps() == [two, again]
        assert store.world.deployed_at() == {"default/two": 2.0, "default/one": 4.0}
        store.world.append([AppStopped(5.0, "default", "two")])
        assert store.world.apps() == [again]

    def test_the_newest_versions_of_each_app_are_kept_until_it_is_stopped(self, store: Store) -> None:
        def version(name: str, number: int) -> App:
            return msgspec.structs.replace(app(name), workloads=(Workload("default", name, "f", "rv", version=number),))

        made = [
            AppDeployed(float(n), version("a", n), "deploy", f"tag {n}", over=n - 1, over_served=n % 2 == 0)
            for n in range(1, 6)
        ]
        store.world.append([*made, AppDeployed(9.0, version("b", 1), "deploy"), AppDeployed(9.5, version("b", 1))])
        assert [(v.number, v.over, v.over_served) for v in store.world.versions("default/a")] == [
            (3, 2, False),
            (4, 3, True),
            (5, 4, False),
        ]
        assert store.world.versions("default/a") == [each.version for each in made[-3:]]
        assert [(v.app.name, v.at) for v in store.world.versions()] == [("a", 3.0), ("a", 4.0), ("a", 5.0), ("b", 9.0)]
        assert store.world.newest_versions() == {"default/a": 5, "default/b": 1}
        store.world.append([AppStopped(10.0, "default", "a")])
        assert store.world.versions("default/a") == []
        assert store.world.newest_versions() == {"default/b": 1}

    def test_variants_come_and_go_beside_what_was_deployed(self, store: Store) -> None:
        deployed, own = app("a", "f", "g"), app("a", memory="b").revisions
        made = msgspec.structs.replace(variant("a", "f"), revision=own[0].id)
        store.world.append([AppDeployed(1.0, deployed), VariantsSet(2.0, "default", "a", (made,), own)])
        assert store.world.apps() == [with_variants(deployed, (made,), own, ())]
        assert [w.name for w in store.world.apps()[0].workloads] == ["f", "g", made.name]
        store.world.append([VariantsSet(3.0, "default", "a", removed=(made.name,))])
        store.world.append([VariantsSet(4.0, "default", "gone", (made,), own)])
        assert store.world.apps() == [deployed]
        assert store.world.deployed_at() == {"default/a": 1.0}

    def test_volumes_are_found_by_their_ids_and_told_by_their_names(self, store: Store) -> None:
        first, second = Volume("default", "b", "vo-1", NOW), Volume("default", "a", "vo-2", NOW, quota=Quota(5, 6))
        store.volumes.put(first)
        store.volumes.put(second)
        assert store.volumes.all() == [second, first]
        renamed = msgspec.structs.replace(first, name="0", version=3, size_bytes=7)
        store.volumes.put(renamed)
        assert store.volumes.all() == [renamed, second]
        store.volumes.remove("vo-2")
        store.volumes.remove("vo-nobody")
        assert store.volumes.all() == [renamed]

    def test_the_newest_versions_of_each_secret_are_kept_until_they_are_removed(self, store: Store) -> None:
        def version(name: str, number: int, namespace: str = "default") -> SecretVersion:
            return SecretVersion(namespace, name, number, NOW, ("A", "B"), b"sealed %d" % number)

        for number in (1, 2, 10):
            store.secrets.put(version("a", number), 9)
        store.secrets.put(version("b", 1), 9)
        store.secrets.put(version("a", 1, "other"), 9)
        assert store.secrets.versions() == [
            *(version("a", number) for number in (2, 10)),
            version("b", 1),
            version("a", 1, "other"),
        ]
        again = msgspec.structs.replace(version("b", 1), sealed=b"again")
        store.secrets.put(again, 9)
        store.secrets.remove("default", "a", 10)
        store.secrets.remove("other", "a")
        store.secrets.remove("other", "nobody")
        assert store.secrets.versions() == [version("a", 2), again]

    def test_usage_is_summed_by_pool_and_role_over_whole_minutes(self, store: Store) -> None:
        store.usage.add_usage([usage("p", "serving", NOW + s, 0.5) for s in (1, 2, 65)])
        store.usage.add_usage([usage("p", "template", NOW + 1, 0.125), usage("o", "serving", NOW + 1, 0.25)])
        everything = store.usage.usage(NOW - DAY_S, NOW + DAY_S)
        assert [(u.pool, u.role, u.cpu_s, u.wall_s) for u in everything] == [
            ("o", "serving", 0.25, 1.0),
            ("p", "serving", 1.5, 3.0),
            ("p", "template", 0.125, 1.0),
        ]
        assert everything[1] == Usage("", "p", "serving", NOW + 65, 3.0, 1.5, 192.0, 0.75)
        minute = NOW // 60 * 60
        assert [u.cpu_s for u in store.usage.usage(minute, minute + 60) if u.pool == "p"] == [1.0, 0.125]
        assert store.usage.usage(NOW + DAY_S, NOW + 2 * DAY_S) == []

    def test_usage_and_counts_of_one_pool_can_be_asked_for(self, store: Store) -> None:
        store.usage.add_usage([usage(pool, "serving", NOW, 0.5) for pool in ("p", "pq", "q")])
        store.usage.add_counts([PoolCount(pool, NOW, 1, 0, 0, 0.5) for pool in ("p", "pq", "q")])
        assert [u.pool for u in store.usage.usage(NOW - DAY_S, NOW + 60, "p")] == ["p"]
        assert [c.pool for c in store.usage.counts(NOW - DAY_S, NOW + 60, "p")] == ["p"]
        assert store.usage.usage(NOW - DAY_S, NOW + 60, "nobody") == []

    def test_before_the_last_day_there_are_whole_hours(self, store: Trimming) -> None:
        hour = (NOW - 1.5 * DAY_S) // 3600 * 3600
        store.usage.add_usage([usage("p", "serving", hour + s, 1.0) for s in (0, 1800, 3599, 3600)])
        store.usage.add_counts([PoolCount("p", hour + s, 1, 0, 0, 0.0) for s in (0, 1800, 3599, 3600)])
        store.trim()
        for since, until, found in ((0, 60, 3), (1800, 1801, 3), (3599, 3601, 4), (-60, 0, None), (-60, 7200, 4)):
            assert [u.cpu_s for u in store.usage.usage(hour + since, hour + until)] == [found] * (found is not None)
            assert [c.requests for c in store.usage.counts(hour + since, hour + until)] == [found] * (found is not None)

    def test_counts_are_summed_by_pool(self, store: Store) -> None:
        store.usage.add_counts([PoolCount("p", NOW + s, 10, 1, 2, 0.5) for s in (0, 1, 70)])
        assert store.usage.counts(NOW - 60, NOW + 120) == [PoolCount("p", NOW + 70, 30, 3, 6, 1.5)]

    def test_counts_of_keys_are_summed_by_key_and_pool(self, store: Store) -> None:
        store.usage.add_key_counts([KeyCount("k", "p", NOW + s, 10, 1, 0.5, 0.25) for s in (0, 1, 70)])
        store.usage.add_key_counts([KeyCount("k", "q", NOW, 1, 0, 0.0, 0.0), KeyCount("j", "p", NOW, 2, 0, 0.0, 0.5)])
        assert store.usage.key_counts(NOW - 60, NOW + 120) == [
            KeyCount("j", "p", NOW, 2, 0, 0.0, 0.5),
            KeyCount("k", "p", NOW + 70, 30, 3, 1.5, 0.75),
            KeyCount("k", "q", NOW, 1, 0, 0.0, 0.0),
        ]
        assert store.usage.key_counts(NOW + DAY_S, NOW + 2 * DAY_S) == []

    def test_counts_of_keys_are_kept_as_all_counts_are(self, store: Trimming) -> None:
        hour = (NOW - 1.5 * DAY_S) // 3600 * 3600
        store.usage.add_key_counts([KeyCount("k", "p", hour + s, 1, 0, 0.0, 0.0) for s in (0, 3599, 3600)])
        store.usage.add_key_counts([KeyCount("k", "p", NOW - 900 * DAY_S, 1, 0, 0.0, 0.0)])
        store.trim()
        assert [c.requests for c in store.usage.key_counts(hour, hour + 60)] == [2]
        assert [c.requests for c in store.usage.key_counts(0, NOW)] == [3]

    def test_the_newest_ordinary_records_of_each_pool_are_kept(self, store: Store) -> None:
        store.usage.add_requests([record(f"p{i}") for i in range(5)])
        store.usage.add_requests([record("q0", "q")])
        store.usage.add_requests([record("p5")])
        assert [r.id for r in store.usage.requests("p", 10)] == ["p5", "p4", "p3"]
        assert [r.id for r in store.usage.requests("p", 2)] == ["p5", "p4"]
        assert [r.id for r in store.usage.requests("q", 10)] == ["q0"]
        assert [r.id for r in store.usage.requests("", 3)] == ["p5", "q0", "p4"]
        assert store.usage.requests("nobody", 10) == []
        assert store.usage.requests("%", 10) == store.usage.requests("_", 10) == []
        assert store.usage.requests("p", -1) == []

    def test_notable_records_outlive_ordinary_ones_up_to_their_own_bound(self, store: Store) -> None:
        notable = [
            record("failed", status=500),
            record("refused", error="deadline"),
            record("cold", cold=True),
            record("slow", ms=100),
        ]
        store.usage.add_requests([*notable, *(record(f"o{i}") for i in range(9))])
        assert [store.usage.request(r.id) for r in notable] == notable
        store.usage.add_requests([record(f"e{i}", "q", status=500) for i in range(4)])
        kept = [r.id for r in notable if store.usage.request(r.id)]
        assert kept == ["slow"]
        store.usage.add_requests([record(f"w{i}", "w", status=404) for i in range(4)])
        assert store.usage.request("w0") is None, "what a caller got wrong is ordinary"

    def test_a_record_is_found_whole_and_its_repetition_is_ignored(self, store: Store) -> None:
        whole = record("x", phases_ms=(("held", 1.5),), replica="r1-1", cpu_us=12, cost_usd=1e-9, attempts=2)
        store.usage.add_requests([whole])
        store.usage.add_requests([record("x", status=500)])
        assert store.usage.request("x") == whole
        assert store.usage.request("y") is None

    def test_a_transaction_shows_at_its_end_and_as_a_whole(self, store: Store) -> None:
        with store.transaction():
            store.world.append([EVENTS[0]])
            with store.transaction():
                store.usage.add_requests([record("x")])
            assert store.world.apps() == []
            assert store.usage.request("x") is None
        assert len(store.world.apps()) == 1
        assert store.usage.request("x") == record("x")

    def test_a_transaction_that_raises_leaves_nothing(self, store: Store) -> None:
        def fail_inside() -> None:
            with store.transaction():
                store.world.append([EVENTS[0]], durable=True)
                store.usage.add_requests([record("x")])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail_inside()
        assert list(store.world.events()) == []
        assert store.usage.request("x") is None
        store.world.append([EVENTS[0]])
        assert list(store.world.events()) == [(1, EVENTS[0])]

    def test_what_is_too_old_is_forgotten_but_no_app(self, store: Trimming) -> None:
        old, young = NOW - 3 * DAY_S, NOW - DAY_S
        store.world.append(
            [AppDeployed(old, app("a", "f")), NodeSeen(old, Node("n", 1.0, 1)), NodeSeen(young, Node("m", 1.0, 1))]
        )
        store.usage.add_usage([usage("p", "serving", old, 1.0), usage("p", "serving", young, 2.0)])
        store.usage.add_counts([PoolCount("p", old, 1, 0, 0, 0.0), PoolCount("p", young, 2, 0, 0, 0.0)])
        store.usage.add_requests([record("old", at=old, status=500), record("young", at=young)])
        store.trim()
        assert [seq for seq, _ in store.world.events()] == [3]
        assert [a.name for a in store.world.apps()] == ["a"]
        assert [u.cpu_s for u in store.usage.usage(0, NOW)] == [2.0]
        assert [c.requests for c in store.usage.counts(0, NOW)] == [2]
        assert store.usage.request("old") is None
        assert store.usage.request("young") is not None

    def test_the_world_log_is_bounded_and_its_numbers_go_on(self, store: Trimming) -> None:
        for i in range(60):
            store.world.append([NodeSeen(NOW, Node(f"n{i}", 1.0, 1))])
        store.trim()
        assert [seq for seq, _ in store.world.events()] == list(range(11, 61))
        store.world.append([NodeSeen(NOW, Node("next", 1.0, 1))])
        assert [seq for seq, _ in store.world.events(since=60)] == [60, 61]

    def test_numbers_go_on_after_everything_was_forgotten(self, store: Trimming) -> None:
        store.world.append([NodeSeen(NOW - 9 * DAY_S, Node("n", 1.0, 1))] * 3)
        store.trim()
        store.world.append([NodeSeen(NOW, Node("n", 1.0, 1))])
        assert [seq for seq, _ in store.world.events()] == [4]

    def test_all_is_well(self, store: Store) -> None:
        assert store.trouble == ""

    def test_keys_are_kept_oldest_first_and_replaced_by_their_id(self, store: Store) -> None:
        assert store.keys.all() == []
        young, old = api_key("young", limits=Limits(2.0, 3)), api_key("old", NOW - 1, expires_at=NOW)
        store.keys.put(young)
        store.keys.put(old)
        assert store.keys.all() == [old, young]
        revoked = api_key("young", revoked_at=NOW + 1)
        store.keys.put(revoked)
        assert store.keys.all() == [old, revoked]
        with suppress(InterruptedError), store.transaction():
            store.keys.put(api_key("never"))
            raise InterruptedError
        assert store.keys.all() == [old, revoked]
