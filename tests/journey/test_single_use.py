"""A replica for one input each: as many as there are inputs, and not one more."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from private_swell import PrivateSwell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SOURCE = """
import os
import swell

app = swell.App("once")


@app.function(single_use_containers=True, scaledown_window=600)
def pid() -> int:
    return os.getpid()
"""


def test_no_replica_is_started_that_nobody_asked_for(own_swell: PrivateSwell, tmp_path: Path) -> None:
    (tmp_path / "once.py").write_text(SOURCE)
    own_swell.run("deploy", str(tmp_path / "once.py"))
    with own_swell.connect() as client:
        pids = {client.call("once/pid").value for _ in range(5)}
    assert len(pids) == 5
    wait_until("its replicas are gone", lambda: own_swell.serving() == [], wait_s=120)
    time.sleep(0.5)
    assert own_swell.serving() == []
