"""Is it shown what really limits each replica and each template?"""

from __future__ import annotations

import json

import pytest

from journey.callers import call, command
from private_swell import PrivateSwell
from swell.runtime import limits
from swell.runtime.runner import cgroup

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

APP = """
import threading, time
import swell

app = swell.App("limited")

@app.cls(cpu=(0.1, 0.5), memory=(128, 512), enable_memory_snapshot=True)
class Limited:
    @swell.enter(snap=True)
    def load(self):
        threading.Thread(target=time.sleep, args=(600,), daemon=True, name="refresh").start()

    @swell.method()
    def groups(self):
        return open("/proc/self/cgroup").read()
"""


def test_what_limits_a_replica_is_shown_as_it_was_applied(own_swell: PrivateSwell) -> None:
    file = own_swell.scratch / "limited.py"
    file.write_text(APP)
    own_swell.run("deploy", str(file))
    groups = call(own_swell, "limited/Limited.groups").value
    rows = {row["role"]: row for row in json.loads(command(own_swell, "ps", "limited", "--json").out)}
    assert rows.keys() == {"serving", "template"}
    probe = cgroup.find("swell-probe")
    probe.remove()
    for row in rows.values():
        applied = row["applied"]
        assert set(limits.RLIMITS_APPLIED) <= set(applied)
        for noun, words in (("memory", "memory 512 MiB"), ("cpu", "cpu 0.5 cores")):
            if noun in probe.bases:
                assert f"{words} (cgroup v{probe.version})" in applied
            else:
                assert any(said.startswith(f"no {noun} limit: ") for said in applied)
    assert "threads that a fork will not have: refresh" in rows["template"]["applied"]
    assert not probe.bases or rows["serving"]["id"] in groups
