"""What becomes of an app whose workloads are also wanted with other parameters and options?"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decide.worlds import Setting
from swell.control.versions import numbered
from swell.decide.check import check
from swell.decide.roll import follow
from swell.decide.route import Found, NoRoute, Routes, Unmade, route
from swell.decide.traffic import split
from swell.decide.variants import (
    Known,
    bare,
    derived,
    forgotten,
    given_up,
    problems,
    variants,
    varied,
    varied_workload,
)
from swell.model.demand import IDLE, seen
from swell.model.environment import Environment
from swell.model.errors import SwellError
from swell.model.events import AppDeployed, NodeSeen, ReplicaSeen, VariantsSet
from swell.model.node import Node
from swell.model.openai import Offer
from swell.model.replica import Phase
from swell.model.resources import Needs
from swell.model.traffic import Traffic
from swell.model.variant import Parameter, Value
from swell.model.workload import (
    App,
    Batch,
    Entry,
    Method,
    Options,
    Revision,
    Scaling,
    Variant,
    Web,
    Workload,
    revision_id,
    workload_of,
)
from swell.model.world import World
from swell.wire.link import Route


def version(number: int, *parameters: str, bundle: str = "", **more: Any) -> App:
    """An app of a class with these parameters, all texts, and of a function."""
    entry = Entry("m", "Model", "cls", (Method("predict"),), parameters=tuple(Parameter(p, "str") for p in parameters))
    model = Revision(Environment("/usr/bin/python3", "3.11"), bundle or str(number), entry, **more)
    plain = Revision(model.environment, bundle or str(number), Entry("m", "f", "function", (Method("f"),)))
    workloads = (
        Workload("default", "a", "Model", model.id, Scaling(min_replicas=2, idle_s=7.0)),
        Workload("default", "a", "f", plain.id),
    )
    return numbered(App("default", "a", workloads, (model, plain)), number)


def with_name(text: str, **options: Any) -> Variant:
    return Variant((Value("name", "str", text),), Options(**options))


EMBEDDINGS = Offer("embeddings", "e")
V1, V2 = version(1, "name"), version(2, "name")
names = st.lists(st.text(max_size=3), unique=True, max_size=4)
options = st.builds(
    Options,
    cpu=st.none() | st.floats(0.1, 9),
    memory_mib=st.none() | st.integers(1, 999),
    variables=st.just(()) | st.just((("A", "1"),)),
    max_replicas=st.none() | st.integers(1, 9),
    timeout_s=st.none() | st.floats(1, 99),
    max_inputs=st.none() | st.integers(1, 9),
)


@given(names, options)
def test_an_app_with_variants_is_the_app_and_a_workload_for_each(texts: list[str], chosen: Options) -> None:
    wanted = [("Model", Variant((Value("name", "str", text),), chosen)) for text in texts]
    app = varied(V1, wanted)
    assert bare(app) == V1
    assert variants(app) == wanted
    assert len({workload.pool for workload in app.workloads}) == 2 + len(texts)
    revisions = {revision.id: revision for revision in app.revisions}
    assert len(revisions) == len(app.revisions)
    for workload in app.workloads[2:]:
        assert workload.scaling.min_replicas == 0
        assert workload.scaling.idle_s == 7.0
        assert revisions[workload.revision].parameters == workload.variant.parameters
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(workload), type=Workload) == workload
    # Once more, of the app with them, and in any order: the same.
    assert {w.pool for w in varied(bare(app), variants(app)[::-1]).workloads} == {w.pool for w in app.workloads}


def test_what_has_no_variants_is_left_as_it_is() -> None:
    assert bare(V1) is V1
    assert varied(V1, []) is V1
    assert varied(V1, [("gone", with_name("x")), ("f", with_name("x"))]) is V1


def test_an_old_revision_keeps_its_id() -> None:
    plain = V1.revisions[1]
    assert "parameters" not in str(msgspec.msgpack.encode(msgspec.to_builtins(plain.entry.methods)))
    assert revision_id(derived(plain, Variant())) == plain.id


def test_options_are_in_the_revision_and_the_scaling() -> None:
    chosen = with_name(
        "x",
        cpu=2.0,
        memory_mib=64,
        memory_limit_mib=96,
        gpu=("L4",),
        variables=(("B", "2"), ("A", "3")),
        timeout_s=9.0,
        max_replicas=4,
        buffer_replicas=1,
        idle_s=3.0,
        max_inputs=8,
        target_inputs=4,
    )
    base = msgspec.structs.replace(
        V1.revisions[0],
        environment=Environment("/usr/bin/python3", "3.11", variables=(("A", "1"), ("C", "1"))),
        needs=msgspec.structs.replace(V1.revisions[0].needs, cpu=0.5, cpu_limit=1.0, ports=(80,)),
    )
    made = derived(base, chosen)
    assert (made.needs.cpu, made.needs.cpu_limit, made.needs.memory_limit_mib) == (2.0, None, 96)
    assert (made.needs.gpu, made.needs.ports) == (("L4",), (80,))
    assert made.environment.variables == (("A", "3"), ("B", "2"), ("C", "1"))
    assert (made.timeout_s, made.max_inputs, made.target_inputs) == (9.0, 8, 4)
    found = varied_workload(V1.workloads[0], chosen, {V1.workloads[0].revision: base})
    assert found is not None
    assert found[0].scaling == Scaling(0, 4, 1, 3.0)


@pytest.mark.parametrize(
    ("before", "batch", "inputs"),
    [
        ({}, Batch(4, 10), (8, 4)),
        ({"max_inputs": 16, "target_inputs": 8, "batch": Batch(8, 5)}, Batch(4, 10), (8, 4)),
        ({"max_inputs": 40, "target_inputs": 40, "batch": Batch(8, 5)}, Batch(4, 10), (40, 40)),
        ({"max_inputs": 40, "target_inputs": 20, "batch": Batch(8, 5)}, Batch(64, 10), (128, 20)),
    ],
)
def test_a_batch_of_another_size_has_room_and_what_the_author_gave_stays(
    before: dict[str, Any], batch: Batch, inputs: tuple[int, int]
) -> None:
    own = Batch(*msgspec.structs.astuple(before.pop("batch"))) if "batch" in before else None
    entry = Entry("m", "f", "function", (Method("f", batch=own),))
    revision = Revision(Environment("/usr/bin/python3", "3.11"), "b", entry, **before)
    made = derived(revision, Variant(options=Options(batch=batch)))
    assert (made.batch, made.max_inputs, made.target_inputs) == (batch, *inputs)
    assert problems(Variant(options=Options(batch=batch)), V1.workloads[1], revision) == []


def test_a_model_that_is_batched_may_be_so_by_another_size() -> None:
    method = Method("m", openai=EMBEDDINGS, batch=Batch(8, 5))
    entry = msgspec.structs.replace(V1.revisions[0].entry, methods=(method,))
    revision = msgspec.structs.replace(V1.revisions[0], entry=entry, max_inputs=16, target_inputs=8)
    chosen = with_name("x", batch=Batch(2, 5))
    assert problems(chosen, V1.workloads[0], revision) == []
    assert derived(revision, chosen).entry.methods[0].openai == EMBEDDINGS


@pytest.mark.parametrize(
    ("variant", "methods", "words"),
    [
        (Variant(), (Method("m"),), "it needs name"),
        (Variant((Value("name", "int", "1"),)), (Method("m"),), "name is of type str, not int"),
        (Variant((Value("x", "str", ""),)), (Method("m"),), "there is no parameter x"),
        (with_name("x", batch=Batch(4, 1)), (Method("m"), Method("n")), "for what has one method"),
        (with_name("x", batch=Batch(4, 1)), (Method("m", generator=True),), "cannot be batched"),
        (with_name("x", batch=Batch(4, 1)), (Method("m", web=Web("asgi", "l")),), "cannot be batched"),
        (with_name("x", batch=Batch(4, 1)), (Method("m", openai=EMBEDDINGS),), "m is a model, and is batched where"),
        (with_name("x", batch=Batch(4, 1), max_inputs=7), (Method("m"),), "give at least 8"),
        (with_name("x", max_inputs=3), (Method("m", batch=Batch(2, 1)),), "give at least 4"),
        (with_name("x", target_inputs=3), (Method("m"),), "target_inputs= goes with max_inputs="),
        (with_name("x", timeout_max_s=299.0), (Method("m"),), "timeout_max=299 is below timeout=300, which a call has"),
        (with_name("x", timeout_max_s=900.0), (Method("m", web=Web("asgi", "l")),), "which a web endpoint does not"),
    ],
)
def test_what_cannot_be_had_is_said_and_never_made(variant: Variant, methods: tuple[Method, ...], words: str) -> None:
    entry = msgspec.structs.replace(V1.revisions[0].entry, methods=methods)
    revision = msgspec.structs.replace(V1.revisions[0], entry=entry)
    workload = msgspec.structs.replace(V1.workloads[0], revision=revision.id)
    assert words in "; ".join(problems(variant, workload, revision))
    assert varied_workload(workload, variant, {revision.id: revision}) is None


def test_a_time_by_progress_is_not_lost_to_a_longer_time_unsaid() -> None:
    revision = msgspec.structs.replace(V1.revisions[0], timeout_s=100.0, timeout_max_s=200.0)
    (words,) = problems(with_name("x", timeout_s=201.0), V1.workloads[0], revision)
    assert "timeout_max=200 is below timeout=201" in words
    for options in ({"timeout_s": 200.0}, {"timeout_s": 300.0, "timeout_max_s": 400.0}, {"timeout_max_s": 0.0}):
        assert problems(with_name("x", **options), V1.workloads[0], revision) == []


# -- with versions -------------------------------------------------------------------------------


def test_a_variant_goes_with_the_versions_that_its_workload_has() -> None:
    """With a split each version has its own revision of it; one that cannot have it gets none of its requests."""
    old = version(3, "name", "size")
    live = varied(split(V1, Traffic(((1, 60), (2, 40))), {2: V2}), [("Model", with_name("x"))])
    model, made = live.workloads[0], live.workloads[2]
    assert [s.percent for s in made.splits] == [s.percent for s in model.splits] == [40]
    assert {*made.wants}.isdisjoint(model.wants)
    assert len(made.wants) == 2
    assert bare(live) == split(V1, Traffic(((1, 60), (2, 40))), {2: V2})
    beside = varied(split(V1, Traffic(((1, 60), (3, 40))), {3: old}), [("Model", with_name("x"))])
    assert beside.workloads[2].splits == ()
    # One that lacks what the main version has no variant at all.
    assert varied(old, [("Model", with_name("x"))]) is old


def test_a_world_takes_variants_in_beside_what_runs_and_lets_them_go() -> None:
    world = World(epoch=1)
    world.apply(AppDeployed(1.0, V1))
    made = varied_workload(V1.workloads[0], with_name("x"), world.revisions)
    assert made is not None
    touched = world.apply(VariantsSet(2.0, "default", "a", (made[0],), made[1]))
    assert touched == (made[0].pool,)
    assert world.workload(made[0].pool) == made[0]
    assert world.revision(made[0].pool) == made[1][0]
    assert world.apps["default/a"] == varied(V1, [("Model", with_name("x"))])
    # The next deploy has it, of its own revision; nothing runs, so it takes over at once.
    world.apply(AppDeployed(3.0, follow(world, varied(V2, variants(world.apps["default/a"])))))
    assert world.workload(made[0].pool) is None
    assert made[1][0].id not in world.revisions
    (again,) = [w for w in world.workloads.values() if w.base == "Model" and w.variant.parameters]
    world.apply(VariantsSet(4.0, "default", "a", removed=(again.name,)))
    assert world.apps["default/a"] == V2
    assert {*world.revisions} == {revision.id for revision in V2.revisions}
    assert world.apply(VariantsSet(5.0, "default", "gone", removed=("x",))) == ()


# -- routes --------------------------------------------------------------------------------------


def row(workload: Workload, app: App, **more: Any) -> Route:
    entry = {r.id: r for r in app.revisions}[workload.revision].entry
    told = () if workload.variant.parameters else entry.parameters
    return Route(
        "default", "a", workload.name, workload.pool, entry.methods, entry.kind == "cls", parameters=told, **more
    )


def routes(app: App) -> Routes:
    return Routes([row(workload, app) for workload in app.workloads])


KNOWN = routes(varied(V1, [("Model", with_name("a b"))]))


def go(path: str, query: str = "", known: Routes = KNOWN) -> Any:
    return route(known, "localhost", path, query)


def test_parameters_in_the_query_lead_to_their_pool() -> None:
    found = go("/call/a/Model.predict", "name=a+b")
    assert isinstance(found, Found)
    assert found == go("/call/a/Model.predict", "name=a%20b")
    assert found.workload == "default/a/Model" + with_name("a b").name
    assert go("/call/a/Model" + with_name("a b").name + ".predict") == found
    asked = go("/call/a/Model.predict", "name=new")
    assert isinstance(asked, Unmade)
    assert (asked.workload, asked.key) == ("default/a/Model", "default/a/Model" + with_name("new").name)


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        ("/call/a/Model.predict", "", "missing_parameter"),
        ("/call/a/Model.predict", "nam=x", "unknown_parameter"),
        ("/call/a/Model.predict", "name=x&name=y", "bad_parameter"),
        ("/call/a/Model~0123456789ab.predict", "", "unknown_variant"),
        ("/call/a/f~0123456789ab", "", "unknown_variant"),
        ("/call/a/Model" + with_name("a b").name + ".predict", "name=x", "unknown_parameter"),
        ("/call/a/Nothing~0123456789ab.predict", "", "unknown_function"),
    ],
)
def test_what_is_wrong_with_them_is_told(path: str, query: str, code: str) -> None:
    found = go(path, query)
    assert isinstance(found, NoRoute)
    assert found.code == code


def test_names_of_variants_are_not_offered_and_a_functions_query_is_its_own() -> None:
    found = go("/call/a/Nothing")
    assert isinstance(found, NoRoute)
    assert "~" not in found.message
    assert go("/call/a/f", "x=1") == go("/call/a/f")


def test_a_web_endpoint_keeps_what_is_not_a_parameter() -> None:
    methods = (Method("page", web=Web("asgi", "a--page")),)
    declared = (Parameter("name", "str"),)
    base = Route("default", "a", "Site", "default/a/Site@rv-1", methods, True, parameters=declared)
    name = "Site" + with_name("x").name
    known = Routes([base, Route("default", "a", name, f"default/a/{name}@rv-2", methods, True)])
    found = go("/web/a--page/x", "q=%2B&name=x&r=1", known)
    assert isinstance(found, Found)
    assert (found.pool, found.query, found.path) == (f"default/a/{name}@rv-2", "q=%2B&r=1", "/x")
    assert isinstance(go("/web/a--page/x", "name=y", known), Unmade)
    missing = go("/web/a--page/x", "q=1", known)
    assert isinstance(missing, NoRoute)
    assert missing.code == "missing_parameter"


# -- how many ------------------------------------------------------------------------------------

known = st.lists(
    st.builds(Known, st.uuids().map(str), st.floats(0, 100), st.booleans(), st.booleans()), unique_by=lambda k: k.key
)


@given(known, st.integers(1, 9))
def test_one_more_takes_the_place_of_the_longest_unused_or_is_refused(there: list[Known], most: int) -> None:
    idle = sorted(each.used_at for each in there if each.idle)
    if len(there) - len(idle) >= most:
        with pytest.raises(SwellError, match="a/Model is in use with") as refused:
            given_up(there, most, "a/Model")
        assert (refused.value.code, refused.value.status) == ("too_many_variants", 429)
        return
    gone = given_up(there, most, "a/Model")
    assert len(there) - len(gone) + 1 <= most
    assert all(each.idle for each in gone)
    assert [each.used_at for each in gone] == idle[: len(gone)]
    assert len(gone) == max(len(there) + 1 - most, 0)


@given(known, st.floats(0, 50))
def test_only_what_is_at_zero_for_long_is_forgotten(there: list[Known], keep_s: float) -> None:
    gone = forgotten(there, keep_s, 60.0)
    assert gone == [each.key for each in there if each.zero and each.used_at + keep_s <= 60.0]


# -- in a world that lives -----------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["want", "forget", "deploy", "call", "leave", "ready", "later"]),
        st.sampled_from("abc"),
        st.integers(1, 2),
    ),
    max_size=25,
)


@given(STEPS)
def test_whatever_comes_and_goes_the_world_holds_and_ends_at_zero(steps: list[tuple[str, str, int]]) -> None:
    it = Setting()
    it.world.apply(NodeSeen(it.now, Node("n1", 64.0, 64_000)))
    versions = [version(n, "name", needs=Needs(0.1, 32)) for n in (1, 2)]
    it.world.apply(AppDeployed(it.now, versions[0]))
    for what, text, number in steps:
        _happens(it, versions, what, text, number)
        it.step()
        assert check(it.world) == []
        # Each is made of what is deployed, however it came to be.
        app = it.world.apps["default/a"]
        assert {w.pool for w in varied(bare(app), variants(app)).workloads} == {w.pool for w in app.workloads}
    for pool in [*it.demand]:
        it.demand[pool] = seen(it.demand[pool], 0, 0, 0, it.now)
    names = tuple(w.name for w in it.world.apps["default/a"].workloads if w.variant.parameters)
    it.world.apply(VariantsSet(it.now, "default", "a", removed=names))
    for _ in range(4):
        it.step()
        _ready(it)
        it.now += 100
    gone = {workload_of(pool) for pool in it.world.by_pool} - {"default/a/Model", "default/a/f"}
    assert not gone
    assert {*it.world.revisions} == {r.id for r in it.world.apps["default/a"].revisions}


def _happens(it: Setting, versions: list[App], what: str, text: str, number: int) -> None:
    world = it.world
    key = "default/a/Model" + with_name(text).name
    match what:
        case "want" if key not in world.workloads:
            made = varied_workload(world.workloads["default/a/Model"], with_name(text), world.revisions)
            assert made is not None
            world.apply(VariantsSet(it.now, "default", "a", (made[0],), made[1]))
        case "forget":
            world.apply(VariantsSet(it.now, "default", "a", removed=(key.rpartition("/")[2],)))
        case "deploy":
            app = varied(versions[number - 1], variants(world.apps["default/a"]))
            world.apply(AppDeployed(it.now, follow(world, app)))
        case "call" | "leave" if key in world.workloads:
            serving = world.serving(key)
            assert serving is not None
            before = it.demand.get(serving.pool, IDLE)
            it.demand[serving.pool] = seen(before, number if what == "call" else 0, 0, 0, it.now)
        case "ready":
            _ready(it)
        case "later":
            it.now += 5.0 * number


def _ready(it: Setting) -> None:
    """All that start are there, and all that were to end have."""
    for replica in [*it.world.replicas.values()]:
        phase = Phase.GONE if replica.phase is Phase.DRAINING else Phase.READY
        if replica.may_become(phase):
            at = ("n1", 7, f"unix:/{replica.id}")
            it.world.apply(ReplicaSeen(it.now, replica.id, phase, replica.pool, replica.role, *at))
