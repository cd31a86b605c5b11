"""Are forks of a template quick copies that work, and are templates that cannot be forked found out?"""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest
from node import Node, alive, call, run

from swell.model.replica import Phase

pytestmark = pytest.mark.slow


COUNTING = """
import gc, os
class C:
    def load(self):
        self.loaded_in = os.getpid()
    def warm(self):
        self.warmed_in = os.getpid()
    def f(self):
        return dict(loaded=self.loaded_in, warmed=self.warmed_in, here=os.getpid(), frozen=gc.get_freeze_count(),
                    collects=gc.isenabled(), files=len(os.listdir('/proc/self/fd')))
"""


def test_forks_share_what_was_loaded_and_nothing_else() -> None:
    async def scenario(node: Node) -> None:
        revision = node.revision(COUNTING, "C", enter_snap=("load",), enter=("warm",))
        template = await node.ready(node.start(revision, role="template"))
        forks = [await node.ready(node.start(revision, template=template.replica)) for _ in range(6)]
        told = [(await call(fork.address))[1] for fork in forks]
        assert [one["here"] for one in told] == [fork.pid for fork in forks]
        assert {one["loaded"] for one in told} == {template.pid}
        assert all(one["warmed"] == one["here"] and one["frozen"] > 1000 and one["collects"] for one in told)
        # The sixth holds no more descriptors than the first: none of its brothers', none of the template's.
        assert told[0]["files"] == told[5]["files"]
        names = [name for name, _ in forks[0].timings_ms]
        assert names[:3] == ["order", "hand_over", "fork"]
        # A template that ends leaves its forks alone, and their ends are noticed without it.
        node.stop(template.replica)
        await node.gone(template.replica)
        assert (await call(forks[0].address))[0] == 200
        node.stop(forks[0].replica)
        assert (await node.gone(forks[0].replica)).reason == "idle"

    run(scenario)


def test_signatures_are_read_in_the_template_and_not_in_each_fork() -> None:
    async def scenario(node: Node) -> None:
        source = """
        from __future__ import annotations
        import os
        read_in = []
        def number():
            read_in.append(os.getpid())
            return int
        def f(x: number() = 1):
            return read_in
        """
        revision = node.revision(source)
        template = await node.ready(node.start(revision, role="template"))
        fork = await node.ready(node.start(revision, template=template.replica))
        assert await call(fork.address, body=b'{"x": 2}') == (200, [template.pid])
        status, told = await call(fork.address, body=b'{"x": "two"}')
        assert (status, told["error"]["code"]) == (422, "bad_arguments")

    run(scenario)


@pytest.mark.parametrize("forked", [False, True])
def test_an_annotation_may_get_its_meaning_in_a_hook(forked: bool) -> None:
    async def scenario(node: Node) -> None:
        source = """
        from __future__ import annotations
        from dataclasses import dataclass
        class C:
            def warm(self):
                @dataclass
                class Point:
                    x: int
                globals()["Point"] = Point
            def f(self, at: Point):
                return at.x
        """
        revision = node.revision(source, "C", enter=("warm",))
        template = node.start(revision, role="template") if forked else None
        replica = await node.ready(node.start(revision, template=template))
        assert await call(replica.address, body=b'{"at": {"x": 3}}') == (200, 3)

    run(scenario)


def test_from_outside_a_template_and_its_forks_are_known_by_name() -> None:
    def name(pid: int | None) -> str:
        return Path(f"/proc/{pid}/comm").read_text().strip()

    async def scenario(node: Node) -> None:
        revision = node.revision("def f(): pass\n")
        template = await node.ready(node.start(revision, role="template"))
        fork = await node.ready(node.start(revision, template=template.replica))
        fresh = await node.ready(node.start(revision))
        assert [name(seen.pid) for seen in (template, fork, fresh)] == ["swt:app/f", "sw:app/f", "sw:app/f"]

    run(scenario)


def test_a_template_costs_the_same_with_forks_as_without() -> None:
    async def scenario(node: Node) -> None:
        def measured_mib() -> float:
            return [seen.rss_mib for seen in node.seen(template.replica)][-1]

        async def next_measure() -> float:
            rows = len([row for row in node.used if row.replica == template.replica])
            await node.until(lambda: len([row for row in node.used if row.replica == template.replica]) >= rows + 2)
            return measured_mib()

        revision = node.revision("data = bytearray(b'x') * (40 << 20)\ndef f(): pass\n")
        template = await node.ready(node.start(revision, role="template"))
        alone = await next_measure()
        assert alone > 40
        forks = [await node.ready(node.start(revision, template=template.replica)) for _ in range(20)]
        assert abs(await next_measure() - alone) < 5
        for fork in forks:
            node.stop(fork.replica)
            await node.gone(fork.replica)
        assert abs(await next_measure() - alone) < 5

    run(scenario)


def test_a_hundred_forks_at_once_are_a_hundred_replicas() -> None:
    async def scenario(node: Node) -> None:
        revision = node.revision("import os\ndef f():\n    return os.getpid()\n")
        template = node.start(revision, role="template")
        forks = [node.start(revision, template=template) for _ in range(100)]
        pids = set()
        for fork in forks:
            seen = await node.ready(fork)
            status, pid = await call(seen.address)
            assert (status, pid) == (200, seen.pid)
            pids.add(pid)
        assert len(pids) == 100
        for fork in forks:
            node.stop(fork)
        for fork in forks:
            assert (await node.gone(fork)).reason == "idle"

    run(scenario)


# -- code that does not survive a fork -------------------------------------------------------------

HANGS_IN_CHILD = """
import os, time
os.register_at_fork(after_in_child=lambda: time.sleep(600))
def f():
    return "served"
"""
HANGS_IN_PARENT = HANGS_IN_CHILD.replace("after_in_child", "after_in_parent")
DIES_IN_CHILD = """
import os
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), 11))
def f():
    return "served"
"""


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (HANGS_IN_CHILD, "did not come to life within 2 s"),
        (HANGS_IN_PARENT, "did not come back"),
        (HANGS_IN_PARENT.replace("after_in_parent", "before"), "did not come back"),
        (DIES_IN_CHILD, "signal 11"),
    ],
)
def test_a_template_that_cannot_be_forked_is_refused_and_the_caller_served(source: str, why: str) -> None:
    async def scenario(node: Node) -> None:
        revision = node.revision(source)
        template = await node.ready(node.start(revision, role="template"))
        first, second = (node.start(revision, template=template.replica) for _ in range(2))
        for replica in (first, second):
            seen = await node.ready(replica)
            assert await call(seen.address) == (200, "served")
        refused = [seen.fork_refused for seen in node.seen(template.replica) if seen.fork_refused]
        assert refused
        assert why in refused[0]
        third = await node.ready(node.start(revision, template=template.replica))
        assert "exec" in dict(third.timings_ms)
        assert any("started fresh" in row["text"] or "starts again" in row["text"] for row in node.log())

    run(scenario, fork_probe_s=2.0)


def test_start_up_hooks_may_take_longer_than_a_fork_is_waited_for(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        source = """
        import os, pathlib, time
        class C:
            def load(self):
                self.loaded_in = os.getpid()
            def warm(self):
                begun = pathlib.Path("{folder}")
                (begun / str(os.getpid())).touch()
                # The second must not have to wait for the first one's hooks.
                while len(list(begun.iterdir())) < 2:
                    time.sleep(0.01)
                time.sleep(1.5)
            def f(self):
                return self.loaded_in
        """.replace("{folder}", str(tmp_path))
        revision = node.revision(source, "C", enter_snap=("load",), enter=("warm",))
        template = await node.ready(node.start(revision, role="template"))
        forks = [node.start(revision, template=template.replica) for _ in range(2)]
        ready = [await node.ready(fork) for fork in forks]
        assert [await call(seen.address) for seen in ready] == [(200, template.pid)] * 2
        assert not any(seen.fork_refused for seen in node.seen(template.replica))

    run(scenario, fork_probe_s=0.7)


def test_a_hook_that_a_fork_does_not_survive_refuses_the_template_and_all_are_served() -> None:
    async def scenario(node: Node) -> None:
        source = """
        import os, time
        class C:
            def load(self):
                self.loaded_in = os.getpid()
            def warm(self):
                if os.getpid() != self.loaded_in:
                    time.sleep(0.3)
                    os.kill(os.getpid(), 11)
            def f(self):
                return "served"
        """
        revision = node.revision(source, "C", enter_snap=("load",), enter=("warm",))
        template = await node.ready(node.start(revision, role="template"))
        for fork in [node.start(revision, template=template.replica) for _ in range(3)]:
            seen = await node.ready(fork)
            assert "exec" in dict(seen.timings_ms)
            assert await call(seen.address) == (200, "served")
        refused = {seen.fork_refused for seen in node.seen(template.replica) if seen.fork_refused}
        assert refused == {"a fork was ended by signal 11 before any was ready"}

    run(scenario)


def test_an_error_in_the_users_own_start_is_a_failed_start_and_no_refusal() -> None:
    async def scenario(node: Node) -> None:
        source = """
        import pathlib
        class C:
            def warm(self):
                flag = pathlib.Path("{flag}")
                if not flag.exists():
                    flag.touch()
                    raise RuntimeError("not yet")
            def f(self):
                return "served"
        """.replace("{flag}", str(node.home.root / "flag"))
        revision = node.revision(source, "C", enter=("warm",))
        template = await node.ready(node.start(revision, role="template"))
        over = await node.gone(node.start(revision, template=template.replica))
        assert (over.reason, "not yet" in over.detail) == ("enter_error", True)
        second = await node.ready(node.start(revision, template=template.replica))
        assert "fork" in dict(second.timings_ms)
        assert not any(seen.fork_refused for seen in node.seen(template.replica))

    run(scenario)


@pytest.mark.parametrize(
    ("ends", "reason"),
    [
        ("raise FileNotFoundError('no weights')", "enter_error"),
        ("time.sleep(600)", "startup_timeout"),
        ("os._exit(3)", "crashed"),
    ],
)
def test_a_template_that_fails_to_load_is_the_failed_start_of_what_waited_for_it(ends: str, reason: str) -> None:
    async def scenario(node: Node) -> None:
        loads = node.home.root / "loads"
        source = f"""
        import os, time
        class C:
            def load(self):
                open({str(loads)!r}, "a").write("once ")
                {ends}
            def f(self):
                return 1
        """
        revision = node.revision(source, "C", enter_snap=("load",), startup_timeout_s=3.0)
        template = node.start(revision, role="template")
        forks = [node.start(revision, template=template) for _ in range(2)]
        over = await node.gone(template)
        assert over.reason == reason
        for fork in forks:
            seen = await node.gone(fork)
            assert (seen.reason, seen.detail) == (over.reason, over.detail)
        assert loads.read_text() == "once "
        assert [row["stream"] for row in node.log() if row["replica"] in forks] == ["sys", "sys"]

    run(scenario)


def test_what_waited_for_a_template_that_is_not_wanted_any_more_starts_fresh() -> None:
    async def scenario(node: Node) -> None:
        gate = node.home.root / "gate"
        source = f"""
        import os, time
        while not os.path.exists({str(gate)!r}):
            time.sleep(0.01)
        def f():
            return 1
        """
        revision = node.revision(source)
        template = node.start(revision, role="template")
        fork = node.start(revision, template=template)
        await node.until(lambda: node.seen(fork))
        node.stop(template, reason="evicted")
        assert (await node.gone(template)).reason == "evicted"
        gate.touch()
        seen = await node.ready(fork)
        assert "is over" in seen.unforked
        assert await call(seen.address) == (200, 1)

    run(scenario)


LOCKED = """
import threading, time
lock = threading.Lock()
class C:
    def load(self):
        def hold():
            with lock:
                time.sleep(600)
        threading.Thread(target=hold, daemon=True).start()
        while not lock.locked():
            time.sleep(0.01)
    def warm(self):
        with lock:
            pass
    def f(self):
        return 1
"""


def test_a_hook_that_waits_for_what_no_fork_has_is_ended_by_its_start_up_time() -> None:
    async def scenario(node: Node) -> None:
        revision = node.revision(LOCKED, "C", enter_snap=("load",), enter=("warm",), startup_timeout_s=4.0)
        template = await node.ready(node.start(revision, role="template"))
        over = await node.gone(node.start(revision, template=template.replica))
        assert (over.phase, over.reason) == (Phase.GONE, "startup_timeout")
        assert not any(seen.fork_refused for seen in node.seen(template.replica))

    run(scenario)


def test_a_garbage_collection_in_a_fork_copies_nothing_of_what_was_loaded() -> None:
    async def scenario(node: Node) -> None:
        source = """
        import gc
        class C:
            def load(self):
                self.many = [[n] for n in range(300_000)]
            def f(self):
                lines = open("/proc/self/smaps_rollup").read().splitlines()
                return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024
            def g(self):
                return gc.collect()
        """
        revision = node.revision(source, "C", enter_snap=("load",), methods=("f", "g"))
        template = await node.ready(node.start(revision, role="template"))
        fork = await node.ready(node.start(revision, template=template.replica))
        _, before_mib = await call(fork.address)
        await call(fork.address, "g")
        _, after_mib = await call(fork.address)
        assert after_mib - before_mib < 5

    run(scenario)


@pytest.mark.parametrize("role", ["fork", "fresh"])
def test_a_replica_ends_without_the_exit_handlers_of_what_it_imported(role: str) -> None:
    """Those of a library would join threads that a fork does not have."""

    async def scenario(node: Node) -> None:
        source = """
        import atexit, threading, time
        atexit.register(time.sleep, 600)
        thread = threading.Thread(target=time.sleep, args=(600,))
        thread.start()
        def f():
            return 1
        """
        revision = node.revision(source)
        template = node.start(revision, role="template") if role == "fork" else None
        replica = await node.ready(node.start(revision, template=template))
        assert await call(replica.address) == (200, 1)
        node.stop(replica.replica, grace_s=20)
        over = await node.gone(replica.replica)
        assert (over.reason, over.detail) == ("idle", "")

    run(scenario)


def test_threads_of_a_template_are_reported() -> None:
    async def scenario(node: Node) -> None:
        source = """
        import _thread, threading, time
        class C:
            def load(self):
                self.thread = threading.Thread(target=time.sleep, args=(600,), daemon=True, name="refresh")
                self.thread.start()
                # As a library's own: nobody named it, and Python's list of threads does not have it.
                for _ in range(2):
                    _thread.start_new_thread(time.sleep, (600,))
            def f(self):
                return [self.thread.is_alive(), threading.active_count()]
        """
        revision = node.revision(source, "C", enter_snap=("load",))
        template = await node.ready(node.start(revision, role="template"))
        told = "threads that a fork will not have: refresh, 2 without a name, of a library"
        assert told in template.applied
        fork = await node.ready(node.start(revision, template=template.replica))
        status, (lives, _) = await call(fork.address)
        assert (status, lives) == (200, False)

    run(scenario)


@pytest.mark.parametrize(("used", "refused"), [(True, True), (False, False)])
def test_an_initialised_cuda_context_refuses_the_template(used: bool, refused: bool) -> None:
    """A module by the name of torch that answers as the real one would: there is no GPU to try it on."""

    async def scenario(node: Node) -> None:
        torch = f"class cuda:\n    is_initialized = staticmethod(lambda: {used})\n"
        revision = node.revision("")
        digest = node.bundle({"app.py": "import torch\ndef f():\n    return 'served'\n", "torch.py": torch})
        revision = msgspec.structs.replace(revision, bundle=digest)
        template = await node.ready(node.start(revision, role="template"))
        assert ("CUDA" in template.fork_refused) == refused
        seen = await node.ready(node.start(revision, template=template.replica))
        assert ("fork" in dict(seen.timings_ms)) == (not refused)
        assert await call(seen.address) == (200, "served")

    run(scenario)


@pytest.mark.parametrize(
    ("driver", "refused"),
    [
        ("int cuDeviceGetCount(int *n) { return 3; }", ""),
        ("int cuDeviceGetCount(int *n) { return 0; }", "the CUDA driver is initialised"),
        ("int other;", "cannot be asked"),
    ],
)
def test_the_cuda_driver_is_asked_whoever_loaded_it(driver: str, refused: str, tmp_path: Path) -> None:
    """A library by the name of the driver that answers as the real one would: there is no GPU to try it on."""
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=driver, text=True, check=True)

    async def scenario(node: Node) -> None:
        source = f"import ctypes, torch\nctypes.CDLL({str(library)!r})\ndef f():\n    return 'served'\n"
        torch = "class cuda:\n    is_initialized = staticmethod(lambda: False)\n"
        revision = msgspec.structs.replace(node.revision(""), bundle=node.bundle({"app.py": source, "torch.py": torch}))
        template = await node.ready(node.start(revision, role="template"))
        assert refused in template.fork_refused
        assert bool(template.fork_refused) == bool(refused)
        seen = await node.ready(node.start(revision, template=template.replica))
        assert ("fork" in dict(seen.timings_ms)) == (not refused)

    run(scenario)


def test_a_stop_in_the_middle_of_a_burst_leaves_no_process() -> None:
    async def scenario(node: Node) -> None:
        revision = node.revision("def f():\n    return 1\n")
        template = await node.ready(node.start(revision, role="template"))
        forks = [node.start(revision, template=template.replica) for _ in range(30)]
        for fork in forks:
            node.stop(fork)
        node.stop(template.replica)
        for fork in (*forks, template.replica):
            over = await node.gone(fork)
            assert (over.phase, over.reason) == (Phase.GONE, "idle")
        pids = {seen.pid for fork in forks for seen in node.seen(fork) if seen.pid}
        await node.until(lambda: not any(alive(pid) for pid in pids))

    run(scenario)
