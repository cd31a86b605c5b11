"""Do libraries whose threads a fork does not have work in the forks of a template, or at least never hang for ever?

What each does there was measured, and is told in docs/templates.md. Here it is tried again with the real packages.
"""

from __future__ import annotations

import pytest
from node import Node, alive, call, run, within

from swell.model.isolation import LAYERS, Isolation
from swell.model.workload import Revision

pytestmark = pytest.mark.slow


async def fork_of(node: Node, revision: Revision) -> str:
    """A fork of a new template of this revision; returns its address."""
    template = await node.ready(node.start(revision, role="template"))
    fork = await node.ready(node.start(revision, template=template.replica))
    assert "fork" in dict(fork.timings_ms)
    return fork.address


# -- libraries that may be used on both sides ------------------------------------------------------

LEARN = """
import numpy as np
from sklearn.cluster import KMeans
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
class C:
    def load(self):
        self.x = np.random.default_rng(1).normal(size=(3000, 8))
        self.y = self.x[:, 0] > 0
        self.boosted = HistGradientBoostingClassifier(max_iter=5).fit(self.x, self.y)
        self.forest = RandomForestClassifier(10, n_jobs=2, random_state=0).fit(self.x, self.y)
        self.before = self.f()
    def f(self):
        again = HistGradientBoostingClassifier(max_iter=2).fit(self.x, self.y)
        scores = [float(model.score(self.x, self.y)) for model in (self.boosted, again, self.forest)]
        means = KMeans(3, n_init=1, random_state=0).fit(self.x)
        return [*scores, float(means.inertia_), float((self.x.T @ self.x).trace())]
    def g(self):
        return self.before
"""


def test_what_scikit_learn_and_numpy_did_in_the_template_they_do_in_its_forks() -> None:
    """libgomp's thread team does not survive a fork; with one thread there is no team."""
    pytest.importorskip("sklearn")

    async def scenario(node: Node) -> None:
        address = await fork_of(node, node.revision(LEARN, "C", enter_snap=("load",), methods=("f", "g")))
        status, here = await within(call(address))
        assert status == 200
        assert await call(address, "g") == (200, pytest.approx(here))
        assert min(here[:3]) > 0.9

    run(scenario)


ONNX = """
import threading
import numpy as np
import onnxruntime as ort
from onnxruntime.datasets import get_example

def session(intra=1, inter=0):
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra
    if inter:
        options.execution_mode, options.inter_op_num_threads = ort.ExecutionMode.ORT_PARALLEL, inter
    return ort.InferenceSession(get_example("sigmoid.onnx"), options, providers=["CPUExecutionProvider"])

def score(made):
    x = np.zeros((3, 4, 5), dtype=np.float32)
    return float(made.run(None, {made.get_inputs()[0].name: x})[0].sum())
"""
ONE_HALF = 3 * 4 * 5 / 2


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("used", [False, True])
def test_an_onnx_session_of_the_template_runs_in_its_forks_as_a_new_one_does(threads: int, used: bool) -> None:
    pytest.importorskip("onnxruntime")

    async def scenario(node: Node) -> None:
        source = f"""{ONNX}
class C:
    def load(self):
        self.made = session({threads})
        {"score(self.made)" if used else ""}
    def f(self):
        return [score(self.made), score(session({threads}))]
"""
        address = await fork_of(node, node.revision(source, "C", enter_snap=("load",)))
        assert await within(call(address)) == (200, [ONE_HALF, ONE_HALF])

    run(scenario)


def test_a_template_is_not_forked_in_the_middle_of_a_threads_onnx_run() -> None:
    """It holds a lock of the session, or of its arena, for some hundredths of a run: a fork would wait for ever."""
    pytest.importorskip("onnxruntime")

    async def scenario(node: Node) -> None:
        source = f"""{ONNX}
class C:
    def load(self):
        self.made = session()
        def work():
            while True:
                score(self.made)
        threading.Thread(target=work, daemon=True, name="scoring").start()
    def f(self):
        return score(self.made)
"""
        revision = node.revision(source, "C", enter_snap=("load",))
        template = await node.ready(node.start(revision, role="template"))
        assert "threads that a fork will not have: scoring" in template.applied
        for _ in range(2):
            fresh = await node.ready(node.start(revision, template=template.replica))
            assert "threads of it do not rest (scoring)" in fresh.unforked
            assert await within(call(fresh.address)) == (200, ONE_HALF)

    run(scenario)


def test_importing_onnxruntime_leaves_no_thread_in_the_template() -> None:
    pytest.importorskip("onnxruntime")

    async def scenario(node: Node) -> None:
        revision = node.revision("import onnxruntime\ndef f():\n    return 1\n")
        template = await node.ready(node.start(revision, role="template"))
        assert not [said for said in template.applied if "threads" in said]

    run(scenario)


def test_a_fork_ends_though_onnxruntimes_telemetry_thread_is_not_in_it() -> None:
    """With that thread, the library's exit handler waits for it; a fork runs none."""
    pytest.importorskip("onnxruntime")

    async def scenario(node: Node) -> None:
        source = f"import os\nos.environ.pop('ORT_DISABLE_TELEMETRY')\n{ONNX}\ndef f():\n    return score(session())\n"
        revision = node.revision(source)
        template = await node.ready(node.start(revision, role="template"))
        fork = await node.ready(node.start(revision, template=template.replica))
        assert await within(call(fork.address)) == (200, ONE_HALF)
        node.stop(fork.replica, grace_s=20)
        over = await node.gone(fork.replica)
        assert (over.reason, over.detail) == ("idle", "")

    run(scenario)


# -- what hangs ------------------------------------------------------------------------------------

TWO_THREADS = """
import os
os.environ["OMP_NUM_THREADS"] = "2"
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
class C:
    def load(self):
        self.x = np.random.default_rng(1).normal(size=(3000, 8))
        self.model = HistGradientBoostingClassifier(max_iter=5).fit(self.x, self.x[:, 0] > 0)
    async def f(self):
        return float(self.model.score(self.x, self.x[:, 0] > 0))
"""
PARALLEL = f"""{ONNX}
class C:
    def load(self):
        self.made = session(inter=2)
    def f(self):
        return score(self.made)
"""
FREED = f"""{ONNX}
import time
class C:
    def load(self):
        self.made = session(2)
        score(self.made)
        time.sleep(1)  # Until its threads have gone to sleep: those that still spin do no harm.
    def f(self):
        del self.made
"""


def test_a_team_of_threads_is_missed_on_the_templates_own_thread_only() -> None:
    """libgomp keeps a team for each thread: a plain def runs on a thread that the fork made, and makes its own."""
    pytest.importorskip("sklearn")

    async def scenario(node: Node) -> None:
        source = TWO_THREADS.replace("async def", "def")
        address = await fork_of(node, node.revision(source, "C", enter_snap=("load",)))
        status, right = await within(call(address))
        assert status == 200
        assert right > 0.9

    run(scenario)


@pytest.mark.parametrize(
    ("package", "source"), [("sklearn", TWO_THREADS), ("onnxruntime", PARALLEL), ("onnxruntime", FREED)]
)
def test_a_library_that_hangs_in_a_fork_is_ended_by_the_deadline(package: str, source: str) -> None:
    """With a version that does not hang, the call is answered."""
    pytest.importorskip(package)

    async def scenario(node: Node) -> None:
        revision = node.revision(source, "C", enter_snap=("load",))
        template = await node.ready(node.start(revision, role="template"))
        assert [said for said in template.applied if "threads" in said]
        fork = await node.ready(node.start(revision, template=template.replica))
        try:
            status, told = await within(call(fork.address, remaining_ms=1000))
        except (OSError, IndexError):
            pass  # What blocks the loop lets nobody answer.
        else:
            if status == 200:
                return
            assert (status, told["error"]["code"]) == (504, "deadline")
        # Where it holds the interpreter's lock as well, a thread of C ends the process, which nobody can then tell of.
        assert (await node.gone(fork.replica)).reason in ("stuck", "crashed")
        assert not alive(fork.pid or 0)

    run(scenario)


# -- code that meddles with its own template ---------------------------------------------------------


def test_a_fork_in_a_sandbox_of_which_no_descriptor_comes_is_started_fresh() -> None:
    """Which process it is cannot be known then. Code in the sandbox could see to that, too."""

    async def scenario(node: Node) -> None:
        source = """
        import swell.runtime.template
        class C:
            def load(self):
                swell.runtime.template.open_pidfd = lambda pid: None
            def f(self):
                return 1
        """
        sandbox = Isolation(optional=tuple(LAYERS))
        revision = node.revision(source, "C", enter_snap=("load",), isolation=sandbox)
        template = await node.ready(node.start(revision, role="template"))
        fork = await node.ready(node.start(revision, template=template.replica))
        assert "did not come back from a fork" in fork.unforked
        assert (await call(fork.address))[0] == 200

    run(scenario, fork_probe_s=2.0)
