"""Is what a replica used counted once, whole, and as the kernel accounts it?"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.runtime.runner import meter, processes
from swell.runtime.runner.cgroup import Group
from swell.runtime.runner.meter import Meter

steps = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 10), st.floats(0, 4096), st.booleans()), min_size=1, max_size=20
)


@given(steps)
def test_intervals_add_up_to_the_counters(readings: list[tuple[float, float, float, bool]]) -> None:
    start = 1000.0
    counter = Meter("r1-1", "pool", "serving", start)
    at, cpu_s, total = start, 0.0, None
    starting_s = 0.0
    for wall_s, used_s, memory_mib, starting in readings:
        at, cpu_s = at + wall_s, cpu_s + used_s
        usage = counter.sample(at, cpu_s, memory_mib, starting)
        assert usage.memory_mib_s <= 4096 * wall_s + 1e-6
        starting_s += wall_s if starting else 0.0
        total = usage if total is None else total.plus(usage)
    assert total is not None
    assert total.wall_s == pytest.approx(at - start)
    assert total.cpu_s == pytest.approx(cpu_s)
    assert total.starting_s == pytest.approx(starting_s)
    assert total.at == at


def test_a_counter_that_cannot_be_read_any_more_takes_nothing_back() -> None:
    counter = Meter("r1-1", "pool", "serving", 0.0)
    assert counter.sample(1.0, 5.0, 10.0, False).cpu_s == 5.0
    assert counter.sample(2.0, 0.0, 0.0, False).cpu_s == 0.0
    assert counter.sample(3.0, 6.0, 10.0, False).cpu_s == 1.0


def test_what_another_runner_accounted_for_is_not_counted_again() -> None:
    assert Meter("r1-1", "pool", "serving", 0.0, cpu_s=7.0).sample(1.0, 7.5, 0.0, False).cpu_s == 0.5


def test_without_groups_the_process_tables_are_read() -> None:
    """The figure of a live process is the kernel's, to its clock's tick; children it waited for included."""
    code = (
        "import subprocess, sys, time\n"
        "subprocess.run([sys.executable, '-c', 'import time\\nwhile time.process_time() < .3: pass'])\n"
        "print('done', flush=True); time.sleep(60)"
    )
    none = Group(1, {})
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            seen = meter.cpu_s(none, process.pid)
            own = meter.cpu_s(none, process.pid, "template")
            assert meter.memory_mib(none, process.pid) > 1
        finally:
            process.kill()
            _, _, used = os.wait4(process.pid, 0)
            process.returncode = -9
    # Each of the four counters is cut off to a tick of 10 ms.
    assert 0.3 - 0.04 <= seen <= used.ru_utime + used.ru_stime + 0.04
    # The children a template waits for are replicas, and counted as such.
    assert own <= used.ru_utime + used.ru_stime - 0.3 + 0.04
    assert meter.cpu_s(none, process.pid, "template", 9.0) == 9.0
    assert processes.cpu_s(process.pid) == 0.0
    assert meter.memory_mib(none, process.pid) == 0.0
