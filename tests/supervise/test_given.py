"""Is each process given the settings that are its own?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from theatre import Stage

from swell.supervise.server import RUNNER_SETTINGS
from swell.wire.identity import read
from swell.wire.settings import Settings

CHOSEN = {
    "cpu_overcommit": 2.5,
    "orphan_s": 11.5,
    "cancel_grace_s": 0.25,
    "fork_probe_s": 1.5,
    "log_max_mib": 7,
    "history_days": 2.5,
    "cache_days": 3.5,
    "cache_max_gib": 0.5,
}


def test_the_runner_is_given_what_was_set(stage: Callable[..., Stage]) -> None:
    assert CHOSEN.keys() == set(RUNNER_SETTINGS) <= set(Settings.__struct_fields__)
    server = stage(settings={**CHOSEN, "policy": {"stop_grace_s": 4.5}})
    server.up()
    runner = read(server.home.process_record("runner"))
    assert runner is not None
    words = Path(f"/proc/{runner.pid}/cmdline").read_text().split("\0")
    for name, value in (*CHOSEN.items(), ("stop_grace_s", 4.5)):
        assert words[words.index(f"--{name.replace('_', '-')}") + 1] == str(value)
