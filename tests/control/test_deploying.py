"""What does a deploy promise? It is on disk when it is answered, or it never was; its source stays as long as it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any, Literal, cast

import msgspec
import pytest

from control.deployers import an_app, control, nothing_starts
from swell.control.clock import SystemClock
from swell.control.deploying import Deployer
from swell.control.sweeping import Sweeper
from swell.control.versions import changes, numbered
from swell.engines.fake import FakeEngine
from swell.model.call import Body, Call, Done, Work
from swell.model.environment import Environment
from swell.model.errors import SwellError
from swell.model.events import AppDeployed
from swell.model.node import Node
from swell.model.openai import Offer
from swell.model.orders import BuildReport
from swell.model.tensors import Tensor, Tensors
from swell.model.traffic import ByTag, Traffic
from swell.model.workload import App, Entry, Method, Owner, Revision, Scaling, Web, Workload
from swell.store import sqlite
from swell.store.blobs import BlobFolder
from swell.store.memory import MemoryStore
from swell.store.sqlite import SqliteStore
from swell.wire.api import Strategy


class SlowBuilds(FakeEngine):
    """Builds that take as long as the test likes."""

    def __init__(self) -> None:
        super().__init__(Node("n1", 4.0, 4096), time.time, nothing_starts, Random(1))
        self.building = asyncio.Event()
        self.go_on = asyncio.Event()

    async def build(self, revision: Revision, progress: Callable[[str], None]) -> BuildReport:
        self.building.set()
        await self.go_on.wait()
        return await super().build(revision, progress)


class LacksOne(FakeEngine):
    """Everything can be built but what has this source."""

    def __init__(self, bundle: str) -> None:
        super().__init__(Node("n1", 4.0, 4096), time.time, nothing_starts, Random(1))
        self.bundle = bundle

    async def build(self, revision: Revision, progress: Callable[[str], None]) -> BuildReport:
        if revision.bundle == self.bundle:
            return BuildReport(ok=False, error="import", message="No module named 'nox'")
        return await super().build(revision, progress)


async def put(blobs: BlobFolder, content: bytes) -> str:
    """A blob from last week; its digest."""

    async def whole() -> AsyncIterator[bytes]:
        yield content

    digest = "sha256-" + hashlib.sha256(content).hexdigest()
    await blobs.put(digest, whole())
    os.utime(blobs.path(digest), times=(time.time() - 7 * 86_400, time.time() - 7 * 86_400))
    return digest


def test_a_deploy_is_on_disk_when_it_is_answered_and_taken_back_when_it_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        store = SqliteStore(tmp_path / "control.db")
        deployer = control(FakeEngine(Node("n1", 4.0, 4096), time.time, nothing_starts, Random(1)), store)
        other = sqlite3.connect(tmp_path / "control.db", isolation_level=None)
        await deployer.deploy(an_app("one", "sha256-1"), lambda _line: None)
        assert other.execute("SELECT key FROM apps").fetchall() == [("default/one",)]
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SwellError, match="locked by another process"):
            await deployer.deploy(an_app("two", "sha256-2"), lambda _line: None)
        with pytest.raises(SwellError, match="locked by another process"):
            await deployer.stop_app("default", "one")
        assert [app.name for app in deployer.world.apps.values()] == ["one"]
        other.close()
        store.close()
        again = SqliteStore(tmp_path / "control.db")
        assert [app.name for app in again.world.apps()] == ["one"]
        again.close()

    monkeypatch.setattr(sqlite, "BUSY_S", 0.05)
    asyncio.run(scenario())


def test_a_power_that_the_engine_lacks_is_refused_before_anything_is_built() -> None:
    async def scenario() -> None:
        engine = SlowBuilds()
        deployer = control(engine, MemoryStore())
        with pytest.raises(SwellError, match="the fake engine has no power 'gpu'; ray has it") as refused:
            await deployer.deploy(an_app("one", "sha256-1", ("H100",)), lambda _line: None)
        assert (refused.value.code, refused.value.status) == ("not_available", 422)
        assert not engine.building.is_set()
        assert deployer.world.apps == {}

    asyncio.run(scenario())


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_of_several_functions_all_are_put_in_place_or_none(broken: int) -> None:
    def functions(word: str) -> App:
        entries = [Entry("m", name, "function", (Method(name),)) for name in "fgh"]
        revisions = [
            Revision(Environment("/usr/bin/python3", "3.11"), f"sha256-{word}{n}", entry)
            for n, entry in enumerate(entries)
        ]
        pairs = zip("fgh", revisions, strict=True)
        workloads = tuple(Workload("default", "one", name, revision.id) for name, revision in pairs)
        return App("default", "one", workloads, tuple(revisions))

    async def scenario() -> None:
        store = MemoryStore()
        deployer = control(LacksOne(f"sha256-new{broken}"), store)
        await deployer.deploy(functions("old"), lambda _line: None)
        before = deployer.world.apps["default/one"]
        with pytest.raises(SwellError, match="No module named 'nox'"):
            await deployer.deploy(functions("new"), lambda _line: None)
        assert deployer.world.apps["default/one"] == before
        assert {each.id for each in deployer.world.revisions.values()} == {each.id for each in before.revisions}
        assert [app.revisions for app in store.world.apps()] == [before.revisions]
        assert [row.version for row in await deployer.versions("default", "one")] == [1]
        await deployer.deploy(functions("mended"), lambda _line: None)
        after = deployer.world.apps["default/one"]
        assert {each.version for each in after.workloads} == {2}
        assert [each.bundle for each in after.revisions] == [f"sha256-mended{n}" for n in range(3)]

    asyncio.run(scenario())


def test_an_app_that_is_not_there_is_not_stopped_and_the_namespace_looked_into_is_named() -> None:
    async def scenario() -> None:
        deployer = control(FakeEngine(Node("n1", 4.0, 4096), time.time, nothing_starts, Random(1)), MemoryStore())
        await deployer.deploy(an_app("one", "sha256-1"), lambda _line: None)
        with pytest.raises(SwellError, match=r"There is no app 'x'\. There are: one\.$"):
            await deployer.stop_app("default", "x")
        with pytest.raises(SwellError, match=r"There is no app 'one' in namespace 'b'\. No app .* in namespace 'b'\.$"):
            await deployer.stop_app("b", "one")

    asyncio.run(scenario())


def test_source_goes_only_when_no_app_has_it_or_is_about_to(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine, blobs, nobody, store = SlowBuilds(), BlobFolder(tmp_path), cast(Any, None), MemoryStore()
        deployer = control(engine, store)
        sweep = Sweeper(deployer, store.call_records, blobs, nobody, nobody, SystemClock()).sweep_blobs
        one, other, nobodys = [await put(blobs, word) for word in (b"one", b"other", b"nobody's")]
        deploying = asyncio.create_task(deployer.deploy(an_app("one", one), lambda _line: None))
        await engine.building.wait()
        await sweep()
        assert sorted(os.listdir(tmp_path)) == sorted({one}), "of a deploy under way, and no other"
        engine.go_on.set()
        await deploying
        await put(blobs, b"nobody's")
        await put(blobs, b"other")
        await deployer.deploy(an_app("other", other), lambda _line: None)
        await sweep()
        assert sorted(os.listdir(tmp_path)) == sorted({one, other}), "of what is deployed"
        await deployer.stop_app("default", "one")
        await sweep()
        assert sorted(os.listdir(tmp_path)) == [other], "of what is deployed still"
        assert nobodys not in await deployer.bundles()

    asyncio.run(scenario())


class NoVolumes:
    """Nor anything in one."""

    def __init__(self) -> None:
        self.swept = 0

    def known(self) -> bool:
        return False

    async def sweep(self, _before: float) -> int:
        self.swept += 1
        return 0


def test_source_goes_from_a_state_that_names_any_file_at_all_if_only_for_a_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock, blobs, store, nobody = SystemClock(), BlobFolder(tmp_path), MemoryStore(), cast(Any, None)
        volumes = NoVolumes()
        sweeper = Sweeper(control(SlowBuilds(), store), store.call_records, blobs, nobody, cast(Any, volumes), clock)
        now, nobodys = clock.now(), await put(blobs, b"nobody's")
        store.calls.add([Work(Call("fc-1", "default/a/f", "f", now, now), Body("x", b"1"))])
        store.calls.lease("default/a/f", 1, now, 5, "r1-1", "default/a/f@rv-1")
        await sweeper.sweep_blobs()
        await sweeper.sweep_volumes()
        assert (os.listdir(tmp_path), volumes.swept) == ([nobodys], 0)
        store.calls.finish([Done("fc-1", 5, now, Body("x", digest=nobodys))])
        await sweeper.sweep_blobs()
        await sweeper.sweep_volumes()
        assert (os.listdir(tmp_path), volumes.swept) == ([], 1)

    asyncio.run(scenario())


def test_a_state_that_names_nothing_at_all_removes_nothing(tmp_path: Path) -> None:
    """It may have lost what it named: files can be removed later, too."""

    async def scenario() -> None:
        blobs, store, nobody, volumes = BlobFolder(tmp_path), MemoryStore(), cast(Any, None), NoVolumes()
        deployer = control(SlowBuilds(), store)
        sweeper = Sweeper(deployer, store.call_records, blobs, nobody, cast(Any, volumes), SystemClock())
        nobodys = await put(blobs, b"nobody's")
        await sweeper.sweep_blobs()
        await sweeper.sweep_volumes()
        assert (os.listdir(tmp_path), volumes.swept) == ([nobodys], 0)

    asyncio.run(scenario())


def test_of_two_deploys_at_once_each_is_answered_with_its_own_version() -> None:
    async def scenario() -> None:
        deployer = control(FakeEngine(Node("n1", 4.0, 4096), time.time, nothing_starts, Random(1)), MemoryStore())
        apps = [an_app("one", f"sha256-{n}") for n in range(8)]
        done = await asyncio.gather(*(deployer.deploy(app, lambda _line: None, tag=app.name) for app in apps))
        assert sorted(line.version for line in done) == list(range(1, 9))

    asyncio.run(scenario())


def shares(deployer: Deployer, name: str = "f") -> dict[int, float]:
    """Version → percent of the traffic of a function of the app."""
    (workload,) = (each for each in deployer.world.apps["default/one"].workloads if each.name == name)
    beside = {each.version: each.percent for each in workload.splits}
    return {workload.version: 100 - sum(beside.values()), **beside}


def test_each_version_that_is_named_has_its_share_whatever_other_functions_have() -> None:
    async def scenario() -> None:
        deployer = control(FakeEngine(Node("n1", 4.0, 4096), time.time, nothing_starts, Random(1)), MemoryStore())
        for bundle in ("sha256-1", "sha256-2"):
            await deployer.deploy(an_app("one", bundle, names=("f", "g")), lambda _line: None)
        await deployer.traffic("default", "one", Traffic(((1, 100),), function="f"), lambda _line: None)
        assert (shares(deployer, "f"), shares(deployer, "g")) == ({1: 100}, {2: 100})
        await deployer.traffic("default", "one", Traffic(((1, 30), (2, 70))), lambda _line: None)
        assert (shares(deployer, "f"), shares(deployer, "g")) == ({1: 30, 2: 70}, {2: 70, 1: 30})

    asyncio.run(scenario())


def test_what_had_the_traffic_has_the_share_it_was_given_though_another_deploy_came_meanwhile() -> None:
    async def scenario() -> None:
        engine = SlowBuilds()
        engine.go_on.set()
        deployer = control(engine, MemoryStore())
        for bundle in ("sha256-1", "sha256-2"):
            await deployer.deploy(an_app("one", bundle), lambda _line: None, strategy="recreate")
        engine.go_on.clear()
        engine.building.clear()
        asked = Traffic(((1, 30), (2, 70)))
        splitting = asyncio.create_task(deployer.traffic("default", "one", asked, lambda _line: None))
        await engine.building.wait()
        deployer.take(AppDeployed(time.time(), numbered(an_app("one", "sha256-3"), 3)))
        engine.go_on.set()
        await splitting
        assert shares(deployer) == {1: 30, 2: 70}

    asyncio.run(scenario())


def test_an_app_of_before_there_were_versions_is_split_as_it_is() -> None:
    async def scenario() -> None:
        deployer = control(FakeEngine(Node("n1", 4.0, 4096), time.time, nothing_starts, Random(1)), MemoryStore())
        deployer.take(AppDeployed(time.time(), an_app("one", "sha256-1")))
        await deployer.traffic("default", "one", Traffic(tags=(ByTag("old", 1),)), lambda _line: None)
        (workload,) = deployer.world.apps["default/one"].workloads
        assert [(each.version, each.tag) for each in workload.splits] == [(1, "old")]

    asyncio.run(scenario())


def test_what_several_functions_import_is_imported_in_the_longest_time_that_one_of_them_has() -> None:
    async def scenario() -> None:
        class Builds(FakeEngine):
            async def build(self, revision: Revision, progress: Callable[[str], None]) -> BuildReport:
                built.append((revision.entry.qualname, revision.startup_timeout_s))
                return await super().build(revision, progress)

        built: list[tuple[str, float]] = []
        deployer = control(Builds(Node("n1", 4.0, 4096), time.time, nothing_starts, Random(1)), MemoryStore())
        app = an_app("one", "sha256-1", names=("f", "g", "h"))
        slow = msgspec.structs.replace(app.revisions[1], startup_timeout_s=900.0)
        revisions = (app.revisions[0], slow, app.revisions[2])
        workloads = tuple(
            msgspec.structs.replace(workload, revision=revision.id)
            for workload, revision in zip(app.workloads, revisions, strict=True)
        )
        whole = msgspec.structs.replace(app, workloads=workloads, revisions=revisions)
        await deployer.deploy(whole, lambda _line: None)
        assert built == [("g", 900.0)]

    asyncio.run(scenario())


def test_a_split_that_ends_for_want_of_shares_is_told() -> None:
    async def scenario() -> None:
        deployer = control(FakeEngine(Node("n1", 4.0, 4096), time.time, nothing_starts, Random(1)), MemoryStore())
        for bundle in ("sha256-1", "sha256-2"):
            await deployer.deploy(an_app("one", bundle, names=("f", "g")), lambda _line: None)

        async def notes(asked: Traffic) -> tuple[str, ...]:
            return (await deployer.traffic("default", "one", asked, lambda _line: None)).notes

        assert await notes(Traffic(((1, 30), (2, 70)), function="f")) == ()
        assert await notes(Traffic(tags=(ByTag("old", 1),), function="g")) == ()
        assert shares(deployer) == {2: 70, 1: 30}
        told = "f is split no more, since no shares were named: v2 has all of its traffic, and had 70%"
        assert await notes(Traffic(tags=(ByTag("old", 1),))) == (told,)
        assert await notes(Traffic(hash_header="X-User")) == ()

    asyncio.run(scenario())


def test_what_another_deploy_put_away_meanwhile_is_not_promoted() -> None:
    async def scenario() -> None:
        engine = SlowBuilds()
        engine.go_on.set()
        deployer = control(engine, MemoryStore())

        async def deploy(bundle: str, strategy: Strategy = "recreate") -> None:
            await deployer.deploy(an_app("one", bundle), lambda _line: None, strategy=strategy)

        await deploy("sha256-1")
        await deploy("sha256-2", "blue-green")
        # Its environment was removed, and is made again: that takes long.
        engine.go_on.clear()
        engine.building.clear()
        promoting = asyncio.create_task(deployer.promote("default", "one", lambda _line: None))
        await engine.building.wait()
        deployer.take(AppDeployed(time.time(), numbered(an_app("one", "sha256-3"), 3)))
        engine.go_on.set()
        with pytest.raises(SwellError, match="No version of one is made ready beside v3") as refused:
            await promoting
        assert (refused.value.code, refused.value.status) == ("nothing_staged", 409)
        assert deployer.world.apps["default/one"].version == 3

    asyncio.run(scenario())


def test_what_belongs_to_a_program_replaces_only_what_belongs_to_it() -> None:
    async def scenario() -> None:
        deployer = control(FakeEngine(Node("n1", 4.0, 4096), time.time, nothing_starts, Random(1)), MemoryStore())
        mine = msgspec.structs.replace(an_app("dev", "sha256-1"), owner=Owner(1, 1))
        await deployer.deploy(mine, lambda _line: None)
        await deployer.deploy(msgspec.structs.replace(mine, tags=(("t", "2"),)), lambda _line: None)
        for other in (Owner(2, 1), Owner(1, 2)):
            with pytest.raises(SwellError, match="dev belongs to another program that runs") as refused:
                await deployer.deploy(msgspec.structs.replace(mine, owner=other), lambda _line: None)
            assert (refused.value.code, refused.value.status) == ("app_taken", 409)
        assert deployer.world.apps["default/dev"].tags == (("t", "2"),)
        await deployer.deploy(an_app("dev", "sha256-1"), lambda _line: None)
        with pytest.raises(SwellError, match=r"App dev is deployed\. .* `swell app stop dev`"):
            await deployer.deploy(mine, lambda _line: None)

    asyncio.run(scenario())


def a_model(namespace: str, app: str, *functions: str, method: str = "") -> App:
    """Functions that take arrays, or (`method`) classes with such a method."""
    taken = Tensors((Tensor("x", "FP32", (-1,)),), ())
    kind: Literal["function", "cls"] = "cls" if method else "function"
    entries = [Entry("m", name, kind, (Method(method or name, tensors=taken),)) for name in functions]
    revisions = [Revision(Environment("/usr/bin/python3", "3.11"), "sha256-1", entry) for entry in entries]
    pairs = zip(functions, revisions, strict=True)
    workloads = tuple(Workload(namespace, app, name, revision.id) for name, revision in pairs)
    return App(namespace, app, workloads, tuple(revisions))


def both(app: App, other: App) -> App:
    return msgspec.structs.replace(
        app, workloads=app.workloads + other.workloads, revisions=app.revisions + other.revisions
    )


@pytest.mark.parametrize(
    ("there", "taker"),
    [
        (a_model("prod", "ocr", "read"), a_model("default", "prod", "ocr--read")),
        (a_model("default", "a", "b--c"), a_model("default", "a--b", "c")),
        (a_model("default", "a--C", "m"), a_model("default", "a", "C--m")),
        (a_model("default", "a", "x--C", method="m"), a_model("default", "a--x", "C-m")),
    ],
)
def test_an_app_cannot_take_the_model_of_another_whatever_dashes_its_names_have(there: App, taker: App) -> None:
    async def scenario() -> None:
        deployer = control(FakeEngine(Node("n1", 4.0, 4096), time.time, nothing_starts, Random(1)), MemoryStore())
        await deployer.deploy(there, lambda _line: None)
        with pytest.raises(SwellError, match=r"The model '.*' belongs to app .*`swell app stop") as refused:
            await deployer.deploy(taker, lambda _line: None)
        assert (refused.value.code, refused.value.status) == ("model_taken", 409)
        await deployer.deploy(there, lambda _line: None)

    asyncio.run(scenario())


def test_whose_name_is_taken_is_said_as_the_commands_take_it() -> None:
    async def scenario() -> None:
        deployer = control(FakeEngine(Node("n1", 4.0, 4096), time.time, nothing_starts, Random(1)), MemoryStore())
        web = Method("f", web=Web("endpoint", "page"))
        model = Method("f", openai=Offer("chat.completions", "tiny"))
        for method, what in ((web, "web label 'page'"), (model, "model 'tiny' of chat.completions")):
            await deployer.deploy(with_method(an_app("there", "sha256-1"), "prod", method), lambda _line: None)
            with pytest.raises(
                SwellError, match=f"The {what} belongs to app 'prod/there'.*`swell app stop prod/there`"
            ):
                await deployer.deploy(with_method(an_app("taker", "sha256-1"), "default", method), lambda _line: None)
            await deployer.stop_app("prod", "there")

    asyncio.run(scenario())


def with_method(app: App, namespace: str, method: Method) -> App:
    """The app there, with this method alone."""
    entry = Entry("m", "f", "function", (method,))
    (revision,) = (msgspec.structs.replace(each, entry=entry) for each in app.revisions)
    return App(namespace, app.name, (Workload(namespace, app.name, "f", revision.id),), (revision,))


def test_two_methods_of_an_app_cannot_be_one_model() -> None:
    async def scenario() -> None:
        deployer = control(FakeEngine(Node("n1", 4.0, 4096), time.time, nothing_starts, Random(1)), MemoryStore())
        app = both(a_model("default", "a", "C-m"), a_model("default", "a", "C", method="m"))
        with pytest.raises(SwellError, match=r"C-m and C\.m would both be the model 'a--C-m'"):
            await deployer.deploy(app, lambda _line: None)

    asyncio.run(scenario())


def test_nothing_is_kept_of_an_app_that_is_stopped() -> None:
    async def scenario() -> None:
        deployer = control(FakeEngine(Node("n1", 4.0, 4096), time.time, nothing_starts, Random(1)), MemoryStore())
        await deployer.deploy(an_app("one", "sha256-1"), lambda _line: None)
        assert deployer.deployed_at["default/one"] > 0
        await deployer.stop_app("default", "one")
        assert (deployer.world.apps, deployer.deployed_at) == ({}, {})

    asyncio.run(scenario())


def app(*workloads: Workload) -> App:
    return App("default", "a", workloads, ())


def workload(name: str, revision: str = "rv-1", most: int = 1) -> Workload:
    return Workload("default", "a", name, revision, Scaling(max_replicas=most))


def test_a_first_deploy_is_all_new() -> None:
    assert changes(None, app(workload("g"), workload("f"))) == [("f", "new"), ("g", "new")]


def test_a_later_one_tells_what_it_does_to_each() -> None:
    before = app(workload("code"), workload("gone"), workload("same"), workload("scale"))
    after = app(workload("same"), workload("code", "rv-2"), workload("scale", most=2), workload("more"))
    assert changes(before, after) == [
        ("code", "changed"),
        ("gone", "removed"),
        ("more", "new"),
        ("same", "unchanged"),
        ("scale", "changed"),
    ]
