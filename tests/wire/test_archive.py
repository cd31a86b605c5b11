"""Is a backup read as it was written, and is whatever else there may be refused in words?"""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.model.backup import DATABASE, END, FORMAT, MANIFEST, PRICES, End, Manifest, Member
from swell.model.errors import SwellError
from swell.wire.archive import CLOSING, Reader, document, header, padding

TREE = "volumes/default/vo-0123456789abcdef/v3"
LISTED = st.dictionaries(st.sampled_from([DATABASE, PRICES, "key", "master.key", TREE]), st.binary(max_size=1500))
CONTENTS = st.lists(
    st.tuples(st.sampled_from(["blobs", "results", "volumes/a.b/files"]), st.binary(max_size=1500)), max_size=4
)


def digest(body: bytes) -> str:
    return "sha256-" + hashlib.sha256(body).hexdigest()


def file(name: str, body: bytes) -> bytes:
    return header(name, len(body), 1.0) + body + padding(len(body))


def manifest(listed: dict[str, bytes], contents: dict[str, bytes]) -> Manifest:
    members = tuple(Member(name, len(body), digest(body)) for name, body in listed.items())
    return Manifest(FORMAT, "1.0", 9, 5.0, members, len(contents), sum(map(len, contents.values())))


def archive(listed: dict[str, bytes], contents: dict[str, bytes], end: End = End()) -> bytes:
    told = manifest(listed, contents)
    files = b"".join(file(name, body) for name, body in {**listed, **contents}.items())
    return document(MANIFEST, told, 1.0) + files + document(END, end, 1.0) + CLOSING


def read(data: bytes) -> tuple[Manifest, dict[str, bytes]]:
    reader = Reader(io.BytesIO(data).read, "FILE")
    return reader.manifest, {name: b"".join(pieces) for name, pieces in reader.members()}


def named(contents: list[tuple[str, bytes]]) -> dict[str, bytes]:
    return {f"{folder}/{digest(body)}": body for folder, body in contents}


def refusal(data: bytes) -> SwellError:
    with pytest.raises(SwellError) as refused:
        read(data)
    assert refused.value.message.endswith(".")
    return refused.value


@given(LISTED, CONTENTS)
def test_what_was_written_is_read_here_and_by_tar(listed: dict[str, bytes], found: list[tuple[str, bytes]]) -> None:
    contents = named(found)
    data = archive(listed, contents)
    assert read(data) == (manifest(listed, contents), {**listed, **contents})
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == [MANIFEST, *listed, *contents, END]
        assert {name: tar.extractfile(name).read() for name in contents} == contents  # type: ignore[union-attr]


@given(LISTED, CONTENTS, st.data())
def test_what_is_cut_off_is_refused(
    listed: dict[str, bytes], found: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    whole = archive(listed, named(found)).removesuffix(CLOSING)
    error = refusal(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert error.code == "bad_backup"


@given(LISTED, CONTENTS, st.data())
def test_what_was_changed_is_refused_or_is_the_same(
    listed: dict[str, bytes], found: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    contents = named(found)
    whole = bytearray(archive(listed, contents))
    place = data.draw(st.integers(0, len(whole) - len(CLOSING) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    try:
        told, files = read(bytes(whole))
    except SwellError:
        return
    # In padding, or in what a manifest says of its making: nothing that is put anywhere.
    assert files == {**listed, **contents}
    assert told.members == manifest(listed, contents).members


@given(st.binary(max_size=2000))
def test_anything_else_is_refused_in_words(data: bytes) -> None:
    assert refusal(data).message.startswith("FILE is no backup that `swell backup` made: it is ")


@pytest.mark.parametrize("size", [0, 1, 8**11 - 1, 8**11, 1 << 40, 1 << 62])
def test_a_size_is_read_as_it_was_written(size: int) -> None:
    block = header(TREE, size, 1.0)
    assert len(block) == 512
    info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    assert (info.name, info.size, info.isreg()) == (TREE, size, True)


def test_the_longest_name_fits() -> None:
    name = f"volumes/{'n' * 63}/files/{digest(b'')}"
    assert tarfile.TarInfo.frombuf(header(name, 0, 1.0), "utf-8", "strict").name == name


HOSTILE = [
    *(
        "/etc/passwd",
        "../control.db",
        "blobs/../../x",
        f"blobs/../{digest(b'')}",
        "volumes/../files/v1",
        "lock",
        "run/x",
    ),
    *(
        "volumes/default/files/v1",
        "volumes/default/vo-1/../v1",
        f"blobs/{digest(b'')}/x",
        "./control.db",
        "control.db/",
    ),
    f"volumes/default/files/{digest(b'').upper()}",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_no_backup_has_are_refused(name: str) -> None:
    body = b"" if "sha256" in name else b"x"
    plain = document(MANIFEST, manifest({}, {"x": body}), 1.0)
    assert "which no backup has" in refusal(plain + file(name, body) + document(END, End(), 1.0)).message
    assert "no backup has" in refusal(archive({name: body}, {})).message


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_folders_and_devices_are_refused(kind: bytes) -> None:
    info = tarfile.TarInfo(DATABASE)
    info.type, info.linkname = kind, "/etc/passwd"
    told = Manifest(FORMAT, "1.0", 9, 5.0, (Member(DATABASE, 0, digest(b"")),))
    data = document(MANIFEST, told, 1.0) + info.tobuf(tarfile.USTAR_FORMAT) + document(END, End(), 1.0)
    assert "is no plain file" in refusal(data).message


def test_a_later_format_is_told_as_such() -> None:
    body = b'{"format": 2, "members": "elsewhere"}'
    assert refusal(file(MANIFEST, body)).code == "backup_newer"


def test_an_end_that_says_why_is_told() -> None:
    end = End("backup_broken", "/x is not what it should be.")
    error = refusal(archive({DATABASE: b"x"}, {}, end))
    assert (error.code, error.message) == ("backup_broken", "The backup is not whole: /x is not what it should be.")
    # Also where it comes behind a file whose digest is not what was announced, and where others were announced.
    told = manifest({DATABASE: b"x", PRICES: b"y"}, {})
    data = document(MANIFEST, told, 1.0) + file(DATABASE, b"z") + document(END, end, 1.0)
    assert refusal(data).code == "backup_broken"


def test_too_few_contents_are_refused() -> None:
    contents = named([("blobs", b"a"), ("blobs", b"b")])
    told = manifest({}, contents)
    name, body = next(iter(contents.items()))
    data = document(MANIFEST, told, 1.0) + file(name, body) + document(END, End(), 1.0)
    assert "it has 1 contents of files, and should have 2" in refusal(data).message
