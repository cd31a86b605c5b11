"""Is each change of an app's source seen once, and nothing else?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swell
from sdk import deployable
from swell.sdk import watch
from swell.sdk.disk import LocalPath
from swell.sdk.watch import Stamps

FILES = [Path(name) for name in "abc"]
STATES = st.dictionaries(st.sampled_from(FILES), st.tuples(st.integers(0, 2), st.just(1), st.just(1)))


@given(st.lists(STATES, min_size=1, max_size=12))
def test_what_is_told_leads_from_what_was_seen_first_to_what_is_there_at_last(
    states: list[dict[Path, tuple[int, int, int]]],
) -> None:
    first, *later = states
    looks: Iterator[Stamps] = iter(later)
    now: Stamps = first
    over = False

    def look() -> Stamps:
        nonlocal now, over
        try:
            now = next(looks)
        except StopIteration:
            over = True
        return now

    told = list(watch.changes(look, first, lambda: not over, sleep=lambda _s: None))
    assert all(told)
    # Whatever differs at last was told at some time.
    assert set(watch.different(first, now)) <= {path for paths in told for path in paths}


def test_what_goes_on_changing_is_told_all_the_same() -> None:
    count = iter(range(10_000))
    found = watch.changes(lambda: {FILES[0]: (next(count), 1, 1)}, {}, lambda: True, sleep=lambda _s: None)
    assert next(found) == [FILES[0]]
    assert next(count) < 2 * watch.SETTLES_MAX


def test_where_looking_takes_long_it_is_looked_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.5])
    monkeypatch.setattr(watch.time, "monotonic", lambda: next(times))
    slept: list[float] = []
    wanted = iter([True, False])
    assert list(watch.changes(dict, {}, lambda: next(wanted), sleep=slept.append)) == []
    assert slept == [pytest.approx(4.5)]


def test_a_folders_files_new_gone_rewritten_and_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "assets"
    (folder / "__pycache__").mkdir(parents=True)
    one, two = folder / "one.txt", folder / "two.txt"
    one.write_text("1")
    entries = [LocalPath(folder, PurePosixPath("assets"), ["*.log"])]

    def after(change: str) -> list[Path]:
        before = watch.stamps(entries)
        match change:
            case "new":
                two.write_text("2")
            case "rewritten":
                one.write_text("11")
            case "replaced":
                kept = one.stat()
                (tmp_path / "other").write_text("22")
                os.utime(tmp_path / "other", ns=(kept.st_atime_ns, kept.st_mtime_ns))
                (tmp_path / "other").replace(one)
            case "left out":
                (folder / "__pycache__" / "one.pyc").write_text("x")
                (folder / "a.log").write_text("x")
            case "gone":
                two.unlink()
        return watch.different(before, watch.stamps(entries))

    assert [after(each) for each in ("new", "rewritten", "replaced", "left out", "gone")] == [
        [two],
        [one],
        [one],
        [],
        [two],
    ]
    one.unlink()
    one.parent.rename(tmp_path / "moved")
    assert watch.stamps(entries) == {}


def test_all_that_a_deploy_reads_is_watched(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "requirements.txt").write_text("msgspec\n")
    image = (
        swell.Image.debian_slim()
        .uv_pip_install(requirements=[str(tmp_path / "requirements.txt")])
        .add_local_dir(tmp_path / "assets", "assets")
    )
    app = swell.App("a", image=image)
    app.function()(deployable.plain)
    (tmp_path / "assets" / "new.txt").write_text("x")
    found = watch.stamps(watch.sources(app))
    assert {tmp_path / "requirements.txt", tmp_path / "assets" / "new.txt", Path(deployable.__file__)} <= found.keys()
