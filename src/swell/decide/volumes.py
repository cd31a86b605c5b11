"""What is in a volume after a change, and may it be? Pure: a tree is a value, and each version is another one.

Changes meet file by file: who says nothing of a path leaves it as it is, and of two who do the last one counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from swell.model.errors import SwellError
from swell.model.volume import Change, Entry, Quota, Tree, clean, parents

FOLDER = Entry(kind="dir")


def merged(tree: Tree, change: Change) -> Tree:
    """The tree after a change. No path is both a file and a folder: what comes replaces what is in its way. A folder
    stays when the last file in it is removed."""
    after = dict(tree)
    for path in change.removed:
        after.pop(path, None)
    folders = {folder for path in after for folder in parents(path)}
    for path, entry in change.put:
        for folder in parents(path):
            if folder in after and after[folder].kind != "dir":
                del after[folder]
        if entry.kind != "dir" and path in folders:
            for each in list(within(after, path)):
                del after[each]
        after[path] = entry
        folders.update(parents(path))
    after.update((folder, FOLDER) for folder in _emptied(tree, set(change.removed), after))
    return after


def _emptied(tree: Tree, removed: Set[str], after: Tree) -> set[str]:
    """Folders that held what was removed, hold nothing now and are not removed themselves: the innermost alone, which
    are no more than paths were removed."""
    held = {folder for path in removed & tree.keys() for folder in parents(path)}
    files = {path for path, entry in after.items() if entry.kind != "dir"}
    left = {folder for folder in held if {folder, *parents(folder)}.isdisjoint(removed | files)}
    return left - after.keys() - {folder for path in {*after, *left} for folder in parents(path)}


def within(tree: Tree, folder: str) -> Iterator[str]:
    """Every path below a folder."""
    start = f"{folder}/" if folder else ""
    return (path for path in tree if path.startswith(start))


def find(tree: Tree, path: str) -> Entry | None:
    """What is at a path: a folder also where it only holds something."""
    if path in tree:
        return tree[path]
    return FOLDER if not path or next(within(tree, path), None) is not None else None


def listed(tree: Tree, path: str, recursive: bool) -> list[tuple[str, Entry]]:
    """What a folder holds, or the file itself, by path. SwellError no_such_file where nothing is."""
    entry = _found(tree, path)
    if entry.kind != "dir":
        return [(path, entry)]
    deep = len(path) + 1 if path else 0
    found: Tree = {}
    for each in within(tree, path):
        for shown in (each, *parents(each)):
            if len(shown) > deep and shown not in found and (recursive or "/" not in shown[deep:]):
                found[shown] = tree.get(shown, FOLDER)
    return sorted(found.items())


def removal(tree: Tree, path: str, recursive: bool) -> Change:
    """Take a path away; with `recursive` all that is below it."""
    entry = _found(tree, path)
    below = list(within(tree, path))
    if entry.kind == "dir" and below and not recursive:
        raise SwellError(
            "is_folder",
            f"{path or '/'} is a folder that is not empty: say that all in it is meant (recursive).",
            status=422,
        )
    return Change(removed=(path, *below))


def copying(tree: Tree, sources: Iterable[str], target: str, recursive: bool) -> Change:
    """Files (with `recursive` folders, too) once more: into the folder `target`, or under that name."""
    put: list[tuple[str, Entry]] = []
    named = list(sources)
    there = find(tree, target)
    into = there is not None and there.kind == "dir"
    if len(named) > 1 and not into:
        raise SwellError(
            "no_such_folder", f"{target} is no folder: several files can only be copied into one.", status=422
        )
    for source in named:
        entry = _found(tree, source)
        if entry.kind == "dir" and not recursive:
            raise SwellError(
                "is_folder", f"{source or '/'} is a folder: say that all in it is meant (recursive).", status=422
            )
        name = source.rpartition("/")[2]
        to = clean(f"{target}/{name}") if into else clean(target)
        below = list(within(tree, source)) if entry.kind == "dir" else []
        if to == source or to.startswith(f"{source}/" if source else ""):
            raise SwellError("bad_path", f"{source or '/'} cannot be copied into itself.", status=422)
        put.append((to, entry))
        put += [(f"{to}/{path[len(source) + 1 if source else 0 :]}", tree[path]) for path in below]
    return Change(put=tuple(put))


def taken(tree: Tree, change: Change) -> str:
    """A path that a change would write over; empty where there is none."""
    there = {folder for path in tree for folder in parents(path)}.union(tree)
    return next((path for path, entry in change.put if entry.kind != "dir" and path in there), "")


def size(tree: Tree) -> tuple[int, int]:
    """Bytes of its files, and how many files, links and folders it has."""
    return sum(entry.size for entry in tree.values()), len(tree)


def beyond(name: str, before: tuple[int, int], after: tuple[int, int], own: Quota, usual: Quota) -> SwellError | None:
    """Why a version may not be, with so many bytes and files; None: it may. One that is no larger than that before it
    always may. `usual`: what holds where the volume's `own` quota says nothing."""
    for had, has, most, others, unit, setting in (
        (before[0], after[0], own.bytes_max, usual.bytes_max, "bytes", "volume_bytes_max"),
        (before[1], after[1], own.files_max, usual.files_max, "files", "volume_files_max"),
    ):
        limit = most or others
        if limit and has > limit and has > had:
            whose, given = ("its own quota", "another") if most else (f"{setting}, the server's", "its own")
            words = (
                f"The volume {name!r} would have {has} {unit}, and may have {limit} ({whose}): remove some, or give it "
                f"{given} quota with `swell volume quota {name} --{unit}-max`. Nothing of the change was made."
            )
            return SwellError("volume_full", words, status=507)
    return None


def _found(tree: Tree, path: str) -> Entry:
    entry = find(tree, path)
    if entry is None:
        raise SwellError("no_such_file", f"There is no {path!r} in the volume.", status=404)
    return entry
