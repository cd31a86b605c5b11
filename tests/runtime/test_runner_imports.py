"""How long may the import take that a deploy tries?"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from swell.model.environment import Environment
from swell.model.orders import BuildReport
from swell.model.secret import Revealed, SecretUse
from swell.model.workload import Entry, Method, Revision
from swell.runtime.runner import builds
from swell.runtime.runner.cgroup import Groups
from swell.runtime.runner.processes import Reaper
from swell.runtime.runner.sandbox.maker import Sandboxes
from swell.runtime.runner.secrets import SecretBook
from swell.sdk import bundle
from swell.wire.link import Secrets
from swell.wire.paths import Home

pytestmark = pytest.mark.slow

SLOW = b"import time\ntime.sleep(0.5)\ndef f(): pass\n"


TOLD = b"""
import os
os.lseek(0, 0, 0)
assert b"of today" in (told := os.read(0, 65536))
assert b"of yesterday" not in told, told
def f(): pass
"""


def built(home: Home, startup_timeout_s: float, text: bytes = SLOW, secrets: tuple[Revealed, ...] = ()) -> BuildReport:
    """A module, imported anew."""
    source = home.root / "slow.py"
    source.write_bytes(text)
    packed = bundle.pack({"slow.py": source})
    home.blobs.mkdir(parents=True, exist_ok=True)
    (home.blobs / packed.digest).write_bytes(packed.data)
    revision = Revision(
        Environment(sys.executable, f"{sys.version_info[0]}.{sys.version_info[1]}"),
        packed.digest,
        Entry("slow", "f", "function", (Method("f"),)),
        startup_timeout_s=startup_timeout_s,
        secrets=tuple(SecretUse(*secret.key) for secret in secrets),
    )
    book = SecretBook()
    book.hear(Secrets(1, secrets, whole=True))

    async def build() -> BuildReport:
        reaper = Reaper(lambda _pid, _exit: None)
        reaper.start()
        builder = builds.Builder(home, reaper, os.environ, Sandboxes(home, Groups(1, {}, "none here")), book)
        return await builder.build(revision, lambda _line: None)

    return asyncio.run(build())


def test_it_has_the_time_that_a_start_has_and_a_minute_at_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    assert built(home, 0.25).ok
    monkeypatch.setattr(builds, "IMPORT_TIMEOUT_MIN_S", 0.125)
    late = built(home, 0.25)
    assert (late.ok, late.error) == (False, "import")
    assert "took longer than 0.25 s" in late.message
    assert "startup_timeout=" in late.message
    assert built(home, 90.0).ok


def test_code_is_told_no_former_values_of_its_secrets(tmp_path: Path) -> None:
    secret = Revealed("default", "db", 2, (("A", "of today"),), (("A", "of yesterday"),))
    report = built(Home(tmp_path), 60.0, TOLD, (secret,))
    assert report.ok, report
