"""Is the same source always the same bundle, and is nothing sent that should stay?"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swell
from swell.model.limits import BUNDLE_MAX
from swell.sdk import bundle
from swell.sdk.disk import LocalPath
from swell.sdk.patterns import ignored

names = st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,2}\.txt", fullmatch=True)


@given(contents=st.dictionaries(names, st.binary(max_size=100), max_size=8), random=st.randoms())
def test_a_bundle_depends_on_names_and_contents_alone(contents, random, tmp_path_factory) -> None:
    packed = []
    for _ in range(2):
        folder = tmp_path_factory.mktemp("b")
        paths = {}
        for name in random.sample(sorted(contents), len(contents)):
            paths[name] = folder / name
            paths[name].parent.mkdir(parents=True, exist_ok=True)
            paths[name].write_bytes(contents[name])
            os.utime(paths[name], (random.random() * 1e9, random.random() * 1e9))
        packed.append(bundle.pack(paths))
    assert packed[0] == packed[1]
    with tarfile.open(fileobj=io.BytesIO(packed[0].data)) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert members == contents
    assert packed[0].digest.startswith("sha256-")


@given(
    contents=st.dictionaries(names, st.binary(max_size=20), min_size=1, max_size=4),
    name=names,
    more=st.binary(min_size=1, max_size=20),
)
def test_other_contents_are_another_bundle(contents, name, more, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("b")

    def pack(files):
        for at, data in files.items():
            (folder / at.replace("/", "_")).write_bytes(data)
        return bundle.pack({at: folder / at.replace("/", "_") for at in files}).digest

    assert pack(contents) != pack({**contents, name: contents.get(name, b"") + more})


def test_a_file_travels_alone_and_a_package_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text("")
    package = tmp_path / "package"
    for path in ("__init__.py", "entry.py", "inner/__init__.py", "inner/deep.py", "data.json", "__pycache__/x.pyc"):
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).write_text("")
    (package / ".git").mkdir()
    (package / ".git" / "HEAD").write_text("")
    alone, deep = bundle.source(tmp_path / "alone.py"), bundle.source(package / "inner" / "deep.py")
    assert (alone.module, list(bundle.gather([alone.local]))) == ("alone", ["alone.py"])
    assert deep.module == "package.inner.deep"
    assert set(bundle.gather([deep.local])) == {
        "package/__init__.py",
        "package/data.json",
        "package/entry.py",
        "package/inner/__init__.py",
        "package/inner/deep.py",
    }
    assert bundle.source(package / "__init__.py").module == "package"


def test_too_much_source_names_the_biggest_files(tmp_path: Path) -> None:
    for name, size in (("small", 10), ("huge", BUNDLE_MAX), ("big", 1 << 20)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    with pytest.raises(swell.Error, match=r"Biggest: huge \(64\.0 MiB\), big \(1\.0 MiB\)") as raised:
        bundle.pack({path.name: path for path in tmp_path.iterdir()})
    assert raised.value.code == "bundle_too_large"


def test_two_files_at_one_place_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "b").write_text("")
    place = PurePosixPath("x")
    with pytest.raises(swell.Error, match="would both be x"):
        bundle.gather([LocalPath(tmp_path / "a", place), LocalPath(tmp_path / "b", place)])
    assert list(bundle.gather([LocalPath(tmp_path / "a", place)] * 2)) == ["x"]


def test_a_file_and_a_folder_at_one_place_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "b").write_text("")
    file, inside = LocalPath(tmp_path / "a", PurePosixPath("x")), LocalPath(tmp_path / "b", PurePosixPath("x/y/b"))
    for entries in ([file, inside], [inside, file]):
        with pytest.raises(swell.Error, match=r"a would be x, and so would the folder that .*b is in"):
            bundle.gather(entries)


@pytest.mark.parametrize(
    ("patterns", "path", "out"),
    [
        (["*.log"], "a.log", True),
        (["*.log"], "d/a.log", False),
        (["**/*.log"], "d/e/a.log", True),
        (["**/*.log"], "a.log", True),
        (["d"], "d/e/a.log", True),
        (["d/"], "d/a", True),
        (["d/**"], "d/e/a", True),
        (["d/?.txt"], "d/a.txt", True),
        (["d/?.txt"], "d/ab.txt", False),
        (["*", "!keep.txt"], "keep.txt", False),
        (["*", "!keep.txt", "keep*"], "keep.txt", True),
        (["a.c"], "abc", False),
        ([], "x", False),
    ],
)
def test_patterns(patterns: list[str], path: str, out: bool) -> None:
    assert ignored(patterns, PurePosixPath(path)) is out
