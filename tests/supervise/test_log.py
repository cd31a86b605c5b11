"""Is every line kept, does the log stay small, and does a terminal see what matters and nothing else?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.supervise import log
from swell.supervise.log import Log, quiet

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@given(st.sampled_from(LEVELS), st.text(st.characters(exclude_categories=("C", "Z"))), st.booleans())
def test_a_line_is_quiet_by_its_level_alone(level: str, text: str, before: bool) -> None:
    wanted = level in ("DEBUG", "INFO")
    assert quiet(f"2026-01-01 00:00:00,000 gateway {level} {text} ERROR", before) is wanted
    assert quiet(f"{level}: {text}", before) is wanted


@given(st.text(st.characters(exclude_categories=("C",))), st.booleans())
def test_an_indented_line_goes_with_the_one_before(text: str, before: bool) -> None:
    assert quiet(f"  {text}", before) is before


def test_a_line_of_no_level_is_shown() -> None:
    assert not quiet("Traceback (most recent call last):", True)
    assert not quiet("Killed", True)


def test_the_log_is_turned_over_and_what_is_redirected_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "SIZE_MAX", 1000)
    shown: list[str] = []
    kept = Log(tmp_path / "logs" / "swell.log", shown.append)
    spare = os.open(os.devnull, os.O_WRONLY)
    kept.redirect(spare)
    for n in range(100):
        kept.heard("control", f"INFO line {n}")
        kept.say(f"word {n}")
    os.write(spare, b"straight\n")
    kept.close()
    os.close(spare)
    files = {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert set(files) == {"swell.log", "swell.log.1"}
    assert all(len(text) <= 1000 + len("straight\n") for text in files.values())
    assert files["swell.log"].endswith("supervisor word 99\nstraight\n")
    assert shown == [f"word {n}" for n in range(100)]


@pytest.mark.parametrize("how", ["removed", "renamed", "no folder"])
def test_it_goes_on_when_its_file_is_taken_away(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "SIZE_MAX", 1000)
    path = tmp_path / "logs" / "swell.log"
    kept = Log(path, lambda _line: None)
    spare = os.open(os.devnull, os.O_WRONLY)
    kept.redirect(spare)
    if how == "renamed":
        path.rename(tmp_path / "elsewhere")
    else:
        path.unlink()
    if how == "no folder":
        path.parent.rmdir()
    # What is opened meanwhile has the number of anything that was closed before its time.
    others: list[int] = []
    for n in range(100):
        kept.heard("control", f"INFO line {n}")
        others.append(os.open(os.devnull, os.O_RDONLY))
    os.write(spare, b"straight\n")
    kept.close()
    for each in (spare, *others):
        os.close(each)
    if how != "no folder":
        assert path.read_text().endswith("INFO line 99\nstraight\n")


def test_a_full_disk_and_a_lost_terminal_are_no_reason_to_stop() -> None:
    shown: list[str] = []

    def show(line: str) -> None:
        shown.append(line)
        raise BrokenPipeError

    kept = Log(Path("/dev/full"), show)
    kept.say("a word")
    kept.heard("control", "ERROR a word")
    kept.close()
    assert shown == ["a word", "control | ERROR a word"]
