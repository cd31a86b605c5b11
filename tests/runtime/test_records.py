"""Are records found again as they were written, and is one that cannot be written no reason to stop?"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest

from swell.runtime.runner import records
from swell.runtime.runner.records import Record

RECORD = Record(
    "r1-1", "default/a/f@rv-1", "serving", 7, 70, "unix:/x", "r1-0", 1.5, 2.5, 60.0, "r1-1", ("/b",), ("memory 64 MiB",)
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    other = msgspec.structs.replace(RECORD, replica="r1-2", pid=8)
    records.write(tmp_path, RECORD)
    records.write(tmp_path, msgspec.structs.replace(other, pid=9))
    records.write(tmp_path, other)
    assert records.read_all(tmp_path) == [RECORD, other]
    records.remove(tmp_path, RECORD.replica)
    assert records.read_all(tmp_path) == [other]


def test_what_cannot_be_read_is_removed(tmp_path: Path) -> None:
    (tmp_path / "r1-1.json").write_text("{")
    assert records.read_all(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_one_that_cannot_be_written_is_said_and_leaves_no_older_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records.write(tmp_path, RECORD)
    (tmp_path / "r1-1.tmp").symlink_to("/dev/full")
    with caplog.at_level(logging.WARNING, "swell.runner"):
        records.write(tmp_path, RECORD)
    assert "No space left on device" in caplog.text
    assert list(tmp_path.iterdir()) == []
