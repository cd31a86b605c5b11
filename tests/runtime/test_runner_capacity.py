"""Is a node's memory what the kernel would really give, whatever sets the limit?"""

from __future__ import annotations

from pathlib import Path

import pytest

from swell.runtime.runner import capacity

MIB = 2**20


def machine(root: Path, available_mib: int, **limits: str) -> Path:
    """A root folder with /proc/meminfo and, by version, the limit of the group we are in."""
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available_mib * 1024} kB\n")
    for version, limit in limits.items():
        name = "memory.max" if version == "v2" else "memory/memory.limit_in_bytes"
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True)
        path.write_text(limit + "\n")
    return root


@pytest.mark.parametrize(
    ("limits", "mib"),
    [
        ({}, 800),
        ({"v1": str(500 * MIB)}, 400),
        ({"v2": str(100 * MIB)}, 80),
        ({"v2": "max"}, 800),
        ({"v1": "9223372036854771712"}, 800),
        ({"v2": str(5000 * MIB)}, 800),
    ],
)
def test_the_lesser_of_what_is_free_and_what_is_allowed(limits: dict[str, str], mib: int, tmp_path: Path) -> None:
    assert capacity.memory_mib(machine(tmp_path, 1000, **limits)) == mib


def test_this_machine_has_something_to_give() -> None:
    assert capacity.cores() >= 1
    assert capacity.memory_mib() > 0
