"""Is each process given what was set?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from theatre import Stage

from swell.model.policy import Policy
from swell.supervise.server import NAMES
from swell.wire.identity import read
from swell.wire.settings import Settings


@pytest.mark.parametrize("name", NAMES)
def test_a_process_is_given_all_settings_and_the_port_there_is(name: str, stage: Callable[..., Stage]) -> None:
    server = stage(settings={"cache_days": 3.5, "port": 0, "grpc_port": 0, "policy": {"stop_grace_s": 4.5}})
    port = int(server.up().rpartition(":")[2])
    process = read(server.home.process_record(name))
    assert process is not None
    words = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
    told = msgspec.json.decode(words[words.index("--settings") + 1], type=Settings)
    home = str(server.home.root)
    assert told.grpc_port
    assert told == Settings(home, port=port, grpc_port=told.grpc_port, cache_days=3.5, policy=Policy(stop_grace_s=4.5))
