"""Does a rollback go to what had the traffic before, whatever was deployed and gone back to meanwhile?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.deployers import an_app as app_of
from control.deployers import plain
from swell.control.versions import before, numbered
from swell.model.environment import Environment
from swell.model.errors import SwellError
from swell.model.events import AppDeployed
from swell.model.failures import Failures
from swell.model.workload import App, Entry, Method, Owner, Revision, Scaling, Version, Workload

CONTENTS = 4
ROLLBACK = "rollback"


def an_app(content: int, number: int) -> App:
    entry = Entry("m", "f", "function", (Method("f"),))
    revision = Revision(Environment("/usr/bin/python3", "3.11"), f"sha256-{content}", entry)
    return numbered(App("default", "a", (Workload("default", "a", "f", revision.id),), (revision,)), number)


def content_of(app: App) -> int:
    return int(app.revisions[0].bundle.removeprefix("sha256-"))


class History:
    """An app that is deployed again and again; and, kept apart, what its callers were answered by."""

    def __init__(self) -> None:
        self.versions: list[Version] = []
        self.served: list[tuple[int, int]] = []
        """(version, content) of all that ever had the traffic, in that order."""

    @property
    def app(self) -> App:
        return self.versions[-1].app

    def deploy(self, content: int, starts: bool = True) -> None:
        number = len(self.versions) + 1
        over_served = not self.versions or self.served[-1:] == [(number - 1, content_of(self.app))]
        self.versions.append(
            Version(number, float(number), "deploy", "", an_app(content, number), number - 1, over_served)
        )
        if starts:
            self.served.append((number, content))

    def expected(self) -> int | None:
        now = (self.app.version, content_of(self.app))
        return next((number for number, content in reversed(self.served) if content != now[1]), None)

    def found(self) -> int | None:
        found = before(self.app, self.versions)
        return None if found is None else found.number


@given(st.lists(st.tuples(st.integers(0, CONTENTS - 1), st.booleans()) | st.just(ROLLBACK), min_size=1, max_size=15))
def test_it_goes_to_the_last_that_had_the_traffic_and_is_other(steps: Sequence[tuple[int, bool] | str]) -> None:
    it = History()
    it.deploy(0)
    for step in steps:
        assert it.found() == it.expected()
        if isinstance(step, tuple):
            it.deploy(*step)
        elif (to := it.expected()) is not None:
            it.deploy(content_of(it.versions[to - 1].app))
    assert it.found() == it.expected()


def test_one_that_never_had_the_traffic_is_passed_over() -> None:
    it = History()
    it.deploy(1)
    it.deploy(2, starts=False)
    assert it.found() == 1
    it.deploy(3)
    assert it.found() == 1


def test_a_rollback_is_rolled_back_by_another_one() -> None:
    it = History()
    for content in (1, 2, 3):
        it.deploy(content)
    went = []
    for _ in range(3):
        to = it.found()
        assert to is not None
        went.append(to)
        it.deploy(content_of(it.versions[to - 1].app))
    assert went == [2, 3, 4]


def test_of_what_an_earlier_swell_deployed_it_is_the_number_before() -> None:
    it = History()
    for content in (1, 2, 3):
        it.deploy(content)
    unknown = [msgspec.structs.replace(version, over=0) for version in it.versions]
    found = before(it.app, unknown)
    assert found is not None
    assert found.number == 2


def test_what_is_not_kept_any_more_is_not_gone_back_to() -> None:
    it = History()
    it.deploy(1)
    for _ in range(3):
        it.deploy(2, starts=False)
    assert it.found() == 1
    assert before(it.app, it.versions[1:]) is None


def test_each_deploy_is_a_version_that_can_be_gone_back_to() -> None:
    async def scenario() -> None:
        deployer = plain()

        async def deploy(bundle: str, **more: str) -> int:
            return (await deployer.deploy(app_of("one", bundle), lambda _line: None, **more)).version

        assert [await deploy("sha256-1"), await deploy("sha256-2", tag="b"), await deploy("sha256-2")] == [1, 2, 3]
        rows = await deployer.versions("default", "one")
        assert [(row.version, row.tag, row.current) for row in rows] == [(3, "", True), (2, "b", False), (1, "", False)]
        assert [row.changes for row in rows] == [(("f", "unchanged"),), (("f", "changed"),), (("f", "new"),)]
        # What is there already is nothing to go back to.
        assert (await deployer.version("default", "one", 0)).number == 1
        back = await deployer.version("default", "one", 1)
        assert (await deployer.deploy(back.app, lambda _line: None, "rollback to v1")).version == 4
        assert deployer.world.apps["default/one"].revisions == back.app.revisions
        assert {"sha256-1", "sha256-2"} <= await deployer.bundles()
        with pytest.raises(SwellError, match=r"v9 is not kept of app one\. There are: v1, v2, v3, v4\.") as missing:
            await deployer.version("default", "one", 9)
        assert (missing.value.code, missing.value.status) == ("unknown_version", 404)
        with pytest.raises(SwellError, match="There is no app 'two'"):
            await deployer.versions("default", "two")
        await deployer.stop_app("default", "one")
        assert await deploy("sha256-3") == 1

    asyncio.run(scenario())


def test_the_first_version_has_none_before_it_and_what_belongs_to_a_program_has_none() -> None:
    async def scenario() -> None:
        deployer = plain()
        await deployer.deploy(app_of("one", "sha256-1"), lambda _line: None)
        with pytest.raises(SwellError, match=r"No version that had the traffic before v1, .* is kept of app one\. "):
            await deployer.version("default", "one", 0)
        owned = msgspec.structs.replace(app_of("run", "sha256-1"), owner=Owner(1, 1))
        assert (await deployer.deploy(owned, lambda _line: None)).version == 0
        assert await deployer.versions("default", "run") == []

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["kept", "failing"])
def test_what_never_had_the_traffic_or_failed_to_start_is_not_gone_back_to(how: str) -> None:
    async def scenario() -> None:
        deployer = plain()
        world = deployer.world

        async def deploy(number: int) -> None:
            await deployer.deploy(app_of("one", f"sha256-{number}"), lambda _line: None)

        await deploy(1)
        old = world.workloads["default/one/f"]
        await deploy(2)
        if how == "kept":
            live = msgspec.structs.replace(
                world.apps["default/one"],
                previous=(old,),
                revisions=(*app_of("one", "sha256-1").revisions, *app_of("one", "sha256-2").revisions),
            )
            deployer.take(AppDeployed(time.time(), live))
            rows = await deployer.versions("default", "one")
            assert [(row.version, row.current, len(row.rolling)) for row in rows] == [(2, False, 1), (1, True, 0)]
            assert rows[0].rolling == ("f: v2 is starting; v1 serves until it is ready",)
        else:
            world.failures[world.workloads["default/one/f"].pool] = Failures(1, time.time(), "crashed", "no weights", 0)
        assert (await deployer.version("default", "one", 0)).number == 1
        await deploy(3)
        assert (await deployer.version("default", "one", 0)).number == 1
        await deploy(4)
        assert (await deployer.version("default", "one", 0)).number == 3

    asyncio.run(scenario())


def test_it_is_told_what_a_deploy_does_not_start() -> None:
    async def scenario() -> None:
        deployer = plain()
        app = app_of("one", "sha256-1", names=("f", "g"))
        kept = msgspec.structs.replace(app.workloads[0], scaling=Scaling(min_replicas=1))
        app = msgspec.structs.replace(app, workloads=(kept, app.workloads[1]))
        assert (await deployer.deploy(app, lambda _line: None)).asleep == ("g",)

    asyncio.run(scenario())
