"""Which source does control still need? What is deployed, what runs, and what a deploy under way is about."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from swell.control.loop import Loop
from swell.control.reactor import Reactor
from swell.control.views import Views
from swell.engines.fake import FakeEngine
from swell.model.node import Node
from swell.model.orders import BuildReport
from swell.model.policy import Policy
from swell.model.request import Prices
from swell.model.workload import App, Entry, Environment, Method, Revision, Workload
from swell.model.world import World
from swell.serve import SystemClock, sweep_blobs
from swell.store.blobs import BlobFolder
from swell.store.memory import MemoryStore


class SlowBuilds(FakeEngine):
    """Builds that take as long as the test likes."""

    def __init__(self) -> None:
        super().__init__(Node("n1", 4.0, 4096), time.time, self._never, Random(1))
        self.building = asyncio.Event()
        self.go_on = asyncio.Event()

    @staticmethod
    def _never(_seconds: float, _do: Callable[[], None]) -> None:
        """Nothing is started here."""

    async def build(self, revision: Revision, progress: Callable[[str], None]) -> BuildReport:
        self.building.set()
        await self.go_on.wait()
        return await super().build(revision, progress)


async def put(blobs: BlobFolder, content: bytes) -> str:
    """A blob from last week; its digest."""

    async def whole() -> AsyncIterator[bytes]:
        yield content

    digest = "sha256-" + hashlib.sha256(content).hexdigest()
    await blobs.put(digest, whole())
    os.utime(blobs.path(digest), times=(time.time() - 7 * 86_400, time.time() - 7 * 86_400))
    return digest


def an_app(name: str, bundle: str) -> App:
    entry = Entry("m", "f", "function", (Method("f"),))
    revision = Revision(Environment("/usr/bin/python3", "3.11"), bundle, entry)
    return App("default", name, (Workload("default", name, "f", revision.id),), (revision,))


def test_source_goes_only_when_no_app_has_it_or_is_about_to(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine, clock, blobs = SlowBuilds(), SystemClock(), BlobFolder(tmp_path)
        loop = Loop(Reactor(World(), Policy(), Prices()), engine, MemoryStore(), clock, 1)
        views = Views(loop, Prices(), "http://127.0.0.1:1", "0")

        async def sweep() -> None:
            with suppress(TimeoutError):
                await asyncio.wait_for(sweep_blobs(views, blobs, clock), 0.01)

        one, other, nobodys = [await put(blobs, word) for word in (b"one", b"other", b"nobody's")]
        deploying = asyncio.create_task(views.deploy(an_app("one", one), lambda _line: None))
        await engine.building.wait()
        await sweep()
        assert sorted(os.listdir(tmp_path)) == sorted({one}), "of a deploy under way, and no other"
        engine.go_on.set()
        await deploying
        await put(blobs, b"nobody's")
        await put(blobs, b"other")
        await views.deploy(an_app("other", other), lambda _line: None)
        await sweep()
        assert sorted(os.listdir(tmp_path)) == sorted({one, other}), "of what is deployed"
        await views.stop_app("default", "one")
        await sweep()
        assert sorted(os.listdir(tmp_path)) == [other], "of what is deployed still"
        assert nobodys not in views.bundles()

    asyncio.run(scenario())
