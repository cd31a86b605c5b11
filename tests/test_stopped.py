"""Is a state directory made of a backup whole, or untouched; and can its server tell what it did from what it does?"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from control.homes import Home as Original
from swell import stopped
from swell.cli.restore import told
from swell.model.backup import DATABASE, FORMAT, MANIFEST, Manifest, digest_in
from swell.model.errors import SwellError
from swell.model.event_trigger import EventTriggerState
from swell.model.schedule import Period
from swell.model.secret import SecretVersion
from swell.model.source import Files
from swell.model.subscription import HttpEvents, Subscription
from swell.model.trigger import TriggerState
from swell.store.sealing import MasterKeySealer
from swell.store.snapshot import EPOCHS_APART
from swell.store.sqlite import SqliteStore
from swell.wire.archive import Reader, document
from swell.wire.paths import Home


@pytest.fixture
def original(tmp_path: Path) -> Iterator[Original]:
    home = Original(tmp_path / "original")
    for _ in range(5):
        home.store.world.open_epoch()
    yield home
    home.store.close()


def backup(original: Original, key_files: bool = False) -> bytes:
    """Of the state directory, as if no server ran there."""
    with stopped.backed_up(Home(original.root), key_files, lambda: 50.0) as pieces:
        return b"".join(pieces)


def restore(data: bytes, root: Path, fires: bool = False) -> stopped.Restored:
    root.mkdir(exist_ok=True)
    return stopped.restore(Reader(io.BytesIO(data).read, "FILE"), Home(root), [], fires)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_restored_state_is_the_one_that_was_backed_up(original: Original, tmp_path: Path) -> None:
    original.put("prices.toml", b"usd = 1")
    original.put("logs/default/a.ndjson", b"{}")
    done = restore(backup(original), tmp_path / "new")
    assert (done.apps, done.volumes, done.lacking, done.forward) == (1, 1, (), False)
    left, there = files(original.root), files(tmp_path / "new")
    assert there.keys() == left.keys() - {"logs/default/a.ndjson", "blobs/sha256-0", "control.db-wal", "control.db-shm"}
    assert all(there[name] == left[name] for name in there if name != DATABASE)
    modes = {name: (tmp_path / "new" / name).stat().st_mode & 0o777 for name in there}
    assert {name for name, mode in modes.items() if mode == 0o666} == {n for n in there if digest_in(n) and "v" in n[0]}
    assert set(modes.values()) == {0o600, 0o666}
    store = SqliteStore(tmp_path / "new" / DATABASE)
    assert store.world.apps() == original.store.world.apps()
    assert list(store.world.events()) == list(original.store.world.events())
    assert store.volumes.all() == original.store.volumes.all()
    store.close()


def test_epochs_go_on_above_whatever_the_original_gives(original: Original, tmp_path: Path) -> None:
    data = backup(original)
    for _ in range(100):
        last = original.store.world.open_epoch()
    epochs = [last]
    for generation in range(3):
        root = tmp_path / f"new{generation}"
        restore(data, root)
        store = SqliteStore(root / DATABASE)
        epochs.append(store.world.open_epoch())
        store.close()
        with stopped.backed_up(Home(root), False, lambda: 1.0) as pieces:
            data = b"".join(pieces)
    assert epochs == [105, *(EPOCHS_APART * n + 1 for n in (1, 2, 3))]


def test_triggers_are_paused_where_the_original_may_have_them_fire(original: Original, tmp_path: Path) -> None:
    states = [TriggerState(f"default/a/{name}", Period(hours=1), 1.0, 1.0, incarnation=name) for name in "fg"]
    files, http = (
        EventTriggerState(f"default/a/e:{each.kind}", each, 1.0)
        for each in (Subscription(Files("/data")), Subscription(HttpEvents()))
    )
    original.store.triggers.put([states[0], replace(states[1], paused_at=2.0), files, http])
    data = backup(original)
    for fires, paused, since in ((False, 2, 50.0), (True, 0, None)):
        root = tmp_path / f"new{fires}"
        done = restore(data, root, fires)
        assert done.paused == paused
        assert any("2 triggers are paused" in words for words in told(done, Home(root))) is not fires
        store = SqliteStore(root / DATABASE)
        assert [(each.incarnation, each.paused_at) for each in store.triggers.all()] == [("f", since), ("g", 2.0)]
        # Who posts an event does so to one of the two.
        assert [each.paused_at for each in store.triggers.for_events()] == [since, None]
        store.close()
    assert [each.paused_at for each in original.store.triggers.all()] == [None, 2.0]


def test_secrets_open_with_the_key_and_are_named_without(original: Original, tmp_path: Path) -> None:
    sealer = MasterKeySealer(original.root / "master.key")
    for name in ("db", "token"):
        version = SecretVersion("default", name, 1, 1.0, ("A",), b"")
        sealed = sealer.seal(b"value", version.about)
        original.store.secrets.put(SecretVersion("default", name, 1, 1.0, ("A",), sealed), 10)
    assert restore(backup(original), tmp_path / "without").sealed == (("default", "db"), ("default", "token"))
    assert not (tmp_path / "without" / "master.key").exists()
    assert restore(backup(original, key_files=True), tmp_path / "with").sealed == ()
    kept = MasterKeySealer(tmp_path / "with" / "master.key").open(sealed, version.about)
    assert kept == b"value"
    (original.root / "master.key").write_text("mk-" + "0" * 64)
    assert len(restore(backup(original, key_files=True), tmp_path / "another").sealed) == 2


def test_secrets_that_a_start_could_not_open_are_told_and_nothing_is_changed(
    original: Original, tmp_path: Path
) -> None:
    home, key = Home(original.root), original.root / "master.key"
    for name in ("db", "token"):
        version = SecretVersion("default", name, 1, 1.0, ("A",), b"")
        sealed = MasterKeySealer(key).seal(b"value", version.about)
        original.store.secrets.put(SecretVersion("default", name, 1, 1.0, ("A",), sealed), 10)
    assert stopped.sealed(home) == []
    key.unlink()
    assert stopped.sealed(home) == [("default", "db"), ("default", "token")]
    assert not key.exists()
    assert stopped.sealed(Home(tmp_path / "nowhere")) == []
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / DATABASE).write_bytes(b"no database at all" * 100)
    assert stopped.sealed(Home(tmp_path / "damaged")) == []


def test_what_was_lost_before_is_told(original: Original, tmp_path: Path) -> None:
    (original.root / f"blobs/{original.source}").unlink()
    assert restore(backup(original), tmp_path / "new").lacking == (f"blobs/{original.source}",)


def test_a_directory_with_anything_in_it_is_left_alone(original: Original, tmp_path: Path) -> None:
    data = backup(original)
    for name in ("control.db", "x", "run", "restore.part"):
        root = tmp_path / f"has-{name}"
        root.mkdir()
        (root / name).mkdir()
        (root / "mine").write_text("mine")
        with pytest.raises(SwellError, match="is not empty") as refused:
            restore(data, root)
        assert refused.value.code == "home_not_empty"
        assert files(root) == {"mine": b"mine"}


@pytest.mark.parametrize("wrong", ["empty", "text", "cut", "changed", "foreign", "newer", "no database"])
def test_what_cannot_be_restored_leaves_nothing(original: Original, tmp_path: Path, wrong: str) -> None:
    data = backup(original)
    newer = Manifest(FORMAT, "9.0", 1_000_000, 1.0, ())
    foreign = io.BytesIO()
    with tarfile.open(fileobj=foreign, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("README"))
    half = len(data) // 2
    made, words = {
        "empty": (b"", "it is empty"),
        "text": (b"SELECT 1;\n" * 100, "it is no tar"),
        "cut": (data[:-3000], "is not whole: it ends in the middle of"),
        "changed": (data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :], "is damaged, or was changed"),
        "foreign": (foreign.getvalue(), "it begins with 'README'"),
        "newer": (document(MANIFEST, newer, 1.0), "made by Swell 9.0, whose tables are newer"),
        "no database": (_without_database(data), "There is no database in the backup"),
    }[wrong]
    root = tmp_path / "new"
    with pytest.raises(SwellError) as refused:
        restore(made, root)
    assert words in refused.value.message
    assert refused.value.message.count("\n") == 0
    assert list(root.iterdir()) == []
    assert restore(data, root).apps == 1, "it can be tried again"


def _without_database(data: bytes) -> bytes:
    from swell.model.backup import END, End
    from swell.wire.archive import CLOSING

    return document(MANIFEST, Manifest(FORMAT, "1", 1, 1.0, ()), 1.0) + document(END, End(), 1.0) + CLOSING


class Killed(BaseException):
    """Nothing after it is done, not even cleaning up."""


def test_one_that_is_killed_anywhere_can_be_done_again(
    original: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = backup(original)
    root = tmp_path / "new"
    steps = 0
    whole = False
    while not whole:
        with monkeypatch.context() as patch:
            left = [steps]

            def dying(do: Callable[..., Any], left: list[int] = left) -> Callable[..., Any]:
                def step(*given: Any, **more: Any) -> Any:
                    if not left[0]:
                        raise Killed
                    left[0] -= 1
                    return do(*given, **more)

                return step

            patch.setattr(Path, "rename", dying(Path.rename))
            patch.setattr(Path, "rmdir", dying(Path.rmdir))
            patch.setattr(os, "fchmod", dying(os.fchmod))
            patch.setattr(stopped, "_clear", _unless_killed(stopped._clear, left))
            try:
                restore(data, root)
                whole = True
            except Killed:
                assert (root / "restore.part").exists(), "a server would start on half of it"
        steps += 1
    assert steps > 8
    assert not (root / "restore.part").exists()
    assert files(root).keys() >= {DATABASE, f"blobs/{original.source}", "volumes/default/vo-1/v4"}


@pytest.mark.parametrize("removed", range(6))
def test_one_that_is_killed_while_it_clears_what_another_left_says_so_still(
    original: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: int
) -> None:
    data, root = backup(original), tmp_path / "new"
    for name in ("restore.part", "blobs", "volumes"):
        (root / name).mkdir(parents=True)
    for name in (DATABASE, "prices.toml", "restore.part/key"):
        (root / name).write_text("of the one before")
    left = [removed]

    def dying(do: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any, **more: Any) -> Any:
            if not left[0]:
                raise Killed
            left[0] -= 1
            return do(*given, **more)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dying(Path.unlink))
        patch.setattr(stopped.shutil, "rmtree", dying(shutil.rmtree))
        patch.setattr(stopped, "_write", dying(stopped._write))
        with pytest.raises(Killed):
            restore(data, root)
    there = {path.name for path in root.iterdir()}
    assert "restore.part" in there or not there
    assert restore(data, root).apps == 1
    assert (root / DATABASE).read_bytes() != b"of the one before"


def _unless_killed(clear: Callable[..., None], left: list[int]) -> Callable[..., None]:
    """What a killed process does not do any more."""

    def maybe(*given: Any) -> None:
        if left[0]:
            clear(*given)

    return maybe
