"""Are a replica's limits written where its kernel reads them, and said truthfully where they cannot be?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from node import alive

from swell.model.resources import Needs
from swell.runtime import limits
from swell.runtime.runner import cgroup
from swell.runtime.runner.cgroup import Groups

LIMITED = Needs(cpu_limit=0.5, memory_limit_mib=64)


def fake_v1(root: Path) -> tuple[str, str]:
    """Mount points of version 1 as plain folders: (mounts, own groups)."""
    for controller in cgroup.CONTROLLERS:
        (root / controller).mkdir()
    mounts = "\n".join(f"cgroup {root}/{c} cgroup rw,relatime,{c} 0 0" for c in cgroup.CONTROLLERS)
    own = "\n".join(f"{n}:{c}:/" for n, c in enumerate(cgroup.CONTROLLERS, 1))
    return mounts + f"\ncgroup2 {root}/unified cgroup2 rw 0 0", own + "\n0::/"


def fake_v2(root: Path, own: str = "/", delegated: str = "memory cpu pids") -> tuple[str, str]:
    """A unified hierarchy as plain folders."""
    here = root / own.lstrip("/")
    here.mkdir(parents=True, exist_ok=True)
    (here / "cgroup.subtree_control").write_text(delegated)
    return f"cgroup2 {root} cgroup2 rw 0 0", f"0::{own}"


def test_version_1_writes_each_limit_into_its_controller(tmp_path: Path) -> None:
    group = cgroup.find("swell-x", *fake_v1(tmp_path)).create("r1-1", LIMITED)
    assert (tmp_path / "memory/swell-x/r1-1/memory.limit_in_bytes").read_text() == str(64 * 2**20)
    assert (tmp_path / "cpu/swell-x/r1-1/cpu.cfs_quota_us").read_text() == "50000"
    assert (tmp_path / "pids/swell-x/r1-1/pids.max").read_text() == str(cgroup.PROCESSES_MAX)
    assert group.applied == ("4096 processes (cgroup v1)", "memory 64 MiB (cgroup v1)", "cpu 0.5 cores (cgroup v1)")
    assert {Path(p).name for p in group.membership} == {"tasks"}
    assert len(group.membership) == len(cgroup.CONTROLLERS)


def test_version_2_writes_into_one_folder_and_delegates_its_controllers(tmp_path: Path) -> None:
    mounts, own = fake_v2(tmp_path)
    base = tmp_path / "swell-x"
    base.mkdir()
    (base / "cgroup.subtree_control").write_text("")
    group = cgroup.find("swell-x", mounts, own).create("r1-1", LIMITED)
    folder = base / "r1-1"
    assert (base / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (folder / "memory.max").read_text() == str(64 * 2**20)
    assert (folder / "cpu.max").read_text() == "50000 100000"
    assert group.membership == (str(folder / "cgroup.procs"),)
    assert "memory 64 MiB (cgroup v2)" in group.applied
    (folder / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (folder / "memory.current").write_text(str(3 * 2**20))
    (folder / "memory.events").write_text("oom 1\noom_kill 2\n")
    assert (group.cpu_s(), group.memory_mib(), group.oom_kills()) == (2.5, 3.0, 2)


def test_version_2_without_delegation_says_so(tmp_path: Path) -> None:
    mounts = f"cgroup2 {tmp_path} cgroup2 rw 0 0"
    groups = cgroup.find("swell-x", mounts, "0::/user.slice")
    group = groups.create("r1-1", LIMITED)
    assert groups.bases == {}
    assert any(said.startswith("no memory limit: cgroups not writable") for said in group.applied)
    assert group.unmet == ("pids", "memory", "cpu")


def test_without_any_cgroup_everything_still_answers() -> None:
    group = cgroup.find("swell-x", "proc /proc proc rw 0 0", "").create("r1-1", LIMITED)
    assert group.applied == tuple(f"no {n} limit: no cgroups on this system" for n in ("process", "memory", "cpu"))
    assert (group.cpu_s(), group.memory_mib(), group.oom_kills(), group.membership) == (None, None, 0, ())
    assert group.kill()
    assert group.remove()


# -- the kernel's own, or what is done where it lets us do nothing -------------------------------


@pytest.fixture
def groups() -> Iterator[Groups]:
    found = cgroup.find(f"swell-test-{uuid.uuid4().hex[:8]}")
    assert found.bases or found.missing
    yield found
    for name in found.names():
        found.open(name).kill()
        found.open(name).remove()
    found.remove()


def run_in(membership: tuple[str, ...], code: str, bounds: limits.Rlimits = ()) -> subprocess.CompletedProcess[str]:
    joining = f"from swell.runtime import limits; limits.enter({membership!r}, {bounds!r})\n"
    return subprocess.run([sys.executable, "-c", joining + code], capture_output=True, text=True, timeout=60)


def test_too_much_memory_ends_a_process_or_fails_in_it_and_which_is_known(groups: Groups) -> None:
    needs = Needs(memory_limit_mib=64)
    group = groups.create("r1-1", needs)
    bounds, _ = limits.address_space(64 if "memory" in group.unmet else None)
    done = run_in(group.membership, "x = bytearray(200 << 20)", bounds)
    if "memory" in group.folders:
        assert "memory" not in group.unmet
        assert (done.returncode, group.oom_kills()) == (-9, 1)
    else:
        assert f"no memory limit: {groups.missing}" in group.applied
        assert (done.returncode, group.oom_kills()) == (1, 0)
        assert "MemoryError" in done.stderr


def test_cpu_and_memory_are_counted_where_they_can_be_and_the_groups_can_go(groups: Groups) -> None:
    group = groups.create("r1-2", Needs())
    code = "import time\nend = time.process_time() + .3\nwhile time.process_time() < end: pass"
    done = run_in(group.membership, code)
    assert done.returncode == 0, done.stderr
    used = group.cpu_s()
    if group.folders.keys() & {"cpuacct"} or (group.version == 2 and group.folders):
        assert used is not None
        assert used >= 0.3
    else:
        assert used is None
    assert group.kill()
    assert group.remove()
    assert "r1-2" not in groups.names()


@pytest.mark.slow
def test_cpu_above_the_limit_has_to_wait(groups: Groups) -> None:
    group = groups.create("r1-4", Needs(cpu_limit=0.1))
    code = "import time\nend = time.process_time() + .2\nwhile time.process_time() < end: pass"
    begun = time.monotonic()
    done = run_in(group.membership, code)
    assert done.returncode == 0, done.stderr
    if "cpu" in group.unmet:
        assert f"no cpu limit: {groups.missing}" in group.applied
    else:
        # Of 0.2 s, at a tenth of a core, no more than the first period's share comes without waiting.
        assert time.monotonic() - begun > 1.5


def test_there_are_no_more_processes_than_the_limit(groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "PROCESSES_MAX", 20)
    group = groups.create("r1-5", Needs())
    code = (
        "import os, signal, sys\nmade = []\ntry:\n"
        "    while len(made) < 40:\n        made.append(os.fork())\n        made[-1] or signal.pause()\n"
        "except BlockingIOError:\n    pass\n"
        "for pid in made: os.kill(pid, 9)\nprint(len(made))"
    )
    done = run_in(group.membership, code)
    assert done.returncode == 0, done.stderr
    if "pids" in group.unmet:
        assert f"no process limit: {groups.missing}" in group.applied
    else:
        assert done.stdout == "19\n"
        assert "20 processes (cgroup v1)" in group.applied or "20 processes (cgroup v2)" in group.applied


def test_kill_ends_what_left_its_session_where_a_group_knows_of_it(groups: Groups) -> None:
    group = groups.create("r1-3", Needs())
    quiet = "start_new_session=True, stdout=-3, stderr=-3"
    code = f"import subprocess\np = subprocess.Popen(['sleep', '60'], {quiet})\nprint(p.pid)"
    pid = int(run_in(group.membership, code).stdout)
    assert group.pids() == ({pid} if group.folders else set())
    while not group.kill():
        pass
    if group.folders:
        assert not alive(pid)
    else:
        assert alive(pid)
        os.kill(pid, signal.SIGKILL)
