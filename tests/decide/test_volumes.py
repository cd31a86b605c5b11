"""Is a volume after a change what its writers meant, and never half a tree?"""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.decide.volumes import beyond, copying, find, listed, merged, removal, size, taken
from swell.model.errors import SwellError
from swell.model.volume import Change, Entry, Quota, Tree, clean, parents, pointing

names = st.sampled_from(["a", "b", "c"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
entries = st.one_of(
    st.builds(lambda n: Entry(digest=f"sha256-{n}", size=n), st.integers(0, 9)),
    st.just(Entry(kind="dir")),
    st.just(Entry(kind="link", target="x")),
)
changes = st.builds(
    Change,
    st.lists(st.tuples(paths, entries), max_size=4).map(tuple),
    st.lists(paths, max_size=3).map(tuple),
)


def built(history: list[Change]) -> Tree:
    tree: Tree = {}
    for change in history:
        tree = merged(tree, change)
    return tree


trees = st.lists(changes, max_size=4).map(built)


def file(size: int = 1) -> Entry:
    return Entry(digest=f"sha256-{size}", size=size)


@given(trees, changes)
def test_nothing_is_both_a_file_and_a_folder(tree: Tree, change: Change) -> None:
    after = merged(tree, change)
    for path in after:
        assert all(after[folder].kind == "dir" for folder in parents(path) if folder in after)


@given(trees, changes)
def test_what_was_put_last_is_there(tree: Tree, change: Change) -> None:
    after = merged(tree, change)
    for path, entry in change.put[-1:]:
        assert after[path] == entry


@given(trees, changes)
def test_what_a_change_does_not_name_stays(tree: Tree, change: Change) -> None:
    after = merged(tree, change)
    named = {path for path, _ in change.put} | set(change.removed)
    in_the_way = {path for path in tree if any(each in named for each in parents(path))}
    in_the_way |= {path for path in tree for each in named if each.startswith(f"{path}/")}
    for path, entry in tree.items():
        if path not in named and path not in in_the_way:
            assert after[path] == entry


@given(trees, changes)
def test_twice_is_as_good_as_once(tree: Tree, change: Change) -> None:
    once = merged(tree, change)
    assert merged(once, change) == once
    assert merged(tree, Change()) == tree


@given(trees, st.lists(names, max_size=2), entries, entries)
def test_two_that_write_different_files_do_not_mind_each_other(
    tree: Tree, at: list[str], one: Entry, two: Entry
) -> None:
    folder = "".join(f"{name}/" for name in at)
    first, second = Change(((f"{folder}x", one),)), Change(((f"{folder}y", two),))
    assert merged(merged(tree, first), second) == merged(merged(tree, second), first)


@given(trees)
def test_a_listing_has_each_path_and_each_folder_once(tree: Tree) -> None:
    everything = [path for path, _ in listed(tree, "", True)]
    assert everything == sorted(set(everything))
    assert set(everything) == {each for path in tree for each in (path, *parents(path))}
    top = [path for path, _ in listed(tree, "", False)]
    assert top == sorted({path.partition("/")[0] for path in tree})
    for path in everything:
        assert find(tree, path) is not None


@given(trees, paths)
def test_removing_takes_a_path_and_what_is_below_it(tree: Tree, path: str) -> None:
    if find(tree, path) is None:
        with pytest.raises(SwellError) as raised:
            removal(tree, path, True)
        assert raised.value.code == "no_such_file"
        return
    after = merged(tree, removal(tree, path, True))
    assert find(after, path) is None
    folder = path.rpartition("/")[0]
    assert not folder or find(after, folder) == Entry(kind="dir")
    assert {each: tree.get(each, Entry(kind="dir")) for each in after} == after
    assert after.keys() - tree.keys() <= {folder}
    assert all(each == path or each.startswith(f"{path}/") for each in tree.keys() - after.keys())


@given(trees, paths)
def test_a_copy_is_as_what_it_is_of(tree: Tree, source: str) -> None:
    entry = find(tree, source)
    if entry is None:
        return
    after = merged(tree, copying(tree, [source], "copy", True))
    assert {path.replace(source, "copy", 1): each for path, each in tree.items() if path == source} == {
        path: each for path, each in after.items() if path == "copy" and source in tree
    }
    ours = {path[len(source) :] for path in tree if path.startswith(f"{source}/")}
    assert ours == {path[len("copy") :] for path in after if path.startswith("copy/")}


def test_copies_go_into_folders_and_not_into_themselves() -> None:
    tree = {"a/x": file(), "b": file(2), "to": Entry(kind="dir")}
    assert merged(tree, copying(tree, ["b"], "c", False))["c"] == file(2)
    assert merged(tree, copying(tree, ["b", "a/x"], "to", False)).keys() >= {"to/b", "to/x"}
    assert merged(tree, copying(tree, ["a"], "to", True))["to/a/x"] == file()
    for sources, to, recursive, code in (
        (["a"], "to", False, "is_folder"),
        (["a"], "a", True, "bad_path"),
        (["b"], "b", False, "bad_path"),
        (["b", "a/x"], "c", False, "no_such_folder"),
        (["nobody"], "c", False, "no_such_file"),
    ):
        with pytest.raises(SwellError) as raised:
            copying(tree, sources, to, recursive)
        assert raised.value.code == code


def test_a_folder_that_holds_something_is_removed_only_when_that_is_meant() -> None:
    tree = {"a/x": file(), "e": Entry(kind="dir")}
    with pytest.raises(SwellError, match="say that all in it is meant"):
        removal(tree, "a", False)
    assert removal(tree, "e", False) == Change(removed=("e",))


@given(trees, st.lists(paths, max_size=3))
def test_what_only_removes_never_has_more(tree: Tree, removed: list[str]) -> None:
    after = merged(tree, Change(removed=tuple(removed)))
    assert len(after) <= len(tree)
    assert {each for each in map(str, removed) if each in tree}.isdisjoint(after)


def test_a_folder_stays_when_the_last_file_in_it_goes() -> None:
    tree = {"a/b/x": file(), "a/b/y": file(), "c/x": file()}
    folder = Entry(kind="dir")
    assert merged(tree, Change(removed=("a/b/x",))).keys() == {"a/b/y", "c/x"}
    assert merged(tree, Change(removed=("a/b/x", "a/b/y"))) == {"a/b": folder, "c/x": file()}
    assert merged(tree, Change(removed=("a/b", "a/b/x", "a/b/y"))) == {"a": folder, "c/x": file()}
    assert merged(tree, Change((("a/b", file(2)),), ("a/b/x", "a/b/y"))) == {"a/b": file(2), "c/x": file()}


def test_what_would_be_written_over_is_named() -> None:
    tree = {"a/x": file()}
    assert taken(tree, Change((("b", file()),))) == ""
    assert taken(tree, Change((("b", file()), ("a/x", file(2))))) == "a/x"
    assert taken(tree, Change((("a", file()),))) == "a"
    assert taken(tree, Change((("a", Entry(kind="dir")),))) == ""


@given(st.tuples(st.integers(0, 9), st.integers(0, 9)), st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_a_quota_holds_for_what_grows(before: tuple[int, int], after: tuple[int, int]) -> None:
    refused = beyond("v", before, after, Quota(5, 5), Quota())
    grows_beyond = any(has > 5 and has > had for had, has in zip(before, after, strict=True))
    assert (refused is not None) == grows_beyond
    if refused is not None:
        assert refused.code == "volume_full"
        assert "may have 5" in refused.message
    assert beyond("v", before, after, Quota(), Quota()) is None


def test_whose_limit_it_is_and_how_more_is_allowed_is_told() -> None:
    own = beyond("v", (0, 0), (9, 1), Quota(bytes_max=5), Quota(7, 7))
    usual = beyond("v", (0, 0), (1, 9), Quota(bytes_max=5), Quota(7, 7))
    assert own is not None
    assert usual is not None
    assert "may have 5 (its own quota): remove some, or give it another quota with" in own.message
    assert "`swell volume quota v --bytes-max`" in own.message
    assert "may have 7 (volume_files_max, the server's): remove some, or give it its own quota with" in usual.message
    assert "`swell volume quota v --files-max`" in usual.message


def test_sizes_count_files_alone_and_entries_all() -> None:
    assert size({"a": file(3), "d": Entry(kind="dir"), "l": Entry(kind="link", target="a")}) == (3, 3)


@given(st.text(max_size=20))
def test_a_path_is_cleaned_or_refused(text: str) -> None:
    with suppress(SwellError):
        path = clean(text)
        assert clean(path) == path
        assert not path.startswith("/")
        assert not {"", ".", ".."} & set(path.split("/"))


@pytest.mark.parametrize(
    "text", ["", "/", ".", "a/../b", "..", "a\0b", "x" * 256, "/".join(["y" * 250] * 20), "\ud800"]
)
def test_what_is_no_path(text: str) -> None:
    with pytest.raises(SwellError) as raised:
        clean(text)
    assert raised.value.code == "bad_path"
    assert clean("/a//./b/") == "a/b"
    assert clean("/", root=True) == ""


@pytest.mark.timeout(60)
def test_many_new_files_are_not_looked_for_one_by_one() -> None:
    tree = {f"d{number}/f": Entry() for number in range(50_000)}
    change = Change(put=tuple((f"e{number}/f", Entry()) for number in range(50_000)))
    assert taken(tree, change) == ""
    assert taken(tree, Change(put=(("d7", Entry()),))) == "d7"
    assert taken(tree, Change(put=(("d7", Entry(kind="dir")),))) == ""


def test_paths_that_could_not_be_mounted_are_none() -> None:
    assert clean("/".join("a" * 128)) == "/".join("a" * 128)
    with pytest.raises(SwellError, match="may have 128 names, and this one has 129"):
        clean("/".join("a" * 129))
    with pytest.raises(SwellError, match="may have 2048 bytes"):
        clean("/".join(["a" * 200] * 11))
    assert pointing("a", "../b") == "../b"
    for target in ("", "\0", "\udcff", "x" * 4096):
        with pytest.raises(SwellError, match="where it points is none"):
            pointing("a", target)
