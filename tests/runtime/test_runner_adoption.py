"""What of a killed runner's replicas is lost? Nothing: they serve on, and the next runner owns them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from node import Node, alive, call, kill, run, within

from swell.model.orders import Inventory, StartOrder, StopOrder
from swell.model.replica import Phase
from swell.runtime.runner import cgroup, records, sweep
from swell.runtime.runner.records import Record
from swell.wire.identity import identify

pytestmark = pytest.mark.slow

SERVICE = """
import asyncio, os
async def f(seconds=0):
    print(f"at work for {seconds} s", flush=True)
    await asyncio.sleep(seconds)
    return os.getpid()
"""


def said(node: Node, text: str) -> Callable[[], bool]:
    return lambda: any(row["text"] == text for row in node.log())


async def next_runner(node: Node) -> None:
    """A new runner process, adopting; returns once its inventory was heard."""
    node.facts.clear()
    await node.start_runner()
    await within(node.connected.wait())


def test_everything_is_adopted_and_requests_in_flight_are_answered() -> None:
    async def scenario(node: Node) -> None:
        revision = node.revision(SERVICE, max_inputs=2)
        fresh = await node.ready(node.start(revision))
        template = await node.ready(node.start(revision, role="template"))
        fork = await node.ready(node.start(revision, template=template.replica))
        answers = [asyncio.create_task(call(one.address, body=b"[1.5]")) for one in (fresh, fork)]
        await node.until(lambda: sum(row["text"] == "at work for 1.5 s" for row in node.log()) == 2)
        await node.kill_runner()
        # Warm traffic needs no runner, and what is printed meanwhile neither fails nor is lost.
        assert await call(fork.address, body=b"[0.001]") == (200, fork.pid)
        await next_runner(node)
        for one in (fresh, template, fork):
            again = await node.ready(one.replica)
            assert (again.pid, again.address, again.template) == (one.pid, one.address, one.template)
        inventory = next(fact for fact in node.facts if isinstance(fact, Inventory))
        # A control that is new, too, never hears that they are but starting.
        told = {(seen.replica, seen.phase) for seen in inventory.replicas}
        assert told == {(one.replica, Phase.READY) for one in (fresh, template, fork)}
        assert await within(asyncio.gather(*answers)) == [(200, fresh.pid), (200, fork.pid)]
        await node.until(said(node, "at work for 0.001 s"))
        # The adopted template forks, and the adopted replicas stop as they should.
        another = await node.ready(node.start(revision, template=template.replica))
        assert another.pid not in (fresh.pid, fork.pid)
        for one in (fresh, fork, template, another):
            node.stop(one.replica)
            assert (await node.gone(one.replica)).reason == "idle"
            assert not alive(one.pid or 0)

    run(scenario)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("os.register_at_fork(after_in_child=lambda: time.sleep(600))", "its first fork did not come to life"),
        ("sys.modules['torch'] = types.SimpleNamespace(cuda=types.SimpleNamespace(is_initialized=lambda: 1))", "CUDA"),
    ],
)
def test_a_template_that_cannot_be_forked_is_not_tried_again_by_the_next_runner(bad: str, why: str) -> None:
    source = f"""
    import os, sys, time, types
    {bad}
    def f():
        return "served"
    """

    async def scenario(node: Node) -> None:
        revision = node.revision(source)
        template = await node.ready(node.start(revision, role="template"))
        await node.ready(node.start(revision, template=template.replica))
        before = node.seen(template.replica)[-1].fork_refused
        assert why in before
        await node.kill_runner()
        await next_runner(node)
        assert (await node.ready(template.replica)).fork_refused == before
        fresh = await node.ready(node.start(revision, template=template.replica))
        assert "exec" in dict(fresh.timings_ms)
        assert fresh.unforked == f"template {template.replica} is refused: {before}"

    run(scenario, fork_probe_s=0.7)


def test_a_crash_is_noticed_by_a_runner_that_did_not_start_the_process() -> None:
    async def scenario(node: Node) -> None:
        a = await node.ready(node.start(node.revision(SERVICE)))
        await node.kill_runner()
        await next_runner(node)
        await node.ready(a.replica)
        kill(a.pid or 0)
        over = await node.gone(a.replica)
        assert over.reason == "crashed"

    run(scenario)


def test_usage_of_the_time_between_is_not_lost_and_not_counted_twice() -> None:
    async def scenario(node: Node) -> None:
        source = """
        import resource, time
        def f(seconds):
            end = time.process_time() + seconds
            while time.process_time() < end: pass
            used = resource.getrusage(resource.RUSAGE_SELF)
            return used.ru_utime + used.ru_stime
        """
        a = await node.ready(node.start(node.revision(source)))
        _, before = await call(a.address, body=b"[0.5]")
        await node.until(lambda: sum(row.cpu_s for row in node.used) > 0.95 * before)
        await node.kill_runner()
        await next_runner(node)
        await node.ready(a.replica)
        _, after = await call(a.address, body=b"[0.5]")
        node.stop(a.replica)
        await node.gone(a.replica)
        await node.until(lambda: a.replica in node.accounted)
        assert sum(row.cpu_s for row in node.used) == pytest.approx(after, rel=0.05)

    run(scenario)


def test_replicas_that_no_runner_comes_for_end_themselves() -> None:
    async def scenario(node: Node) -> None:
        revision = node.revision(SERVICE)
        template = await node.ready(node.start(revision, role="template"))
        fork = await node.ready(node.start(revision, template=template.replica))
        fresh = await node.ready(node.start(revision))
        await node.kill_runner()
        await node.until(lambda: not any(alive(one.pid or 0) for one in (template, fork, fresh)))
        await next_runner(node)

    run(scenario, orphan_s=0.5)


def test_a_replica_that_died_with_the_runner_is_swept_up() -> None:
    async def scenario(node: Node) -> None:
        a = await node.ready(node.start(node.revision(SERVICE)))
        await node.kill_runner()
        kill(a.pid or 0)
        await node.until(lambda: not alive(a.pid or 0))
        assert node.leftovers() != []
        await next_runner(node)
        await node.until(lambda: node.leftovers() == [])
        inventory = next(fact for fact in node.facts if isinstance(fact, Inventory))
        assert inventory.replicas == ()

    run(scenario)


@pytest.mark.parametrize("same", [True, False])
def test_only_the_very_process_of_a_record_is_touched(same: bool) -> None:
    """A recorded process that does not connect in time is killed; one that merely has its pid is left alone."""

    async def scenario(node: Node) -> None:
        await node.stop_runner()
        await node.until(lambda: not node.connected.is_set())
        bystander = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)")
        try:
            process = identify(bystander.pid)
            assert process is not None
            ticks = process.start_ticks
            record = Record(
                "r1-x",
                "default/app/f@rv-1",
                "serving",
                bystander.pid,
                ticks if same else ticks - 1,
                "",
                None,
                ordered_at=0.0,
                ordered_monotonic_s=0.0,
                startup_timeout_s=300.0,
                group="r1-x",
                uses=(),
            )
            records.write(node.home.replica_records, record)
            await next_runner(node)
            if same:
                over = await node.gone("r1-x")
                assert "did not come back" in over.detail
                await node.until(lambda: not alive(bystander.pid))
            else:
                assert node.leftovers() == []
                assert alive(bystander.pid)
                assert node.seen("r1-x") == []
        finally:
            if bystander.returncode is None:
                bystander.kill()
            await bystander.wait()

    run(scenario, orphan_s=0.5)


@pytest.mark.parametrize("sooner", ["ordered_at", "ordered_monotonic_s"])
def test_one_that_was_starting_has_what_is_left_of_its_time_by_any_clock(sooner: str, tmp_path: Path) -> None:
    """An hour passes while no runner is there, or the clock is set ahead by as much."""
    source = f"""
    import asyncio, os
    class Thing:
        async def start(self):
            print("starts", flush=True)
            while not os.path.exists({str(tmp_path / "go")!r}):
                await asyncio.sleep(0.01)
        def f(self): pass
    """

    async def scenario(node: Node) -> None:
        id = node.start(node.revision(source, "Thing", enter=("start",), startup_timeout_s=300.0))
        folder = node.home.replica_records
        await node.until(said(node, "starts"))
        await node.kill_runner()
        (record,) = records.read_all(folder)
        records.write(folder, replace(record, **{sooner: getattr(record, sooner) - 3600.0}))
        await next_runner(node)
        if sooner == "ordered_at":
            (tmp_path / "go").touch()
            await node.ready(id)
        else:
            assert (await node.gone(id)).reason == "startup_timeout"

    run(scenario)


def test_ends_that_control_did_not_hear_are_told_when_it_is_back() -> None:
    async def scenario(node: Node) -> None:
        a = await node.ready(node.start(node.revision(SERVICE)))
        await node.link.close()
        await node.until(lambda: not node.connected.is_set())
        kill(a.pid or 0)
        await node.until(lambda: node.leftovers() == [])
        node.facts.clear()
        node.epoch += 1
        await node.open_link()
        await within(node.connected.wait())
        kinds = [type(fact).__name__ for fact in node.facts]
        assert kinds.index("ReplicaSeen") < kinds.index("Inventory")
        over = await node.gone(a.replica)
        assert (over.phase, over.reason) == (Phase.GONE, "crashed")

    run(scenario)


def test_orders_of_an_earlier_control_are_refused() -> None:
    """Whichever way they came: here over the link of the later one."""

    async def scenario(node: Node) -> None:
        revision = node.revision(SERVICE)
        a = await node.ready(node.start(revision))
        await node.restart_control(epoch=2)
        late = StartOrder(
            replica="r1-late", pool=a.pool, role="serving", node="local", revision=revision, template=None
        )
        node.order(late, epoch=1)
        node.order(StopOrder(replica=a.replica, reason="idle", grace_s=5.0), epoch=1)
        # What follows them on the link is obeyed: by its answer both have been read.
        b = await node.ready(node.start(revision))
        inventories = len(node.facts)
        await node.until(lambda: any(isinstance(fact, Inventory) for fact in node.facts[inventories:]))
        held = next(fact for fact in node.facts[inventories:] if isinstance(fact, Inventory))
        assert {(seen.replica, seen.phase) for seen in held.replicas} == {
            (a.replica, Phase.READY),
            (b.replica, Phase.READY),
        }
        assert held.epoch == 2
        assert node.seen("r1-late") == []
        # The same from this control.
        node.stop(a.replica)
        assert (await node.gone(a.replica)).reason == "idle"

    run(scenario)


def test_a_stop_ordered_before_the_replica_was_heard_still_drains_it() -> None:
    async def scenario(node: Node) -> None:
        a = await node.ready(node.start(node.revision(SERVICE)))
        answer = asyncio.create_task(call(a.address, body=b"[1]"))
        await node.until(said(node, "at work for 1 s"))
        await node.kill_runner()
        node.hear = lambda fact: node.stop(a.replica, grace_s=20) if isinstance(fact, Inventory) else None
        await next_runner(node)
        assert await within(answer) == (200, a.pid)
        assert (await node.gone(a.replica)).reason == "idle"

    run(scenario)


def test_one_that_takes_nothing_new_is_not_ready_for_the_next_runner_and_control(tmp_path: Path) -> None:
    source = """
    import asyncio, os
    async def f(until):
        print("begun", flush=True)
        while not os.path.exists(until):
            await asyncio.sleep(0.01)
    """

    async def scenario(node: Node) -> None:
        over = tmp_path / "over"
        a = await node.ready(node.start(node.revision(source, max_inputs=2)))
        body = json.dumps([str(over)]).encode()
        answer = asyncio.create_task(call(a.address, body=body, remaining_ms=60_000))
        await node.until(said(node, "begun"))
        node.stop(a.replica, grace_s=600.0)
        await node.until(lambda: node.seen(a.replica)[-1].phase is Phase.DRAINING)
        await node.kill_runner()
        await next_runner(node)
        await node.until(lambda: [seen.phase for seen in node.seen(a.replica)][-1:] == [Phase.DRAINING])
        assert node.seen(a.replica)[-1].reason == "idle"
        over.touch()
        assert (await within(answer))[0] == 200
        assert (await node.gone(a.replica)).reason == "idle"

    run(scenario)


def test_what_a_killed_server_left_can_be_swept_away_without_a_runner() -> None:
    async def scenario(node: Node) -> None:
        revision = node.revision(SERVICE)
        template = await node.ready(node.start(revision, role="template"))
        pids = [(await node.ready(node.start(revision, template=template.replica))).pid for _ in range(2)]
        groups = cgroup.find(cgroup.name_for(node.home.root))
        assert not sweep.sweep(node.home)
        assert all(alive(pid or 0) for pid in pids)
        await node.kill_runner()
        assert sweep.sweep(node.home)
        await node.until(lambda: not any(alive(pid or 0) for pid in (*pids, template.pid)))
        assert node.leftovers() == []
        assert groups.names() == set()
        assert not any(base.exists() for base in groups.bases.values())

    run(scenario)


def test_one_that_comes_back_ready_to_the_same_runner_has_no_start_up_limit_any_more() -> None:
    """It gave its channel up, and with it what it said there. The user's code does here what its channel does then."""

    async def scenario(node: Node) -> None:
        source = f"""
        import os, socket, time
        from swell.wire.child import Reattach
        from swell.wire.frames import pack
        class Thing:
            def start(self):
                self.channel = socket.socket(socket.AF_UNIX)
                self.channel.connect({str(node.home.runner_socket)!r})
                self.channel.sendall(pack(Reattach("r1-back", os.getpid(), True)))
                time.sleep(600)
            def f(self): pass
        """
        revision = node.revision(source, "Thing", enter=("start",), startup_timeout_s=4.0)
        await node.ready(node.start(revision, replica="r1-back"))
        other = node.revision("import time; time.sleep(600)", startup_timeout_s=5.0)
        assert (await node.gone(node.start(other))).reason == "startup_timeout"
        assert node.seen("r1-back")[-1].phase is Phase.READY

    run(scenario)
