"""Is a state refused that is not the one whose files a directory has?"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from secrets import token_hex

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from swell.model.errors import SwellError
from swell.store import kept
from swell.store.retention import Keep
from swell.store.snapshot import StateFolder
from swell.store.state_id import FILE, settle
from swell.store.tables import TableStore

BEGUN = pytest.mark.parametrize("begun", [False, True])


@contextmanager
def opened(root: Path, begin: bool = True) -> Iterator[TableStore]:
    with closing(kept.opened("", root / "control.db", Keep(), lambda: None)) as store:
        if begin:
            store.world.open_epoch()
        yield store


def refused(root: Path) -> str:
    with pytest.raises(SwellError) as caught, opened(root):
        pass
    assert caught.value.code == "state_other"
    assert "SWELL_HOME" in caught.value.message
    return caught.value.message


def put(root: Path, folder: str = "blobs") -> None:
    (root / folder).mkdir(exist_ok=True)
    (root / folder / "x").write_text("x")


def take_away(root: Path) -> None:
    for path in root.glob("control.db*"):
        path.unlink()


def test_a_directory_and_its_database_have_one_id_for_ever(tmp_path: Path) -> None:
    ids = []
    for _ in range(3):
        with opened(tmp_path) as store:
            ids += [store.id(), (tmp_path / FILE).read_text().strip()]
        put(tmp_path)
    assert len(set(ids)) == 1
    assert len(ids[0]) == 16


def test_no_two_states_have_the_same_one(tmp_path: Path) -> None:
    found = set()
    for name in "abc":
        with opened(tmp_path / name) as store:
            found.add(store.id())
    assert len(found) == 3


@pytest.mark.parametrize("folder", ["blobs", "results", "volumes", "checkpoints"])
def test_a_new_state_is_not_opened_over_files_that_are_there(tmp_path: Path, folder: str) -> None:
    put(tmp_path, folder)
    said = refused(tmp_path)
    assert folder in said
    # Nor at the second attempt, with what the first one made.
    assert refused(tmp_path) == said
    (tmp_path / folder / "x").unlink()
    with opened(tmp_path):
        pass


def test_a_database_that_was_moved_away_does_not_come_back_empty(tmp_path: Path) -> None:
    with opened(tmp_path):
        put(tmp_path)
    take_away(tmp_path)
    said = refused(tmp_path)
    assert (tmp_path / FILE).read_text().strip() in said
    # What is said there helps: only all of it does.
    (tmp_path / FILE).unlink()
    refused(tmp_path)
    (tmp_path / "blobs").rename(tmp_path / "away")
    with opened(tmp_path):
        pass


def test_another_ones_database_is_refused_and_both_are_named(tmp_path: Path) -> None:
    ids = []
    for name in "ab":
        with opened(tmp_path / name) as store:
            ids.append(store.id())
    for path in (tmp_path / "a").glob("control.db*"):
        path.rename(tmp_path / "b" / path.name)
    said = refused(tmp_path / "b")
    assert all(id in said for id in ids)
    with pytest.raises(SwellError) as caught:
        StateFolder(tmp_path / "b").snapshot(key_files=False)
    assert caught.value.code == "state_other"


def test_a_directory_of_an_older_swell_has_its_id_from_its_next_start_on(tmp_path: Path) -> None:
    with opened(tmp_path):
        put(tmp_path)
    make_older(tmp_path)
    with opened(tmp_path) as store:
        assert (tmp_path / FILE).read_text().strip() == store.id() != ""
    # A database of that Swell that is older than the files is another one.
    make_older(tmp_path, whole=False)
    refused(tmp_path)


@BEGUN
def test_a_start_that_was_cut_off_is_made_good_by_the_next(tmp_path: Path, begun: bool) -> None:
    """The database has an id, and the directory none: so it is after a restore, too."""
    with opened(tmp_path, begin=begun) as store:
        id = store.id()
    (tmp_path / FILE).unlink()
    with opened(tmp_path) as store:
        assert store.id() == id
    assert (tmp_path / FILE).read_text().strip() == id


class Killed(Exception):
    """A start ends here."""


class FakeState:
    """What `state_id` asks of a database."""

    def __init__(self) -> None:
        self.drawn = ""
        self.started = False
        self.dies = False

    def id(self) -> str:
        return self.drawn

    def draw_id(self) -> str:
        self.drawn = self.drawn or token_hex(8)
        if self.dies:
            raise Killed
        return self.drawn

    def begun(self) -> bool:
        return self.started


class AnyStarts(RuleBasedStateMachine):
    """Starts with any directory and any database, some of which are cut off: files are had by their own state alone."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="sw", dir="/tmp")
        self.homes = [Path(self.folder.name) / name for name in "abc"]
        self.inside = {home: FakeState() for home in self.homes}
        self.outside = [FakeState() for _ in range(2)]
        self.owners: dict[Path, FakeState] = {}
        """Whose files there are."""
        for home in self.homes:
            home.mkdir()
        # Of an older Swell, which drew no ids.
        older = self.homes[0]
        self.inside[older].started = True
        self._put(older, self.inside[older])

    def _put(self, home: Path, state: FakeState) -> None:
        put(home)
        self.owners[home] = state

    @rule(which=st.integers(0, 2), where=st.integers(0, 2), dies=st.booleans(), puts=st.booleans())
    def start(self, which: int, where: int, dies: bool, puts: bool) -> None:
        home = self.homes[which]
        inside = where == 2
        state = self.inside[home] if inside else self.outside[where]
        state.dies = dies
        owner = self.owners.get(home)
        try:
            settle(home, "db", state, inside)
        except Killed:
            return
        except SwellError:
            assert owner is not state, "its own files are never refused to a state"
            return
        assert owner in (None, state)
        assert (home / FILE).read_text().strip() == state.drawn
        state.started = True
        if puts:
            self._put(home, state)

    def teardown(self) -> None:
        self.folder.cleanup()


TestAnyStarts = AnyStarts.TestCase
TestAnyStarts.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)


def make_older(root: Path, whole: bool = True) -> None:
    """As it was before there were ids."""
    with closing(sqlite3.connect(root / "control.db", isolation_level=None)) as connection:
        connection.execute("DELETE FROM counters WHERE name = 'state'")
    if whole:
        (root / FILE).unlink()
