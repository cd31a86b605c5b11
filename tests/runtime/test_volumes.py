"""Does what a replica changes in a mounted volume become the change that it made? With real mounts, and a real kernel's
notes of what was changed."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from volume_place import Place

from swell.model.errors import SwellError
from swell.model.volume import Change, Entry, VolumeState
from swell.runtime import volumes
from swell.runtime.runner.cache import erase
from swell.runtime.runner.volumes import delta, points, remount
from swell.runtime.runner.volumes.mounting import Mounting
from swell.wire.child import AskVolume, Mount
from swell.wire.paths import Home


def told(place: Place) -> dict[str, str]:
    """What the tree says, in the same words."""
    files = place.home.volumes / "default" / "files"
    found = {}
    for path, entry in place.tree.items():
        for folder in [str(each) for each in Path(path).parents][:-1]:
            found[folder] = "dir"
        if entry.kind == "file":
            found[path] = f"{(files / entry.digest).read_text()} {entry.executable}"
        else:
            found[path] = "dir" if entry.kind == "dir" else f"-> {entry.target}"
    return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


names = st.sampled_from(["a", "b", "c"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
deeds = st.tuples(
    st.sampled_from(["write", "write", "append", "remove", "mkdir", "rename", "link", "run"]), paths, paths
)


def do(deed: tuple[str, str, str]) -> None:
    """One thing that code does; what cannot be is not done."""
    what, path, other = deed
    try:
        if what == "write":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(other)
        elif what == "append":
            with open(path, "a") as file:
                file.write(other)
        elif what == "remove":
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
        elif what == "mkdir":
            os.makedirs(path)
        elif what == "rename":
            os.rename(path, other)
        elif what == "link":
            os.symlink(other, path)
        else:
            os.chmod(path, 0o755)
    except OSError:
        return


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.lists(deeds, max_size=6), st.booleans()), min_size=1, max_size=4))
def test_what_was_done_is_what_is_committed(rounds: list[tuple[list[tuple[str, str, str]], bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        for each, again in rounds:
            place.within(lambda each=each: [do(deed) for deed in each])
            place.commit()
            assert told(place) == place.shown()
            assert not place.commit()
            if again:
                place.renew()
                assert told(place) == place.shown()


def test_what_others_did_since_is_left_alone(place: Place) -> None:
    place.within(lambda: [Path(name).write_text(name) for name in ("mine", "theirs")])
    place.commit()
    place.within(lambda: Path("mine").write_text("again"))
    assert [path for path, _ in place.commit().put] == ["mine"]
    place.within(lambda: [os.unlink("mine"), os.unlink("theirs")])
    assert place.commit() == Change(removed=("mine", "theirs"))


def test_a_folder_that_was_replaced_hides_what_was_in_it(place: Place) -> None:
    place.within(lambda: [os.makedirs("d/e"), Path("d/e/x").write_text("x"), Path("d/y").write_text("y")])
    place.commit()
    place.renew()

    def replaced() -> None:
        shutil.rmtree("d")
        os.mkdir("d")
        Path("d/z").write_text("z")

    place.within(replaced)
    change = place.commit()
    assert [path for path, _ in change.put] == ["d/z"]
    assert set(change.removed) == {"d/e", "d/e/x", "d/y"}


def test_who_opens_a_file_and_changes_nothing_undoes_nothing(place: Place) -> None:
    place.within(lambda: [Path(name).write_text("mine") for name in ("a", "b", "c")])
    place.commit()
    place.renew()
    place.within(lambda: [os.utime("a"), open("b", "r+").close(), os.chmod("c", 0o755)])
    assert [path for path, _ in place.commit().put] == ["c"]
    place.within(lambda: [os.utime("c", (1, 1)), os.chmod("b", 0o755), Path("a").write_text("mine")])
    assert [path for path, _ in place.commit().put] == ["b"]
    place.within(lambda: Path("a").write_text("new"))
    assert [path for path, _ in place.commit().put] == ["a"]
    assert len(list((place.home.volumes / "default" / "files").iterdir())) == 2


def test_what_changed_in_the_tick_it_was_looked_at_is_looked_at_again(tmp_path: Path) -> None:
    """A file may be written then, and be as large and as old as before."""
    (tmp_path / "file").write_text("one")
    changed = (tmp_path / "file").stat().st_ctime_ns

    def commit(since_ns: int, committed: delta.Fingerprints, digest: str) -> tuple[Change, delta.Fingerprints]:
        return delta.change(
            delta.seen(tmp_path, (), (), since_ns), committed, {}, "", lambda path, _: Entry(digest=digest)
        )

    change, known = commit(changed, {}, "one")
    assert change.put == (("file", Entry(digest="one")),)
    change, known = commit(changed, known, "two")
    assert change.put == (("file", Entry(digest="two")),)
    change, known = commit(changed + 1, known, "two")
    assert not change
    change, known = commit(changed + 1, known, "nobody reads it now")
    assert not change
    assert 0 <= time.time_ns() - delta.clock_ns() < 10**9


def test_what_goes_while_it_is_committed_is_removed_by_the_next_commit() -> None:
    mark: delta.Fingerprint = ("file", 1, 1, 1, 1)
    _, known = delta.change({"a": mark}, {}, {}, "", lambda *_: Entry(digest="one"))
    written = {"a": ("file", 1, 2, 2, 2), "b": mark}
    change, known = delta.change(written, known, {}, "", lambda *_: None)
    assert not change
    change, known = delta.change({}, known, {}, "", lambda *_: None)
    assert (change.put, change.removed, known) == ((), ("a",), {})


def test_a_folder_of_which_only_its_files_are_told_is_seen_to_stay_and_to_go(place: Place) -> None:
    place.within(lambda: [os.makedirs("a/b"), os.makedirs("c"), Path("a/b/x").touch(), Path("c/x").touch()])
    place.commit()
    for folder in ("a", "a/b", "c"):
        del place.tree[folder]
    place.renew()
    place.within(lambda: [os.unlink("a/b/x"), os.unlink("c/x"), os.rmdir("c")])
    place.commit()
    assert set(place.tree) == {"a/b"}
    assert told(place) == place.shown() == {"a": "dir", "a/b": "dir"}


def test_what_an_earlier_runner_noted_still_counts(place: Place) -> None:
    """Of a file it kept no digest."""
    place.within(lambda: Path("a").write_text("x"))
    place.commit()
    place.committed = {path: mark[:5] for path, mark in place.committed.items()}
    place.within(lambda: Path("a").write_text("y"))
    assert [path for path, _ in place.commit().put] == ["a"]


def test_a_part_of_a_volume_is_changed_where_it_is(place: Place) -> None:
    place.within(lambda: [os.makedirs("models/x"), Path("models/x/a").write_text("a"), Path("b").write_text("b")])
    place.commit()
    base, folders = delta.below(place.tree, "models")
    assert (set(base), folders) == ({"x", "x/a"}, {"x"})
    now = {"x/n": ("dir",), "x/a": delta.GONE}
    change, known = delta.change(now, {}, base, "models", lambda *_: place.tree["models/x"])
    assert known == now
    assert [path for path, _ in change.put] == ["models/x/n"]
    assert change.removed == ("models/x/a",)


def test_what_cannot_be_in_a_volume_is_refused_or_left_out(place: Place) -> None:
    place.within(lambda: [os.mkfifo("pipe"), Path("kept").write_text("k")])
    assert [path for path, _ in place.commit().put] == ["kept"]
    place.within(lambda: open(b"bad-\xff", "w").close())
    with pytest.raises(SwellError) as raised:
        place.commit()
    assert raised.value.code == "bad_path"
    place.within(lambda: [os.unlink(b"bad-\xff"), os.symlink(b"\xff", "link")])
    with pytest.raises(SwellError, match="where it points is none") as raised:
        place.commit()
    assert raised.value.code == "bad_path"


def test_what_is_read_for_a_commit_is_in_the_volume(place: Place) -> None:
    """A sandbox may put a link where a file was when the runner looked."""
    secret = place.home.root / "secret"
    (place.home.root / "outside").mkdir()
    for path in (secret, place.home.root / "outside" / "x"):
        path.write_text("secret")
    upper = place.own / "upper"
    (upper / "file").symlink_to(secret)
    (upper / "folder").symlink_to(secret.parent / "outside")
    os.mkfifo(upper / "pipe")
    contents = delta.Contents(place.home.volumes / "default" / "files", place.home.mounts / "drafts")
    entry_of = delta.entries(upper, contents)
    for path in ("file", "folder/x", "../../../../../secret"):
        with pytest.raises(SwellError, match="could not be committed"):
            entry_of(path, ("file", 1, 1, 1, 1))
    assert not list((place.home.mounts / "drafts").iterdir())


class Swapping(set[str]):
    """Folders of a version. When one is looked up, somebody puts a link in its place: it is not walked yet then."""

    def __init__(self, upper: Path, target: Path) -> None:
        super().__init__()
        self._upper = upper
        self._target = target

    def __contains__(self, path: object) -> bool:
        (self._upper / str(path)).rename(self._upper.parent / "elsewhere")
        (self._upper / str(path)).symlink_to(self._target)
        return False


def test_a_folder_that_becomes_a_link_is_not_followed(place: Place) -> None:
    """A sandbox may put one in its place after the runner looked, and before it goes in."""
    outside = place.home.root / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "link").symlink_to("/secret")
    upper = place.own / "upper"
    (upper / "d").mkdir()
    assert delta.seen(upper, (), Swapping(upper, outside), delta.clock_ns()) == {"d": ("dir",)}


def test_a_link_is_no_part_of_a_volume_that_could_be_mounted(place: Place) -> None:
    place.within(lambda: [os.mkdir("real"), os.symlink("/", "away"), os.symlink("real", "near")])
    place.commit()
    place.renew()
    place.mount()
    mounting = Mounting(place.home, lambda _asked: True)
    root = place.trees.path(place.state)
    assert mounting._lower(place.state, "") == str(root / "root")
    assert mounting._lower(place.state, "real") == str(root / "root" / "real")
    for sub_path in ("away", "away/etc", "near", "nobody"):
        assert mounting._lower(place.state, sub_path) == str(root / "none")


def test_many_files_are_settled_at_once(place: Place) -> None:
    place.within(lambda: [Path(f"f{number}").write_text(str(number)) for number in range(40)])
    place.commit()
    assert told(place) == place.shown()
    assert not list((place.home.mounts / "drafts").iterdir())


def test_trees_share_contents_and_go_when_nothing_has_them(place: Place) -> None:
    place.within(lambda: [Path("a").write_text("same"), Path("b").write_text("same")])
    place.commit()
    place.renew()
    place.mount()
    root = place.trees.path(place.state) / "root"
    (content,) = (place.home.volumes / "default" / "files").iterdir()
    assert {path.stat().st_ino for path in root.iterdir()} == {content.stat().st_ino}
    kept = place.trees.path(place.state)
    (place.trees.folder / ".new-left").mkdir()
    assert [path.name for path in place.trees.put_aside({kept})] == [".gone-vo-1-v0"]
    assert {path.name for path in place.trees.remains({kept})} == {".new-left", ".gone-vo-1-v0"}
    assert place.trees.there(place.state)
    with pytest.raises(FileNotFoundError):
        place.trees.make(VolumeState("default", "v", "vo-1", 99))
    assert not list(place.trees.folder.glob(".new-?*[!t]"))


def test_a_file_has_more_names_than_the_disk_allows(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    place.within(lambda: Path("a").write_text("x"))
    place.commit()
    place.renew()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMLINK, "too many links")

    monkeypatch.setattr(os, "link", full)
    place.mount()
    assert (place.trees.path(place.state) / "root" / "a").read_text() == "x"


def test_what_is_made_to_mount_on_is_removed_when_nothing_needs_it(tmp_path: Path) -> None:
    home, there = Home(tmp_path / "home"), tmp_path / "there"
    there.mkdir()
    points.make(home, [str(tmp_path / "x" / "y"), str(tmp_path / "x" / "z"), str(there)])
    assert (tmp_path / "x" / "y").is_dir()
    points.remove(home, {str(tmp_path / "x" / "z")})
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["z"]
    (tmp_path / "x" / "z" / "others").touch()
    points.remove(home, ())
    assert (tmp_path / "x" / "z" / "others").exists()
    (tmp_path / "x" / "z" / "others").unlink()
    points.remove(home, ())
    assert there.is_dir()
    (tmp_path / "file").touch()
    for path, words in ((tmp_path / "file", "is a file"), (tmp_path / "file/x", "made")):
        with pytest.raises(SwellError, match=words):
            points.make(home, [str(path)])
    points.check(home, [str(there)])
    for path in (tmp_path, home.root, home.root / "run" / "x"):
        with pytest.raises(SwellError, match="state directory is"):
            points.check(home, [str(path)])


def test_a_node_says_why_it_cannot_mount(place: Place) -> None:
    mount = place.mount()
    assert remount.tried(mount) == ""
    missing = Mount("", "v", "", 0, str(place.at), str(place.at / "nobody"), str(place.own))
    assert "No such file" in remount.tried(missing)


def dig(top: Path, depth: int) -> None:
    """A folder in a folder, deeper than any path can say."""
    here = os.getcwd()
    try:
        os.chdir(top)
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        Path("file").touch()
    finally:
        os.chdir(here)


@pytest.mark.slow
def test_what_code_made_is_removed_however_deep_it_is(place: Place) -> None:
    """A runner that could not would not start any more."""
    place.within(lambda: dig(Path("."), 3000))
    with pytest.raises(SwellError, match="may have 128 names"):
        place.commit()
    Mounting(place.home, lambda _asked: True).sweep()
    assert not list((place.home.mounts / "views").iterdir())
    deep = place.home.root / "deep"
    (deep / "beside").mkdir(parents=True)
    (deep / "link").symlink_to(place.home.root)
    dig(deep, 3000)
    erase(deep)
    erase(deep)
    assert not deep.exists()
    assert place.home.root.is_dir()


def test_what_was_written_in_the_upper_folder_is_whole_whatever_the_kernel_is_set_to(place: Place) -> None:
    from contextlib import ExitStack

    with ExitStack() as opened:
        told = volumes.parts(place.mount(), opened)
    assert {name: told[name] for name in ("redirect_dir", "metacopy", "index")} == dict.fromkeys(
        ("redirect_dir", "metacopy", "index"), "off"
    )


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_many_files_that_are_removed_do_not_take_for_ever(tmp_path: Path) -> None:
    """One after the other each has its own mark."""
    base = {f"d{number % 100}/f{number}" for number in range(60_000)}
    upper = tmp_path / "upper"
    for number in range(100):
        (upper / f"d{number}").mkdir(parents=True)
    for path in base:
        os.mknod(upper / path, 0o20000, 0)
    assert set(delta.seen(upper, base, {f"d{number}" for number in range(100)}, 0)) == base


def test_a_process_that_was_forked_is_told_that_it_cannot_ask_its_runner() -> None:
    """It would wake the loop of the process that it was forked from, and wait for ever."""
    asked: list[AskVolume] = []
    loop: Any = SimpleNamespace(call_soon_threadsafe=lambda send, message: send(message))
    asking = volumes.Asking(loop, asked.append)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asking.ask("commit", "default", "data")
        except SwellError as refused:
            status = 0 if refused.code == "not_mounted" else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    asking.ask("commit", "default", "data")
    assert asked == [AskVolume(1, "commit", "default", "data")]
