"""Does what nothing uses go from the cache, and nothing else? Decided on values, then done on real files."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.model.environment import Environment
from swell.runtime.runner import environment
from swell.runtime.runner.builds import made_for
from swell.runtime.runner.cache import FRESH_S, Cache, Item, erase, remove, surplus
from swell.wire.paths import Home

NOW = 1_000_000_000.0
DAY_S = 86400.0
NAMES = [Path(f"/cache/{letter}") for letter in "abcdef"]

ITEMS = st.lists(
    st.builds(
        Item,
        folder=st.sampled_from(NAMES),
        size_bytes=st.integers(0, 100),
        used_at=st.floats(NOW - 100 * DAY_S, NOW),
    ),
    unique_by=lambda item: item.folder,
)


@given(ITEMS, st.sets(st.sampled_from(NAMES)), st.floats(0, 50), st.integers(0, 300))
def test_what_goes_is_old_or_too_much_and_never_held_nor_fresh(
    items: list[Item], held: set[Path], days: float, max_bytes: int
) -> None:
    going = surplus(items, held, NOW, days, max_bytes)
    staying = [item for item in items if item not in going]
    assert not {item.folder for item in going} & held
    assert all(NOW - item.used_at >= FRESH_S for item in going)
    free = [item for item in staying if item.folder not in held and NOW - item.used_at >= FRESH_S]
    # Nothing that may go stays while it is too old, or while there is too much of all.
    assert all(NOW - item.used_at <= days * DAY_S for item in free)
    assert not free or sum(item.size_bytes for item in staying) <= max_bytes
    # Of what was not too old, nothing went that was used later than something that could have gone.
    young = [item for item in going if NOW - item.used_at <= days * DAY_S]
    assert all(gone.used_at <= left.used_at for gone in young for left in free)


def test_no_more_goes_than_has_to() -> None:
    items = [Item(path, 10, NOW - DAY_S * age) for path, age in zip(NAMES, (1, 2, 3, 4, 5, 6), strict=True)]
    assert [item.folder.name for item in surplus(items, set(), NOW, 30.0, 60)] == []
    assert [item.folder.name for item in surplus(items, set(), NOW, 30.0, 45)] == ["f", "e"]
    assert [item.folder.name for item in surplus(items, {NAMES[5]}, NOW, 30.0, 45)] == ["e", "d"]
    assert [item.folder.name for item in surplus(items, set(), NOW, 3.5, 60)] == ["f", "e", "d"]


def test_no_link_is_followed_that_comes_in_the_place_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top, outside = tmp_path / "top", tmp_path / "outside"
    for folder in (top / "inner", outside):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (top / "link").symlink_to(outside)
    listing = os.scandir

    def replaced(folder: object) -> object:
        """What is listed is something else by the time that it is emptied."""
        with listing(folder) as entries:  # type: ignore[call-overload]
            listed = list(entries)
        if not (top / "inner").is_symlink():
            (top / "inner").rename(top / "was")
            (top / "inner").symlink_to(outside)
        return nullcontext(listed)

    monkeypatch.setattr(os, "scandir", replaced)
    erase(top)
    monkeypatch.undo()
    assert (outside / "file").exists()
    assert (top / "inner").is_symlink()
    erase(top)
    assert not top.exists()
    assert (outside / "file").exists()


def made(folder: Path, unused_s: float) -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_bytes(b"x" * 8192)
    os.utime(folder, (time.time() - unused_s,) * 2)
    return folder


def test_real_folders_go_and_those_in_use_stay_and_count_as_used(tmp_path: Path) -> None:
    home = Home(tmp_path)
    old, held = made(home.environments / "old", 10 * DAY_S), made(home.environments / "held", 10 * DAY_S)
    bundle, new = made(home.bundles / "sha256-old", 10 * DAY_S), made(home.bundles / "sha256-new", 0.0)
    cache = Cache(home, days=5.0, max_gib=1.0)
    asyncio.run(cache.collect(lambda: [held]))
    assert sorted(path.name for path in home.environments.iterdir()) == ["held"]
    assert sorted(path.name for path in home.bundles.iterdir()) == ["sha256-new"]
    assert not old.exists()
    assert not bundle.exists()
    assert new.exists()
    # Held no longer, it has been used a moment ago.
    asyncio.run(cache.collect(list))
    assert held.exists()
    os.utime(held, (time.time() - 10 * DAY_S,) * 2)
    asyncio.run(cache.collect(list))
    assert not held.exists()


def test_too_much_goes_by_its_size_on_disk(tmp_path: Path) -> None:
    home = Home(tmp_path)
    folders = [made(home.bundles / f"sha256-{n}", n * DAY_S) for n in (1, 2, 3)]
    one_gib = 8192 / 2**30
    asyncio.run(Cache(home, days=30.0, max_gib=2.5 * one_gib).collect(list))
    assert [folder.exists() for folder in folders] == [True, True, False]


def test_what_was_left_half_made_or_half_removed_is_found_and_nothing_else(tmp_path: Path) -> None:
    home = Home(tmp_path)
    kept = made(home.environments / "kept", 10 * DAY_S)
    remains = {made(home.bundles / ".new-abc", 0.0), made(home.environments / ".gone-xyz", 0.0)}
    cache = Cache(home, days=30.0, max_gib=1.0)
    assert set(cache.remains()) == remains
    asyncio.run(remove(cache.remains()))
    assert cache.remains() == []
    assert kept.exists()


def test_a_revision_runs_from_its_bundle_and_from_its_environment_if_it_has_packages(tmp_path: Path) -> None:
    home = Home(tmp_path)
    plain, packed = Environment("/usr/bin/python3", "3.11"), Environment("", "3.11", packages=("six",))
    assert made_for(plain, "sha256-b", home) == (home.bundles / "sha256-b",)
    folder = home.environments / environment.digest(packed)
    folder.mkdir(parents=True)
    (folder / "swell-complete").touch()
    python = environment.built(packed, home.environments)
    assert python is not None
    assert python.is_relative_to(made_for(packed, "sha256-b", home)[1])
