"""Does a runner remove what nothing uses, spare what something does, and survive being killed while it removes?"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from node import Node, call, run, within
from test_queued_runner import Queue

from swell.model.call import call_id
from swell.model.workload import Revision

pytestmark = pytest.mark.slow

AT_ONCE = ("--collect-first-s", "0.3")
CACHE_DAYS = 1.0


def program(number: int) -> str:
    return f"def f():\n    return {number}\n"


def bundle_of(node: Node, revision: Revision) -> Path:
    return node.home.bundles / revision.bundle


def long_unused(folder: Path) -> None:
    os.utime(folder, (time.time() - 10 * 86400.0,) * 2)


async def next_runner(node: Node, *flags: str) -> None:
    """The runner is killed, and another comes."""
    if node.runners[-1].returncode is None:
        node.runners[-1].kill()
        await node.runners[-1].wait()
    await node.until(lambda: not node.connected.is_set())
    node.flags = flags
    await node.start_runner()
    await within(node.connected.wait())


def test_what_nothing_uses_goes_and_what_runs_or_is_wanted_stays() -> None:
    async def scenario(node: Node) -> None:
        runs, loaded, wanted, nobodys = (node.revision(program(n)) for n in range(4))
        adopted = await node.ready(node.start(runs))
        template = await node.ready(node.start(loaded, role="template"))
        for revision in (wanted, nobodys):
            assert (await node.build(revision)).ok
        for revision in (runs, loaded, wanted, nobodys):
            long_unused(bundle_of(node, revision))
        node.deployed = [wanted]
        await next_runner(node, *AT_ONCE)
        await node.until(lambda: not bundle_of(node, nobodys).exists())
        await node.until(lambda: [path.name for path in node.home.bundles.iterdir() if path.name.startswith(".")] == [])
        for revision in (runs, loaded, wanted):
            assert (bundle_of(node, revision) / "app.py").exists()
        # What went is made again when it is wanted again.
        again = await node.ready(node.start(nobodys))
        assert await call(again.address) == (200, 3)
        forked = await node.ready(node.start(loaded, template=template.replica))
        assert await call(forked.address) == (200, 1)
        assert await call(adopted.address) == (200, 0)

    run(scenario, cache_days=CACHE_DAYS)


def test_without_control_nothing_is_removed() -> None:
    async def scenario(node: Node) -> None:
        revision = node.revision(program(1))
        assert (await node.build(revision)).ok
        long_unused(bundle_of(node, revision))
        await node.link.close()
        await node.kill_runner()
        node.flags = AT_ONCE
        await node.start_runner()
        await asyncio.sleep(1.5)
        assert bundle_of(node, revision).exists()

    run(scenario, cache_days=CACHE_DAYS)


async def killed_while_it_removes(node: Node, revision: Revision) -> Path | None:
    """What it left of the revision's bundle under another name; None when it was quicker."""
    assert (await node.build(revision)).ok
    folder = bundle_of(node, revision)
    aside = folder.with_name(".gone-" + folder.name)
    for number in range(20_000):
        (folder / f"more-{number}").touch()
    long_unused(folder)
    await next_runner(node, *AT_ONCE)
    await node.until(lambda: not folder.exists())
    node.runners[-1].kill()
    await node.runners[-1].wait()
    return aside if aside.exists() else None


def test_what_is_half_removed_when_the_runner_is_killed_is_never_used() -> None:
    async def scenario(node: Node) -> None:
        for attempt in range(10):
            revision = node.revision(program(attempt))
            aside = await killed_while_it_removes(node, revision)
            await next_runner(node)
            if aside is not None:
                break
        else:
            raise AssertionError("it was always quicker")
        folder = bundle_of(node, revision)
        assert not folder.exists()
        a = await node.ready(node.start(revision))
        assert await call(a.address) == (200, attempt)
        assert [path.name for path in folder.iterdir() if path.suffix == ".py"] == ["app.py"]
        assert not any(path.name.startswith("more-") for path in folder.iterdir())
        await node.until(lambda: not aside.exists())

    run(scenario, cache_days=CACHE_DAYS)


def test_checkpoints_go_when_nothing_is_known_of_their_call() -> None:
    async def scenario(node: Node) -> None:
        kept, gone = (call_id(1_700_000_000_000, bytes([number] * 10)) for number in range(2))
        for name in (kept, gone, "of nobody"):
            (node.home.checkpoints / name).mkdir(parents=True)
            (node.home.checkpoints / name / "state").touch()
        asked: list[str] = []

        def known(calls: Sequence[str]) -> set[str]:
            asked.extend(calls)
            return {kept}

        node.link.queue = Queue(node)
        node.link.queue.kept = known
        await next_runner(node, *AT_ONCE)
        await node.until(lambda: not (node.home.checkpoints / gone).exists())
        assert set(asked) == {kept, gone}
        assert {path.parent.name for path in node.home.checkpoints.glob("*/state")} == {kept, "of nobody"}

    run(scenario)
