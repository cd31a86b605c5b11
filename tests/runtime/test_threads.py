"""Is a thread that runs told from one that rests, and is a template forked only while all of its threads rest?"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from node import Node, alive, call, run

pytestmark = pytest.mark.slow

BEGIN = """
import threading, time
from swell.runtime.threads import restless
gate, lock = threading.Event(), threading.Lock()
def begin(work, name):
    threading.Thread(target=work, name=name, daemon=True).start()
def spin():
    while not gate.is_set():
        pass
"""
FOR_EVER_S = 60
"""Not waited for where all rest."""


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (f"print(restless({FOR_EVER_S}))", "()"),
        (f"begin(lambda: time.sleep(600), 'sleeps')\nbegin(gate.wait, 'waits')\nprint(restless({FOR_EVER_S}))", "()"),
        (
            f"begin(gate.wait, 'waits')\nrestless({FOR_EVER_S})\nbegin(spin, 'spins')\nprint(restless(0.1))",
            "('spins',)",
        ),
        (f"begin(spin, 'spins')\nthreading.Timer(0.2, gate.set).start()\nprint(restless({FOR_EVER_S}))", "()"),
        # All but one of them wait for the interpreter.
        ("[begin(spin, 'spins') for _ in range(3)]\nprint('spins' in restless(0.1))", "True"),
    ],
)
def test_who_runs_does_not_rest(does: str, said: str) -> None:
    """In processes of their own: pytest has threads, too."""
    program = f"{BEGIN}\n{does}"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == f"{said}\n"


# -- forks -----------------------------------------------------------------------------------------

HOLDS = """
import threading, time
lock = threading.Lock()
class C:
    def load(self):
        begun = threading.Event()
        def work():
            with lock:
                begun.set()
                while time.thread_time() < WORK_S:
                    pass
            time.sleep(600)
        threading.Thread(target=work, daemon=True, name="warming").start()
        begun.wait()
    def f(self):
        with lock:
            return 1
"""


def test_a_template_is_forked_once_its_threads_rest() -> None:
    """Before that, the fork would have a lock that nobody gives back. (A fresh process, where they take too long.)"""

    async def scenario(node: Node) -> None:
        revision = node.revision(HOLDS.replace("WORK_S", "0.3"), "C", enter_snap=("load",))
        template = node.start(revision, role="template")
        forks = [node.start(revision, template=template) for _ in range(3)]
        for fork in forks:
            assert await call((await node.ready(fork)).address) == (200, 1)

    run(scenario)


@pytest.mark.parametrize("fork_probe_s", [5.0, 2.8])
def test_a_template_whose_threads_never_rest_is_refused_and_all_are_served(fork_probe_s: float) -> None:
    async def scenario(node: Node) -> None:
        source = """
        import threading
        def work():
            while True:
                sum(range(1000))
        threading.Thread(target=work, daemon=True, name="counting").start()
        def f():
            return "served"
        """
        revision = node.revision(source)
        template = await node.ready(node.start(revision, role="template"))
        for fork in [node.start(revision, template=template.replica) for _ in range(3)]:
            seen = await node.ready(fork)
            assert "exec" in dict(seen.timings_ms)
            assert await call(seen.address) == (200, "served")
        refused = {seen.fork_refused for seen in node.seen(template.replica) if seen.fork_refused}
        held = "what they hold at a fork stays locked in it: start them in enter()"
        assert refused == {f"threads of it do not rest (counting), and {held}"}
        assert alive(template.pid or 0)

    run(scenario, fork_probe_s=fork_probe_s)


def test_forks_that_wait_for_one_another_are_not_taken_for_one_that_hangs() -> None:
    """Together they wait for longer than any of them may."""

    async def scenario(node: Node) -> None:
        source = """
        import os, threading, time
        forked = threading.Event()
        def work():
            while True:
                forked.wait()
                forked.clear()
                until = time.monotonic() + 1.2
                while time.monotonic() < until:
                    pass
        os.register_at_fork(after_in_parent=forked.set)
        class C:
            def load(self):
                threading.Thread(target=work, daemon=True, name="after each").start()
            def f(self):
                return 1
        """
        revision = node.revision(source, "C", enter_snap=("load",))
        template = await node.ready(node.start(revision, role="template"))
        for fork in [node.start(revision, template=template.replica) for _ in range(6)]:
            seen = await node.ready(fork)
            assert "fork" in dict(seen.timings_ms), seen.unforked
        assert not any(seen.fork_refused for seen in node.seen(template.replica))

    run(scenario, fork_probe_s=4.0)


def test_a_first_fork_that_waited_has_all_its_time_to_come_to_life(tmp_path: Path) -> None:
    async def scenario(node: Node) -> None:
        source = """
        import os, threading, time
        os.register_at_fork(after_in_child=lambda: time.sleep(5))
        class C:
            def load(self):
                def work():
                    while not os.path.exists({rest!r}):
                        pass
                threading.Thread(target=work, daemon=True, name="warming").start()
            def f(self):
                return 1
        """.replace("{rest!r}", repr(str(tmp_path / "rest")))
        revision = node.revision(source, "C", enter_snap=("load",))
        template = await node.ready(node.start(revision, role="template"))
        fork = node.start(revision, template=template.replica)
        await asyncio.sleep(1.5)
        (tmp_path / "rest").touch()
        seen = await node.ready(fork)
        assert "fork" in dict(seen.timings_ms), seen.unforked

    run(scenario, fork_probe_s=6.0)
