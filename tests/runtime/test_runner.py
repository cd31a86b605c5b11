"""Does a runner start, limit, watch, account for and end the replicas it is told to?"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from node import Node, alive, call, run, settings_json, within

from swell.model.limits import PROCESSES_MAX
from swell.model.policy import Policy
from swell.model.replica import Phase
from swell.model.request import Usage
from swell.model.resources import Needs
from swell.runtime import limits
from swell.runtime.runner import cgroup, processes
from swell.runtime.runner.cgroup import Group
from swell.wire.paths import Home

pytestmark = pytest.mark.slow

DOUBLE = "def f(x=1):\n    return x * 2\n"


def can_group() -> bool:
    """Whether this machine lets us make cgroups."""
    groups = cgroup.find("swell-probe")
    groups.remove()
    return bool(groups.bases)


# -- what a replica finds ----------------------------------------------------------------------

AROUND = """
import os
def f():
    status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
    limits = open("/proc/self/limits").read()
    return {
        "environ": dict(os.environ), "cwd": os.getcwd(), "new": status["NoNewPrivs"].strip(),
        "core": [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")][0],
        "leads": os.getsid(0) == os.getpid() == os.getpgid(0), "groups": open("/proc/self/cgroup").read(),
        "stdin": os.readlink("/proc/self/fd/0"),
    }
"""


def test_a_replica_is_limited_and_finds_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_SECRET", "hush")

    async def scenario(node: Node) -> None:
        for template in (False, True):
            limited = node.revision(AROUND, needs=Needs(cpu_limit=0.5, memory_limit_mib=512))
            origin = node.start(limited, role="template") if template else None
            seen = await node.ready(node.start(limited, template=origin))
            _, around = await call(seen.address)
            environ = around["environ"]
            assert environ["WHO"] == "me"
            assert (environ["OMP_NUM_THREADS"], environ["ORT_DISABLE_TELEMETRY"]) == ("1", "1")
            assert "SERVER_SECRET" not in environ
            assert (around["new"], around["core"], around["leads"]) == ("1", ["0", "0"], True)
            assert around["cwd"] == str(node.home.bundles / limited.bundle)
            assert around["stdin"] == "/dev/null"
            assert set(limits.RLIMITS_APPLIED) <= set(seen.applied)
            if can_group():
                assert kernels_limits(node, seen.replica, around["groups"]) == (512 << 20, 50_000, PROCESSES_MAX)
                version = "cgroup v1" if "memory:" in around["groups"] else "cgroup v2"
                words = (f"{PROCESSES_MAX} processes", "memory 512 MiB", "cpu 0.5 cores")
                assert {f"{said} ({version})" for said in words} <= set(seen.applied)
            else:
                assert any(said.startswith("no memory limit") for said in seen.applied)
                assert "512 MiB of address space per process instead (rlimit)" in seen.applied
        wide = await node.ready(node.start(node.revision(AROUND, needs=Needs(cpu=2.0))))
        assert "OMP_NUM_THREADS" not in (await call(wide.address))[1]["environ"]

    run(scenario)


def kernels_limits(node: Node, replica: str, joined: str) -> tuple[int, int, int]:
    """(bytes of memory, µs of CPU in 100 ms, processes) that hold for a process with this /proc/self/cgroup."""
    group = cgroup.find(cgroup.name_for(node.home.root)).open(replica)
    paths = [line.split(":", 2)[2] for line in joined.splitlines()]
    assert all(any(folder.endswith(path) for path in paths) for folder in group.folders.values())
    names = {"memory": ("memory.max", "memory.limit_in_bytes"), "cpu": ("cpu.max", "cpu.cfs_quota_us")}
    read = [
        next(file for name in names.get(controller, ("pids.max",)) if (file := Path(folder, name)).exists()).read_text()
        for controller, folder in group.folders.items()
        if controller != "cpuacct"
    ]
    memory, cpu, pids = (int(text.split()[0]) for text in read)
    return memory, cpu, pids


def test_what_is_printed_is_in_the_apps_log_with_its_request() -> None:
    async def scenario(node: Node) -> None:
        source = """
        import os, sys
        def f():
            print("to out")
            print("to err", file=sys.stderr)
            os.write(1, b"from C\\n")
            return 1
        """
        a = (await node.ready(node.start(node.revision(source)))).replica
        await call(str(node.home.replica_socket(a)))
        node.stop(a)
        await node.gone(a)
        lines = {(row["stream"], row["request"], row["text"]) for row in node.log() if row["replica"] == a}
        assert {("out", "q1", "to out"), ("err", "q1", "to err"), ("out", "", "from C")} <= lines
        assert ("sys", "", "stopped: nobody needed it any longer") in lines

    run(scenario)


def test_a_garbage_collection_between_requests_leaves_the_door_open() -> None:
    async def scenario(node: Node) -> None:
        source = """
        import gc, threading
        def collect():
            gc.collect()
            print("collected", flush=True)
        def f():
            threading.Timer(0.2, collect).start()
            return 1
        """
        a = await node.ready(node.start(node.revision(source)))
        assert await call(a.address) == (200, 1)
        await node.until(lambda: any(row["text"] == "collected" for row in node.log()))
        assert await call(a.address) == (200, 1)

    run(scenario)


# -- ends --------------------------------------------------------------------------------------

SLOW = """
import asyncio, pathlib
class C:
    async def f(self, seconds):
        print("begun", flush=True)
        await asyncio.sleep(seconds)
        return "done"
    def bye(self):
        print("bye", flush=True)
"""


def test_a_drain_lets_inputs_finish_and_runs_exit_hooks() -> None:
    async def scenario(node: Node) -> None:
        a = await node.ready(node.start(node.revision(SLOW, "C", exit=("bye",))))
        answer = asyncio.create_task(call(a.address, body=b'{"seconds": 1}'))
        await node.until(lambda: any(row["text"] == "begun" for row in node.log()))
        node.stop(a.replica, grace_s=20)
        assert await within(answer) == (200, "done")
        assert (await node.gone(a.replica)).reason == "idle"
        assert "bye" in [row["text"] for row in node.log()]

    run(scenario)


def test_a_drain_that_takes_longer_than_its_grace_is_cut() -> None:
    async def scenario(node: Node) -> None:
        a = await node.ready(node.start(node.revision(SLOW, "C")))
        answer = asyncio.create_task(call(a.address, body=b'{"seconds": 600}'))
        await node.until(lambda: any(row["text"] == "begun" for row in node.log()))
        node.stop(a.replica, reason="superseded", grace_s=0.3)
        over = await node.gone(a.replica)
        assert (over.reason, over.detail) == ("superseded", "cut after 0.3 s of draining")
        assert a.pid is not None
        assert not alive(a.pid)
        with pytest.raises((OSError, IndexError)):
            await answer

    run(scenario)


def test_what_user_code_started_ends_with_its_replica() -> None:
    async def scenario(node: Node) -> None:
        source = """
        import subprocess
        def f():
            quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            near = subprocess.Popen(["sleep", "600"], **quiet)
            far = subprocess.Popen(["sleep", "600"], start_new_session=True, **quiet)
            return [near.pid, far.pid]
        """
        a = await node.ready(node.start(node.revision(source)))
        _, (near, far) = await call(a.address)
        assert alive(near)
        assert alive(far)
        os.kill(a.pid or 0, signal.SIGKILL)
        assert (await node.gone(a.replica)).reason == "crashed"
        await node.until(lambda: not alive(near))
        if can_group():
            await node.until(lambda: not alive(far))
        else:
            os.kill(far, signal.SIGKILL)

    run(scenario)


def test_too_much_memory_is_told_as_such() -> None:
    async def scenario(node: Node) -> None:
        source = "def f(mib):\n    return len(bytearray(mib << 20))\n"
        a = await node.ready(node.start(node.revision(source, needs=Needs(memory_limit_mib=128))))
        if any(said.startswith("no memory limit") for said in a.applied):
            # Nothing ends it: what it asks for is not given.
            assert "128 MiB of address space per process instead (rlimit)" in a.applied
            status, told = await call(a.address, body=b'{"mib": 400}')
            assert (status, told["error"]["message"]) == (500, "MemoryError")
            assert await call(a.address, body=b'{"mib": 1}') == (200, 2**20)
            return
        with pytest.raises((OSError, IndexError)):
            await call(a.address, body=b'{"mib": 400}')
        over = await node.gone(a.replica)
        assert over.reason == "out_of_memory"
        assert over.detail == "the kernel killed it"

    run(scenario)


DIES = """
import os, signal
def f(how):
    print("last words", flush=True)
    if how == "memory":
        return len(bytearray(400 << 20))
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), getattr(signal, how))
"""


@pytest.mark.parametrize("forked", [False, True])
def test_how_a_replica_died_under_a_request_is_one_line_in_its_log(forked: bool) -> None:
    async def scenario(node: Node) -> None:
        revision = node.revision(DIES, needs=Needs(memory_limit_mib=256))
        template = node.start(revision, role="template") if forked else None
        cases = {
            "exit": ("crashed", "its process crashed: exit code 3"),
            "SIGKILL": ("crashed", "its process crashed: signal 9 (SIGKILL)"),
            "SIGSEGV": ("crashed", "its process crashed: signal 11 (SIGSEGV)"),
        }
        if can_group():
            words = "its memory limit was reached: the kernel killed it"
            cases["memory"] = ("out_of_memory", words)
        for how, (reason, line) in cases.items():
            a = await node.ready(node.start(revision, template=template))
            with pytest.raises((OSError, IndexError)):
                await call(a.address, body=msgspec.json.encode([how]))
            over = await node.gone(a.replica)
            assert over.reason == reason
            assert over.detail.endswith("\nits last output line: last words")
            lines = [(row["stream"], row["text"]) for row in node.log() if row["replica"] == a.replica]
            assert lines == [("out", "last words"), ("sys", line)]

    run(scenario)


def test_a_stop_of_what_is_not_there_is_answered() -> None:
    async def scenario(node: Node) -> None:
        node.stop("r1-nobody")
        over = await node.gone("r1-nobody")
        assert (over.phase, over.reason) == (Phase.GONE, "unknown")

    run(scenario)


# -- accounts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("forked", [False, True])
def test_usage_is_what_the_kernel_accounted(forked: bool) -> None:
    """Within 5 %, for a fresh process and for a fork, the last moments included."""

    async def scenario(node: Node) -> None:
        source = """
        import resource, time
        def f(seconds):
            end = time.process_time() + seconds
            while time.process_time() < end: pass
            used = resource.getrusage(resource.RUSAGE_SELF)
            return used.ru_utime + used.ru_stime
        """
        revision = node.revision(source)
        template = node.start(revision, role="template") if forked else None
        a = await node.ready(node.start(revision, template=template))
        await call(a.address, body=b"[0.8]")
        _, kernels = await call(a.address, body=b"[0.8]")
        node.stop(a.replica)
        over = await node.gone(a.replica)
        await node.until(lambda: a.replica in node.accounted)
        rows = [row for row in node.used if row.replica == a.replica]
        assert sum(row.cpu_s for row in rows) == pytest.approx(kernels, rel=0.05)
        assert len(rows) >= 2
        assert sum(row.wall_s for row in rows) == pytest.approx(max(row.at for row in rows) - over.ordered_at, abs=0.01)
        assert 0 < sum(row.starting_s for row in rows) < sum(row.wall_s for row in rows)
        assert sum(row.memory_mib_s for row in rows) > 0

    run(scenario)


def test_cpu_of_many_short_lives_is_what_the_kernel_charged_to_all_of_them() -> None:
    """It keeps what those used that are gone (forks, their template, what they started) in the group above all of
    theirs; without groups, with the process that waited for them."""

    async def scenario(node: Node) -> None:
        source = """
        import subprocess, time
        def f(apart):
            end = time.process_time() + 0.01
            while time.process_time() < end: pass
            if apart:
                subprocess.run(["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"])
        """
        groups = cgroup.find(cgroup.name_for(node.home.root))
        above = Group(groups.version, {name: str(base) for name, base in groups.bases.items()})

        def counted() -> float:
            runner = node.runners[-1].pid
            with_groups = above.cpu_s()
            waited_for = processes.cpu_s(runner) - processes.cpu_s(runner, children=False)
            return waited_for if with_groups is None else with_groups

        revision = node.revision(source)
        template = await node.ready(node.start(revision, role="template"))
        # Without groups: that of the process which looked whether the interpreter can be used.
        before = 0.0 if above.cpu_s() is not None else counted()
        for n in range(20):
            fork = await node.ready(node.start(revision, template=template.replica))
            await call(fork.address, body=b"[true]" if n % 4 == 0 else b"[false]")
            node.stop(fork.replica)
            await node.gone(fork.replica)
        node.stop(template.replica)
        await node.gone(template.replica)
        await node.until(lambda: template.replica in node.accounted)
        kernels = counted() - before
        assert len({row.replica for row in node.used}) == 21
        assert sum(row.cpu_s for row in node.used) == pytest.approx(kernels, rel=0.05)

    run(scenario)


def test_memory_is_what_the_kernel_charged_while_it_was_held() -> None:
    """A replica that holds 200 MiB, and a template that holds 100 of which its fork reads every page."""

    async def scenario(node: Node) -> None:
        grown = await node.ready(node.start(node.revision("data = bytearray(b'x') * (200 << 20)\ndef f(): pass\n")))
        shared = node.revision("data = bytearray(b'x') * (100 << 20)\ndef f():\n    return sum(data[::4096])\n")
        template = await node.ready(node.start(shared, role="template"))
        fork = await node.ready(node.start(shared, template=template.replica))
        assert await call(fork.address) == (200, ord("x") * (100 << 20) // 4096)

        def rows(replica: str) -> list[Usage]:
            return [row for row in node.used if row.replica == replica]

        # The first intervals still have the start in them.
        skipped = {one.replica: len(rows(one.replica)) + 2 for one in (grown, template, fork)}
        await node.until(lambda: all(len(rows(replica)) >= least + 2 for replica, least in skipped.items()))
        mean_mib = {
            replica: sum(r.memory_mib_s for r in rows(replica)[least:]) / sum(r.wall_s for r in rows(replica)[least:])
            for replica, least in skipped.items()
        }
        charged = cgroup.find(cgroup.name_for(node.home.root)).open(grown.replica).memory_mib()
        if charged is None:
            charged = processes.rss_mib(grown.pid or 0)
        assert charged > 200
        assert mean_mib[grown.replica] == pytest.approx(charged, rel=0.05)
        assert 100 < mean_mib[template.replica] < 150
        if can_group():
            assert mean_mib[fork.replica] < 50

    run(scenario)


# -- who watches the runner --------------------------------------------------------------------


def test_a_runner_whose_supervisor_is_gone_ends_everything() -> None:
    async def scenario(node: Node) -> None:
        (reading, writing), (ready, saying) = os.pipe(), os.pipe()
        await node.stop_runner()
        await node.until(lambda: not node.connected.is_set())
        node.flags = ("--supervisor-fd", str(reading), "--ready-fd", str(saying))
        await node.start_runner(pass_fds=(reading, saying))
        os.close(reading)
        os.close(saying)
        assert await within(asyncio.to_thread(os.read, ready, 100)) == b"ready\n"
        assert os.read(ready, 100) == b""
        os.close(ready)
        assert node.connected.is_set()
        a = await node.ready(node.start(node.revision(DOUBLE)))
        os.close(writing)
        assert await within(node.runners[-1].wait()) == 0
        assert not alive(a.pid or 0)
        assert (await node.gone(a.replica)).reason == "shutdown"

    run(scenario, orphan_s=0.3)


NAPS = """
import pathlib, time
def f():
    pathlib.Path("{begun}").touch()
    time.sleep({seconds})
"""


def test_a_runner_that_ends_starts_nothing_more(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        begun = tmp_path / "begun"
        busy = await node.ready(node.start(node.revision(NAPS.format(begun=begun, seconds=3))))
        idle = await node.ready(node.start(node.revision(DOUBLE)))
        answer = asyncio.create_task(call(busy.address))
        await node.until(begun.exists)
        runner = node.runners[-1]
        runner.send_signal(signal.SIGTERM)
        await node.gone(idle.replica)
        # What control does when one of those it wants is over.
        wanted = node.start(node.revision(DOUBLE))
        assert await within(runner.wait()) == 0
        assert (await answer)[0] == 200
        assert node.seen(wanted) == []

    run(scenario)


def test_a_runner_that_ends_waits_as_long_as_was_set_for_what_is_in_flight(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        begun = tmp_path / "begun"
        busy = await node.ready(node.start(node.revision(NAPS.format(begun=begun, seconds=600))))
        answer = asyncio.create_task(call(busy.address))
        await node.until(begun.exists)
        assert await node.stop_runner() == 0
        assert (await node.gone(busy.replica)).detail == "cut after 0.7 s of draining"
        with pytest.raises(IndexError):
            await answer

    run(scenario, policy=Policy(stop_grace_s=0.7))


def test_an_orphaned_runner_makes_room_for_the_next_and_no_other_does() -> None:
    async def scenario(node: Node) -> None:
        reading, writing = os.pipe()
        await node.stop_runner()
        await node.until(lambda: not node.connected.is_set())
        node.flags = ("--supervisor-fd", str(reading))
        await node.start_runner(pass_fds=(reading,))
        first = node.runners[-1]
        os.close(reading)
        await within(node.connected.wait())
        a = await node.ready(node.start(node.revision(DOUBLE)))
        node.flags = ()
        await node.start_runner()
        await asyncio.sleep(0.5)
        assert first.returncode is None
        os.close(writing)
        await within(first.wait())
        node.facts.clear()
        await node.ready(a.replica)
        assert await call(a.address) == (200, 2)
        assert alive(a.pid or 0)
        await within(node.connected.wait())

    run(scenario, orphan_s=60.0)


def test_a_home_that_cannot_be_used_is_refused_with_the_way_out(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    argv = [sys.executable, "-m", "swell.runtime.runner", "--settings", settings_json(Home(long))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "too long" in done.stderr
    assert "SWELL_HOME" in done.stderr
