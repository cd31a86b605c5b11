"""Are there never more variants of a workload than may be, are those forgotten that nobody uses, and do deploys, splits
and rollbacks take the others along?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random

import msgspec
import pytest

from swell.control.deploying import Deployer
from swell.control.loop import Loop
from swell.control.reactor import Reactor
from swell.control.variants import NEW_S, Variants
from swell.control.versions import numbered
from swell.decide.check import check
from swell.decide.roll import follow
from swell.decide.route import Found, Routes, route
from swell.decide.traffic import split
from swell.decide.variants import variants, varied
from swell.engines.fake import FakeEngine
from swell.model.demand import Demand
from swell.model.environment import Environment
from swell.model.errors import SwellError
from swell.model.events import AppDeployed, Event, NodeSeen, ReplicaAdopted, ReplicaSeen
from swell.model.failures import Failures
from swell.model.node import Node
from swell.model.policy import Policy
from swell.model.replica import Phase
from swell.model.request import Prices
from swell.model.resources import Needs
from swell.model.secret import SecretUse
from swell.model.traffic import ByTag, Traffic
from swell.model.variant import Parameter, Value
from swell.model.workload import App, Entry, Method, Options, Revision, Scaling, Variant, Workload
from swell.model.world import World
from swell.store.memory import MemoryStore
from swell.wire.api import NewVariant, Rescale

MOST = 5
KEEP_S = 100.0
KEY = "default/a/Model"


def an_app(bundle: str = "1", kind: str = "str") -> App:
    declared = (Parameter("name", kind),)  # type: ignore[arg-type]
    entry = Entry("m", "Model", "cls", (Method("go"),), parameters=declared)
    revision = Revision(Environment("/usr/bin/python3", "3.11"), f"sha256-{bundle}", entry, needs=Needs(0.1, 32))
    return App("default", "a", (Workload("default", "a", "Model", revision.id, Scaling(idle_s=1.0)),), (revision,))


def named(text: str, **options: object) -> Variant:
    return Variant((Value("name", "str", text),), Options(**options))  # type: ignore[arg-type]


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at


class Stage:
    """A world with an app, and its variants."""

    def __init__(self, keep_s: float = KEEP_S) -> None:
        self.world, self.clock = World(epoch=2), Clock()
        self.demand: dict[str, Demand] = {}
        self.events: list[Event] = []
        self.begin(keep_s)
        self.take(NodeSeen(1000.0, Node("n1", 8.0, 9000)))
        self.take(AppDeployed(1000.0, an_app()))

    def begin(self, keep_s: float) -> None:
        """As another control does."""
        self.variants = Variants(self.world, self.take, self.demand, self.clock, MOST, keep_s)

    def take(self, event: Event) -> None:
        self.events.append(event)
        self.world.apply(event)

    def want(self, text: str, by: str = "") -> Workload:
        return self.variants.want(KEY, named(text), by)

    def used(self, workload: Workload, level: int = 0) -> None:
        self.demand[workload.pool] = Demand(in_flight=level, used_at=self.clock.at)

    def runs(self, workload: Workload, phase: Phase, replica: str) -> None:
        """A replica that an earlier control began."""
        seen = ReplicaSeen(self.clock.at, replica, phase, workload.pool, "serving", "n1", address="unix:/x")
        self.take(ReplicaAdopted(self.clock.at, seen))

    @property
    def there(self) -> list[str]:
        """Their parameter."""
        found = (workload.variant.parameters for workload in self.world.workloads.values())
        return [values[0].text for values in found if values]

    def sweep(self) -> None:
        asyncio.run(self.variants.sweep())


def test_of_a_thousand_sets_no_more_are_kept_than_may_be() -> None:
    it = Stage()
    for number in range(1000):
        it.want(str(number))
        it.clock.at += NEW_S
        assert len(it.there) <= MOST
        assert {*it.world.apps["default/a"].workloads} == {*it.world.workloads.values()}
    assert it.there == [str(number) for number in range(1000 - MOST, 1000)]
    assert len(it.world.revisions) == 1 + MOST
    assert check(it.world) == []
    # Asked for again it is the same, and nothing has changed.
    before = len(it.events)
    assert it.want("999").name == "Model" + named("999").name
    assert len(it.events) == before


def test_the_longest_unused_gives_way_and_who_is_in_use_or_about_to_be_does_not() -> None:
    it = Stage()
    made = [it.want(str(number)) for number in range(MOST)]
    with pytest.raises(SwellError, match=r"a/Model is in use with 5 sets .*\(variants_max\)") as refused:
        it.want("new")
    assert (refused.value.code, refused.value.status) == ("too_many_variants", 429)
    it.clock.at += NEW_S
    it.used(made[0], level=1)
    it.used(made[1])
    it.runs(made[2], Phase.STARTING, "r1-1")
    it.runs(made[3], Phase.READY, "r1-2")
    it.clock.at += 1
    it.used(made[4])
    # The third starts, the first is at work; the fourth is idle and has served nobody for longest.
    it.want("new")
    assert it.there == ["0", "1", "2", "4", "new"]
    it.want("newer")
    assert it.there == ["0", "2", "4", "new", "newer"]


def test_one_key_has_no_more_than_half_in_use_so_that_others_find_room() -> None:
    it = Stage()
    busy = [it.want(str(number), "one") for number in range(3)]
    with pytest.raises(SwellError, match=r"with 3 sets .* that this key asked for, and 3 is the most of one key") as no:
        it.want("3", "one")
    assert (no.value.code, no.value.status) == ("too_many_variants", 429)
    # What it has is no second one; others have the rest, and who has no key is bound by the whole alone.
    assert it.want("0", "one") is busy[0]
    it.want("4", "two")
    it.want("5")
    it.clock.at += NEW_S
    for workload in busy[1:]:
        it.used(workload, level=1)
    # One of its own is idle: that gives way to its next.
    it.want("3", "one")
    assert "0" not in it.there


def test_where_one_at_zero_stays_for_less_it_is_new_for_no_longer() -> None:
    keep_s = NEW_S / 4
    it = Stage(keep_s)
    it.want("made here")
    it.sweep()
    assert it.there == ["made here"]
    it.clock.at += keep_s
    it.sweep()
    assert it.there == []
    it.want("made before")
    it.begin(keep_s)
    it.clock.at += keep_s
    it.sweep()
    assert it.there == ["made before"], "who uses it may not have been heard yet"
    it.clock.at += NEW_S
    it.sweep()
    assert it.there == []


def test_what_is_at_zero_for_long_is_forgotten_and_nothing_else() -> None:
    it = Stage()
    idle, busy, warm, kept = (it.want(text) for text in ("idle", "busy", "warm", "kept"))
    it.used(busy, level=1)
    it.runs(warm, Phase.READY, "r1-1")
    it.take(AppDeployed(it.clock.at, it.world.apps["default/a"]))
    floor = msgspec.structs.replace(kept, scaling=Scaling(min_replicas=1))
    it.take(
        AppDeployed(
            it.clock.at,
            msgspec.structs.replace(
                it.world.apps["default/a"],
                workloads=tuple(floor if w.name == kept.name else w for w in it.world.apps["default/a"].workloads),
            ),
        )
    )
    it.sweep()
    assert len(it.there) == 4
    it.clock.at += KEEP_S
    it.sweep()
    assert it.there == ["busy", "warm", "kept"]
    assert idle.key not in it.world.workloads
    # A control that has just begun does not know when they were used last: it counts from its own beginning.
    again = Variants(it.world, it.take, {}, it.clock, MOST, KEEP_S)
    asyncio.run(again.sweep())
    assert it.there == ["busy", "warm", "kept"]
    it.clock.at += KEEP_S
    asyncio.run(again.sweep())
    assert it.there == ["warm", "kept"]


def test_what_is_not_there_or_cannot_be_is_said() -> None:
    it = Stage()
    with pytest.raises(SwellError, match="There is no function or class a/Nothing here"):
        it.variants.want("default/a/Nothing", named("x"))
    with pytest.raises(SwellError, match=r"a/Model cannot be had so: with_batching|a/Model cannot be had so: target"):
        it.variants.want(KEY, named("x", target_inputs=3))
    with pytest.raises(SwellError, match="it needs name"):
        it.variants.want(KEY, Variant())
    assert it.there == []


# -- with deploys --------------------------------------------------------------------------------


def nothing_starts(_after_s: float, _do: Callable[[], None]) -> None:
    """Nothing is started here."""


def deployer(check_named: Callable[[App], None] = lambda _app: None) -> Deployer:
    engine, store, clock = (
        FakeEngine(Node("n1", 4.0, 4096), time.time, nothing_starts, Random(1)),
        MemoryStore(),
        Clock(),
    )
    reactor = Reactor(World(), Policy(), Prices())
    loop = Loop(reactor, engine, store, clock, 1, variants_max=MOST)
    told = ("http://127.0.0.1:1", {}, reactor.waiting, check_named, loop.variants)
    return Deployer(reactor.world, loop.take, engine, store.world, clock, *told)


def play(scenario: Callable[[Deployer], object]) -> None:
    async def played() -> None:
        made = deployer()
        await made.deploy(an_app("1"), str)
        await made.vary("default", "a", "Model", NewVariant({"name": "x"}, Options(cpu=0.2)))
        await scenario(made)  # type: ignore[misc]

    asyncio.run(played())


def of(made: Deployer) -> Workload:
    """The only variant."""
    (found,) = [workload for workload in made.world.workloads.values() if workload.variant.parameters]
    return found


def bundles(made: Deployer, workload: Workload) -> list[str]:
    return [made.world.revisions[revision].bundle for revision in workload.wants]


def test_a_deploy_a_rollback_and_a_split_take_it_along() -> None:
    async def scenario(made: Deployer) -> None:
        assert bundles(made, of(made)) == ["sha256-1"]
        line = await made.deploy(an_app("2"), str)
        assert (line.message, line.changes) == ("a deployed again: 1 workloads", (("Model", "changed"),))
        assert [url for _, url in line.urls] == ["http://127.0.0.1:1/call/a/Model.go"]
        assert bundles(made, of(made)) == ["sha256-2"]
        assert made.world.revisions[of(made).revision].needs.cpu == 0.2
        await made.traffic("default", "a", Traffic(((2, 70), (1, 30)), tags=(ByTag("old", 1),)), str)
        assert bundles(made, of(made)) == ["sha256-2", "sha256-1"]
        assert [(s.percent, s.tag) for s in of(made).splits] == [(30, ""), (0, "old")]
        version = await made.version("default", "a", 1)
        # What is gone back to is what was deployed: the variants are those of now.
        assert [workload.name for workload in version.app.workloads] == ["Model"]
        await made.deploy(version.app, str, "rollback to v1")
        assert (bundles(made, of(made)), of(made).splits, of(made).version) == (["sha256-1"], (), 3)

    play(scenario)


def test_what_one_of_them_cannot_have_any_more_is_in_nobodys_way() -> None:
    """Its secret was deleted (with --force): the app's traffic can be split, promoted and taken back all the same."""
    gone: set[str] = set()

    def check_named(app: App) -> None:
        if lacking := gone & {use.name for revision in app.revisions for use in revision.secrets}:
            raise SwellError("unknown_secret", f"There is no secret {min(lacking)}.", status=404)

    async def scenario() -> None:
        made = deployer(check_named)
        await made.deploy(an_app("1"), str)
        asked = NewVariant({"name": "x"}, Options(secrets=(SecretUse("default", "token"),)))
        await made.vary("default", "a", "Model", asked)
        gone.add("token")
        await made.deploy(an_app("2"), str)
        await made.traffic("default", "a", Traffic(((2, 70), (1, 30))), str)
        await made.withdraw("default", "a", str)
        await made.deploy(an_app("3"), str, strategy="blue-green")
        await made.promote("default", "a", str)
        assert bundles(made, of(made)) == ["sha256-3"]
        with pytest.raises(SwellError, match="There is no secret token"):
            await made.vary("default", "a", "Model", asked)

    asyncio.run(scenario())


def test_a_blue_green_deploy_makes_it_ready_too_and_the_promotion_moves_it() -> None:
    async def scenario(made: Deployer) -> None:
        await made.deploy(an_app("2"), str, strategy="blue-green")
        assert bundles(made, of(made)) == ["sha256-1", "sha256-2"]
        assert [(split.tag, split.warm) for split in of(made).splits] == [("green", True)]
        await made.promote("default", "a", str)
        assert bundles(made, of(made)) == ["sha256-2"]

    play(scenario)


def test_a_version_that_does_not_start_with_it_is_reached_and_says_why() -> None:
    """Its workload has the new version at once, and it goes on with the one before."""
    world = World(epoch=2)
    reactor = Reactor(world, Policy(), Prices())
    reactor.take(NodeSeen(1000.0, Node("n1", 8.0, 9000)))
    app = numbered(an_app("1"), 1)
    reactor.take(AppDeployed(1000.0, app))
    variant = Variants(world, reactor.take, {}, Clock(), MOST, KEEP_S).want(KEY, named("x"))
    reactor.take(ReplicaAdopted(1000.0, ReplicaSeen(1000.0, "r0-1", Phase.READY, variant.pool, "serving", "n1")))
    new = numbered(an_app("2"), 2)
    reactor.take(AppDeployed(1001.0, follow(world, varied(new, variants(world.apps[app.key])))))
    coming = world.workloads[variant.key].pool
    assert coming != variant.pool
    world.failures[coming] = Failures(9, 1001.0, "enter_error", "KeyError: 'x'")
    reactor.step(1001.0)
    rows = Routes(reactor.keeper.routes.values())

    def asked(version: str) -> str:
        found = route(rows, "localhost", f"/call/a{version}/Model.go", "name=x")
        assert isinstance(found, Found), found
        return found.pool

    assert (asked(""), asked("@v2")) == (variant.pool, coming)
    assert "KeyError: 'x'" in reactor.keeper.pools[coming].failing


def test_versions_of_the_same_revision_that_it_is_to_have_are_each_reached_with_it() -> None:
    world = World(epoch=2)
    reactor = Reactor(world, Policy(), Prices())
    reactor.take(NodeSeen(1000.0, Node("n1", 8.0, 9000)))
    reactor.take(AppDeployed(1000.0, numbered(an_app("1"), 1)))
    variant = Variants(world, reactor.take, {}, Clock(), MOST, KEEP_S).want(KEY, named("x"))
    reactor.take(ReplicaAdopted(1000.0, ReplicaSeen(1000.0, "r0-1", Phase.READY, variant.pool, "serving", "n1")))
    same = {number: numbered(an_app("2"), number) for number in (2, 3)}
    new = split(same[3], Traffic(tags=(ByTag("before", 2),)), same)
    reactor.take(AppDeployed(1001.0, follow(world, varied(new, variants(world.apps[new.key])))))
    reactor.step(1001.0)
    coming = world.workloads[variant.key].pool
    rows = Routes(reactor.keeper.routes.values())
    for version in ("v2", "v3", "before"):
        found = route(rows, "localhost", f"/call/a@{version}/Model.go", "name=x")
        assert isinstance(found, Found), found
        assert found.pool == coming != variant.pool


def test_one_that_new_code_cannot_have_is_forgotten() -> None:
    async def scenario(made: Deployer) -> None:
        await made.deploy(an_app("2", kind="int"), str)
        assert [workload.name for workload in made.world.workloads.values()] == ["Model"]
        with pytest.raises(SwellError, match='name is of type int, and "x" is of type str'):
            await made.vary("default", "a", "Model", NewVariant({"name": "x"}))

    play(scenario)


def test_its_scaling_is_its_own_until_the_next_deploy() -> None:
    async def scenario(made: Deployer) -> None:
        name = of(made).name
        assert (await made.rescale("default", "a", name, Rescale(min_replicas=2))).min_replicas == 2
        assert made.world.workloads[KEY].scaling.min_replicas == 0
        # A variant more changes nothing of it.
        await made.vary("default", "a", "Model", NewVariant({"name": "y"}))
        assert made.world.workloads[f"default/a/{name}"].scaling.min_replicas == 2
        await made.deploy(an_app("2"), str)
        assert made.world.workloads[f"default/a/{name}"].scaling.min_replicas == 0

    play(scenario)


def test_options_are_checked_as_a_deploy_is() -> None:
    async def scenario(made: Deployer) -> None:
        with pytest.raises(SwellError, match="has no power 'gpu'"):
            await made.vary("default", "a", "Model", NewVariant({"name": "x"}, Options(gpu=("L4",))))
        made.world.apply(NodeSeen(1000.0, Node("n1", 4.0, 4096)))
        # By the name that people know, not by the one that it has in paths.
        with pytest.raises(SwellError, match=r'^Model\(name="x"\)\.with_options\(cpu=10000\) can never be placed here'):
            await made.vary("default", "a", "Model", NewVariant({"name": "x"}, Options(cpu=10_000)))
        with pytest.raises(SwellError, match="There is no app 'b'"):
            await made.vary("default", "b", "Model", NewVariant())
        with pytest.raises(SwellError, match="Model needs name"):
            await made.vary("default", "a", "Model", NewVariant())
        assert of(made).variant == named("x", cpu=0.2)

    play(scenario)
