"""How long is a server waited for that has to wait itself?"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from swell.supervise import background
from swell.supervise.lock import Holder, Lock
from swell.wire.paths import Home


def test_a_server_that_is_ending_may_end_first_however_long_its_requests_take(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Lock(Home(root))
    lock.say("stopping", end_s=600.0)
    next_one = Holder(1, 1, "ready")
    monkeypatch.setattr(background, "UP_S", 0.1)
    monkeypatch.setattr(background, "start", lambda _settings, _attached: next_one)
    ended = threading.Timer(0.5, lock.release)
    ended.start()
    try:
        assert background.ensure({"home": str(root), "port": 0}, os.getpid(), lambda _line: None) is next_one
    finally:
        ended.join()


def test_what_a_server_reports_may_be_longer_than_a_pipe_holds() -> None:
    words = "said last: " + "x" * 300_000
    reading, writing = os.pipe()

    def report() -> None:
        with open(writing, "wb") as said:
            said.write(json.dumps({"error": {"message": words}}).encode() + b"\n")

    reporting = threading.Thread(target=report)
    reporting.start()
    try:
        assert background._answer(reading, 60.0) == {"error": {"message": words}}
    finally:
        os.close(reading)
        reporting.join()
