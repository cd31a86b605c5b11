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
def test_a_process_is_given_all_settings_but_for_passwords_and_the_port_there_is(
    name: str, stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "geheim")
    store = "postgresql://swell:geheim@db/swell"
    given = {"cache_days": 3.5, "port": 0, "grpc_port": 0, "policy": {"stop_grace_s": 4.5}, "store": store}
    server = stage(settings=given)
    port = int(server.up().rpartition(":")[2])
    process = read(server.home.process_record(name))
    assert process is not None
    words = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
    told = msgspec.json.decode(words[words.index("--settings") + 1], type=Settings)
    home = str(server.home.root)
    assert told.grpc_port
    # Everybody can read the words. Whose state it is has it elsewhere, and nobody else has.
    environ = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
    theirs = {"PGPASSWORD=geheim", f"SWELL_STORE={store}"} if name == "control" else set()
    assert {each for each in environ if "geheim" in each} == theirs
    assert told == Settings(home, port=port, grpc_port=told.grpc_port, cache_days=3.5, policy=Policy(stop_grace_s=4.5))
