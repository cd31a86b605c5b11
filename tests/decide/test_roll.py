"""When does a new revision take over? One workload that is deployed again; whole histories are in the simulator."""

from __future__ import annotations

import msgspec
import pytest

from decide.worlds import POLICY, Setting, deployed, on_one_node, ready, report, rescaled
from swell.decide.check import check, would_break
from swell.decide.plan import plan
from swell.decide.roll import floor, follow, needed
from swell.model.demand import Demand, seen
from swell.model.events import AppDeployed, AppStopped, NodeSeen, Opened
from swell.model.plan import Plan, Start, Stop
from swell.model.replica import Phase, Replica
from swell.model.workload import App, Scaling, Split

KEY = "default/web/f"


def again(it: Setting, number: int = 2, **scaling: int) -> str:
    """The app is deployed again, as another revision that follows; its new pool."""
    app = it.world.apps["default/web"]
    workload = app.workloads[0]
    revision = next(each for each in app.revisions if each.id == workload.revision)
    next_one = msgspec.structs.replace(revision, bundle=f"sha256-{number}")
    after = msgspec.structs.replace(
        workload, revision=next_one.id, version=number, scaling=Scaling(**{"idle_s": 60.0, **scaling})
    )
    it.world.apply(AppDeployed(it.now, follow(it.world, App("default", "web", (after,), (next_one,)))))
    return after.pool


def warm(held: int = 1, ports: tuple[int, ...] = (), cpu: float = 0.125) -> tuple[Setting, str]:
    """One app with ready replicas, on one node."""
    it = on_one_node()
    pool = deployed(it, "web", ports=ports, cpu=cpu)
    ready(it, pool, held)
    return it, pool


def serves(it: Setting) -> str:
    workload = it.world.serving(KEY)
    assert workload is not None
    return workload.pool


def coming(it: Setting, pool: str) -> list[Replica]:
    return [one for one in it.world.in_pool(pool) if one.role == "serving"]


def test_what_serves_keeps_its_traffic_until_its_successor_is_ready() -> None:
    it, old = warm()
    new = again(it)
    assert serves(it) == old
    started = [action for action in it.step().plan.actions if isinstance(action, Start) and action.role == "serving"]
    assert [(one.pool, one.why) for one in started] == [(new, "started to take over from the revision before it")]
    assert serves(it) == old
    it.world.apply(report(coming(it, new)[0], Phase.READY, it.now))
    decided = it.step().plan
    assert decided.moves == (KEY,)
    assert not any(isinstance(action, Stop) for action in decided.actions), "only once gateways are told"
    assert serves(it) == new
    assert it.world.apps["default/web"].previous == ()
    it.demand.clear()
    stopped = [action for action in it.step().plan.actions if isinstance(action, Stop)]
    assert {one.replica for one in stopped} == set(it.world.by_pool[old])
    assert check(it.world) == []


def test_either_pool_makes_both_due() -> None:
    it, old = warm()
    new = again(it)
    it.step()
    touched = it.world.apply(report(coming(it, old)[0], Phase.DRAINING, it.now))
    assert set(touched) == {old, new}


def test_nothing_waits_where_nobody_is_served_now() -> None:
    it = on_one_node()
    deployed(it, "web")
    new = again(it)
    assert (serves(it), it.world.rolling) == (new, {})
    assert it.step().plan.actions == ()


def test_who_waits_is_served_by_the_new_one_once_the_old_one_has_none_left() -> None:
    it, old = warm()
    new = again(it)
    it.step()
    it.world.apply(report(coming(it, old)[0], Phase.GONE, it.now))
    it.step()
    assert serves(it) == new


def test_one_that_does_not_start_changes_nothing_and_is_tried_while_the_old_one_is_in_use() -> None:
    it, old = warm()
    new = again(it)
    it.step()
    it.world.apply(report(coming(it, new)[0], Phase.GONE, it.now))
    it.now += 500.0
    assert it.step().plan.moves == ()
    assert (serves(it), len(coming(it, new))) == (old, 1)
    it.world.apply(report(coming(it, new)[0], Phase.GONE, it.now))
    it.world.apply(report(coming(it, old)[0], Phase.GONE, it.now))
    it.demand.clear()
    it.now += 500.0
    it.step()
    assert (serves(it), coming(it, new)) == (old, []), "nobody is served, so nobody waits for it"
    it.demand[old] = seen(Demand(), 1, 0, 0, it.now)
    it.step()
    assert len(coming(it, old)) == 1


def test_functions_of_an_app_move_each_when_it_is_ready() -> None:
    """They are put in place together; what is slow to start, or does not, keeps no other back."""
    it = on_one_node()
    deployed(it, "web")
    app = it.world.apps["default/web"]
    names = ("f", "g")

    def both(bundle: str) -> App:
        revision = msgspec.structs.replace(app.revisions[0], bundle=bundle)
        workloads = tuple(msgspec.structs.replace(app.workloads[0], name=n, revision=revision.id) for n in names)
        return msgspec.structs.replace(app, workloads=workloads, revisions=(revision,))

    it.world.apply(AppDeployed(it.now, both("sha256-1")))
    old = {name: it.world.workloads[f"default/web/{name}"].pool for name in names}
    for pool in old.values():
        ready(it, pool, 1)
    it.world.apply(AppDeployed(it.now, follow(it.world, both("sha256-2"))))
    new = {name: it.world.workloads[f"default/web/{name}"].pool for name in names}
    it.step()
    it.world.apply(report(coming(it, new["g"])[0], Phase.GONE, it.now))
    it.world.apply(report(coming(it, new["f"])[0], Phase.READY, it.now))
    it.step()
    serving = [it.world.serving(f"default/web/{name}") for name in names]
    assert [each.pool for each in serving if each is not None] == [new["f"], old["g"]]
    assert check(it.world) == []


def test_the_next_deploy_follows_what_serves_and_not_what_failed() -> None:
    it, old = warm()
    failing = again(it, 2)
    it.step()
    it.world.apply(report(coming(it, failing)[0], Phase.GONE, it.now))
    third = again(it, 3)
    assert serves(it) == old
    assert set(it.world.wanted_pools(KEY)) == {old, third}
    assert again(it, 2) == failing
    assert serves(it) == old


def test_its_own_minimum_is_ready_before_it_takes_over_as_far_as_there_was_as_much() -> None:
    it, _ = warm(held=3)
    new = again(it, min_replicas=2)
    it.step()
    first, second = coming(it, new)
    it.world.apply(report(first, Phase.READY, it.now))
    assert it.step().plan.moves == ()
    it.world.apply(report(second, Phase.READY, it.now))
    assert it.step().plan.moves == (KEY,)
    assert [needed(it.world.workloads[KEY], old) for old in (0, 1, 5)] == [1, 1, 2]


def test_without_room_for_both_the_old_one_gives_way_after_a_while() -> None:
    it, old = warm(cpu=8.0)
    it.demand[old] = seen(Demand(), 0, 1, 0, it.now)
    new = again(it)
    decided = it.step().plan
    assert dict(decided.look_again)[new] == it.now + POLICY.roll_wait_s
    assert any(wait.pool == new for wait in decided.waits)
    it.now += POLICY.roll_wait_s
    assert it.step((new,)).plan.moves == (KEY,)
    it.demand.clear()
    it.step()
    assert all(one.phase is Phase.DRAINING for one in coming(it, old))


def test_two_that_want_one_port_do_not_wait_for_each_other() -> None:
    it, _ = warm(ports=(9200,))
    new = again(it)
    assert serves(it) == new


def test_it_goes_on_over_a_new_control_and_waits_for_what_runs() -> None:
    it, old = warm()
    new = again(it)
    node = it.world.nodes["local"]
    it.world.apply(Opened(it.now, 2, tuple(it.world.apps.values()), POLICY))
    assert serves(it) == old
    it.demand.clear()
    assert it.step().plan.moves == ()
    it.world.apply(NodeSeen(it.now, node))
    assert it.step().plan.moves == (KEY,), "nothing of the old one was told to run"
    assert serves(it) == new


def test_other_scaling_and_an_end_of_the_app_while_it_rolls() -> None:
    it, old = warm()
    new = again(it)
    rescaled(it, KEY, max_replicas=7)
    assert (serves(it), it.world.workloads[KEY].scaling.max_replicas) == (old, 7)
    assert check(it.world) == []
    it.step()
    it.world.apply(AppStopped(it.now, "default", "web"))
    assert it.world.rolling == {}
    it.step()
    assert all(one.phase is Phase.DRAINING for one in it.world.replicas.values())
    for one in list(it.world.replicas.values()):
        it.world.apply(report(one, Phase.GONE, it.now))
    assert it.world.revisions == {}
    assert new not in it.world.by_pool


def test_what_is_wanted_does_not_go_as_superseded_and_nothing_moves_that_does_not_roll() -> None:
    it, old = warm()
    again(it)
    (one,) = coming(it, old)
    actions = (Stop(one.id, "superseded", 1.0, ""),)
    stop = Plan(it.now, (old,), actions=actions, moves=("default/web/g",))
    assert would_break(it.world, stop) == [
        "default/web/g would move, and does not roll",
        f"{one.id} would go as superseded, and {old} is wanted",
    ]


@pytest.mark.parametrize(("split", "least"), [({"percent": 10.0}, None), ({"tag": "t"}, 0), ({"warm": True}, 2)])
def test_a_split_is_sized_by_what_it_is_for(split: dict[str, object], least: int | None) -> None:
    it, old = warm(held=2)
    workload, revision = it.world.workloads[KEY], it.world.apps["default/web"].revisions[0]
    other = msgspec.structs.replace(revision, bundle="sha256-9")
    splits = (Split(other.id, 2, **split),)  # type: ignore[arg-type]
    both = msgspec.structs.replace(workload, splits=splits, scaling=Scaling(min_replicas=1))
    it.world.apply(AppDeployed(it.now, App("default", "web", (both,), (revision, other))))
    pool = f"{KEY}@{other.id}"
    found = floor(it.world, pool)
    assert (found and found.replicas) == least
    assert floor(it.world, old) is None
    it.step()
    assert len(coming(it, pool)) == (1 if least is None else least)
    changed = plan(it.world, it.demand, it.now, (pool,), POLICY)
    assert changed.moves == ()
