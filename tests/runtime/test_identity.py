"""Are processes told apart, and families known, by what the system says of them?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from swell.wire.identity import Identity, children, identify

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A child that a thread of this process started."""
    started: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(target=lambda: started.append(subprocess.Popen(SLEEP)))
    thread.start()
    thread.join()
    [process] = started
    yield process
    process.kill()
    process.wait()


def test_a_signal_reaches_the_very_process_and_no_other_with_its_pid(sleeper: subprocess.Popen[bytes]) -> None:
    process = identify(sleeper.pid)
    assert process is not None
    earlier = Identity(process.pid, process.start_ticks - 1)
    assert not earlier.alive
    earlier.signal(signal.SIGKILL)
    assert process.alive
    process.signal(signal.SIGKILL)
    assert process.wait(30.0)


def test_a_zombie_is_still_a_child_but_not_alive(sleeper: subprocess.Popen[bytes]) -> None:
    process = identify(sleeper.pid)
    assert process is not None
    assert sleeper.pid in children(os.getpid())
    sleeper.kill()
    assert process.wait(30.0)
    assert sleeper.pid in children(os.getpid())
    sleeper.wait()
    assert sleeper.pid not in children(os.getpid())
    assert children(sleeper.pid) == []
