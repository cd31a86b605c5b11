"""Does a process take the limits it is given, and is what stands in for a memory limit real?"""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from swell.runtime import limits

UNDER = """
import resource, sys
from swell.runtime import limits
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
bounds, said = limits.address_space(int(sys.argv[2]))
limits.enter((), (*limits.RLIMITS, *bounds))
print(*said, resource.getrlimit(resource.RLIMIT_AS)[0] >> 20, resource.getrlimit(resource.RLIMIT_CORE), sep="|")
try:
    print(len(bytearray(600 << 20)) >> 20)
except MemoryError:
    print("MemoryError")
"""


def under(hard: int, limit_mib: int) -> list[str]:
    """What a process under that hard limit sees and can allocate."""
    argv = [sys.executable, "-c", UNDER, str(hard), str(limit_mib)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()


@pytest.mark.slow
def test_address_space_is_bounded_and_that_is_said() -> None:
    words = "MiB of address space per process instead (rlimit)"
    assert under(resource.RLIM_INFINITY, 500) == [f"500 {words}|500|(0, 0)", "MemoryError"]
    assert under(resource.RLIM_INFINITY, 2000) == [f"2000 {words}|2000|(0, 0)", "600"]


def test_a_harder_limit_that_holds_already_is_kept() -> None:
    assert under(400 << 20, 2000)[0].startswith("400 MiB")


def test_nothing_is_bounded_where_nothing_was_asked() -> None:
    assert limits.address_space(None) == ((), ())


def test_a_hard_limit_that_cannot_be_had_leaves_the_soft_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS says "unlimited" and does not mean it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def refuse(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    limits.take_descriptors()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
