"""Nobody is started for who is gone, and who is idle gives way: what only a clock or an event would tell otherwise."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from journey.journal import actions, world_log
from private_swell import Failed, free_port, private_swell, wait_until
from swell.model.plan import Start, Stop

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CRASHES = """
import os
import swell

app = swell.App("crashes")


@app.function()
def now() -> None:
    os._exit(7)
"""

LISTENS = """
import subprocess, sys
import swell

app = swell.App("{name}")


@app.function(scaledown_window=600)
@swell.web_server({port}, label="{name}", startup_timeout=30)
def site():
    subprocess.Popen([sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"])
"""


def test_a_replica_that_crashes_on_its_request_is_not_followed_by_one_for_nobody(tmp_path: Path) -> None:
    calls = 4
    (tmp_path / "crashes.py").write_text(CRASHES)
    with private_swell() as swell:
        swell.run("deploy", str(tmp_path / "crashes.py"))
        with swell.connect() as client:
            for _ in range(calls):
                with pytest.raises(Failed, match="502"):
                    client.call("crashes/now")
                # Longer than levels may be untold.
                time.sleep(1.0)
                wait_until("none serves", lambda: swell.serving() == [])
        swell.run("down")
        log = actions(world_log(swell.home))
    assert len([a for a in log if isinstance(a, Start) and a.role == "serving"]) == calls


def test_a_port_that_an_idle_service_holds_is_given_to_the_one_that_is_asked_for(tmp_path: Path) -> None:
    port = free_port()
    with private_swell() as swell:
        for name in ("one", "other"):
            (tmp_path / f"{name}.py").write_text(LISTENS.format(name=name, port=port))
            swell.run("deploy", str(tmp_path / f"{name}.py"))
        with swell.connect() as client:
            for name in ("one", "other", "one"):
                answer = client.get(f"/web/{name}/")
                assert answer.status == 200
                # The one before had gone before this one could listen.
                assert [replica["workload"] for replica in swell.serving()] == [f"default/{name}/site"]
        assert f"could not be started at once: it asks for port {port}" in swell.run("why", answer.request)
        swell.run("down")
        given = [a for a in actions(world_log(swell.home)) if isinstance(a, Stop) and a.reason == "reclaimed"]
    assert [f"port {port}" in a.why for a in given] == [True, True]
