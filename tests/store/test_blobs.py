"""Is a blob there only when it is whole and what its digest says?"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import time
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swell.model.errors import SwellError
from swell.store.blobs import PIECE, BlobFolder


def digest_of(content: bytes) -> str:
    return "sha256-" + hashlib.sha256(content).hexdigest()


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


def content_of(blobs: BlobFolder, digest: str) -> bytes:
    return Path(blobs.path(digest)).read_bytes()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.binary(max_size=50), max_size=8))
def test_what_was_put_in_chunks_is_there_as_one(tmp_path: Path, chunks: list[bytes]) -> None:
    blobs = BlobFolder(tmp_path)
    content = b"".join(chunks)
    digest = digest_of(content)
    asyncio.run(blobs.put(digest, stream(*chunks)))
    assert blobs.has(digest)
    assert content_of(blobs, digest) == content


def test_content_of_another_digest_leaves_nothing(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)
    digest = digest_of(b"right")
    with pytest.raises(SwellError) as caught:
        asyncio.run(blobs.put(digest, stream(b"wrong")))
    assert caught.value.code == "wrong_digest"
    assert digest_of(b"wrong") in caught.value.message
    assert not blobs.has(digest)
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield b"some"
        raise ConnectionResetError

    blobs = BlobFolder(tmp_path)
    with pytest.raises(ConnectionResetError):
        asyncio.run(blobs.put(digest_of(b"some"), breaking()))
    assert list(tmp_path.iterdir()) == []


def test_many_put_the_same_at_once(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)
    content = b"x" * 100_000
    digest = digest_of(content)

    async def all_at_once() -> None:
        await asyncio.gather(*(blobs.put(digest, stream(content[:n], content[n:])) for n in range(0, 100_000, 10_000)))

    asyncio.run(all_at_once())
    assert [file.name for file in tmp_path.iterdir()] == [digest]
    assert content_of(blobs, digest) == content


@pytest.mark.parametrize(
    "digest", ["", "sha256-", "sha256-" + "0" * 63, "sha256-" + "A" * 64, "../" + "0" * 64, "md5-" + "0" * 64]
)
def test_what_is_no_digest_is_refused(tmp_path: Path, digest: str) -> None:
    blobs = BlobFolder(tmp_path)
    for ask in (blobs.has, blobs.path, lambda d: asyncio.run(blobs.put(d, stream(b"")))):
        with pytest.raises(SwellError, match="no digest"):
            ask(digest)
    assert list(tmp_path.iterdir()) == []


def test_a_blob_over_the_limit_is_refused_while_it_comes(tmp_path: Path) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1000
            yield b"x" * 1000

    with pytest.raises(SwellError) as caught:
        asyncio.run(BlobFolder(tmp_path, most=10_000).put("sha256-" + "0" * 64, endless()))
    assert (caught.value.code, caught.value.status) == ("blob_too_large", 413)
    assert taken == 11_000
    assert list(tmp_path.iterdir()) == []


def test_all_together_may_take_so_much_and_no_more(tmp_path: Path) -> None:
    block = 4096
    blobs = BlobFolder(tmp_path, all_max=8 * block)

    def put(content: bytes) -> None:
        asyncio.run(blobs.put(digest_of(content), stream(content)))

    first, second = b"1" * (4 * block - 1), b"2" * (3 * block - 1)
    put(first)
    put(first)
    put(second)
    assert blobs.size == 7 * block
    with pytest.raises(SwellError) as caught:
        put(b"3" * block)
    assert (caught.value.code, caught.value.status) == ("blobs_full", 507)
    assert "(blobs_max_gib)" in caught.value.message
    # What was refused left nothing; small ones take a block each.
    assert blobs.size == 7 * block
    put(b"4")
    with pytest.raises(SwellError, match="is kept here takes"):
        put(b"5")
    assert {file.name for file in tmp_path.iterdir()} == {digest_of(c) for c in (first, second, b"4")}
    # The next control counts what it finds, and what a sweep takes makes room.
    blobs = BlobFolder(tmp_path, all_max=8 * block)
    assert blobs.size == 8 * block
    blobs.sweep({digest_of(first)}, time.time() + 60)
    assert blobs.size == 4 * block
    put(b"6" * (3 * block))
    assert blobs.size == 8 * block


def test_those_on_their_way_at_once_share_the_room(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path, all_max=100_000)
    contents = [bytes([n]) * 30_000 for n in range(10)]

    refused = []

    async def put(content: bytes) -> bool:
        try:
            await blobs.put(digest_of(content), stream(*(content[at : at + 1000] for at in range(0, 30_000, 1000))))
        except SwellError as error:
            refused.append((error.code, blobs.size <= 100_000))
            return False
        return True

    async def all_at_once() -> list[bool]:
        return await asyncio.gather(*map(put, contents))

    kept = asyncio.run(all_at_once())
    there = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(there) == sum(kept) <= 3
    assert set(refused) == {("blobs_full", True)}
    assert blobs.size <= 100_000
    # Nobody holds on to room that is not used.
    missing = next(content for content, was in zip(contents, kept, strict=True) if not was)
    for content, was in zip(contents, kept, strict=True):
        assert blobs.has(digest_of(content)) == was
    blobs.sweep((), time.time() + 60)
    assert blobs.size == 0
    assert asyncio.run(put(missing))


def test_unfinished_files_of_a_crash_are_cleared_away(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)
    asyncio.run(blobs.put(digest_of(b"a"), stream(b"a")))
    (tmp_path / ".put-left").write_bytes(b"half")
    BlobFolder(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [digest_of(b"a")]


# -- what nobody needs ------------------------------------------------------------------------------


def aged(blobs: BlobFolder, content: bytes) -> str:
    """A blob that was put two hours ago."""
    digest = digest_of(content)
    asyncio.run(blobs.put(digest, stream(content)))
    os.utime(blobs.path(digest), times=(time.time() - 7200, time.time() - 7200))
    return digest


def test_a_sweep_takes_what_is_old_and_not_needed_and_nothing_else(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)
    needed, old = aged(blobs, b"needed"), aged(blobs, b"old")
    young = digest_of(b"young")
    asyncio.run(blobs.put(young, stream(b"young")))
    (tmp_path / ".put-underway").write_bytes(b"half")
    (tmp_path / "of-somebody-else").write_bytes(b"")
    os.utime(tmp_path / "of-somebody-else", times=(0, 0))
    assert blobs.sweep({needed}, time.time() - 3600) == 1
    assert not blobs.has(old)
    left = {needed, young, ".put-underway", "of-somebody-else"}
    assert {file.name for file in tmp_path.iterdir()} == left


def test_what_was_asked_for_is_about_to_be_needed(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)
    digest = aged(blobs, b"deployed last month")
    assert blobs.has(digest)
    assert blobs.sweep((), time.time() - 3600) == 0
    assert blobs.has(digest)


def test_what_is_put_again_is_as_good_as_new(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)
    digest = aged(blobs, b"once more")
    asyncio.run(blobs.put(digest, stream(b"once more")))
    assert blobs.sweep((), time.time() - 3600) == 0


def test_what_can_not_be_removed_is_told(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path / "blobs")
    shutil.rmtree(blobs.folder)
    with pytest.raises(SwellError) as caught:
        blobs.sweep((), time.time())
    assert caught.value.code == "state_not_writable"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SwellError) as caught:
        BlobFolder(tmp_path / "file" / "blobs")
    assert caught.value.code == "state_not_writable"


@pytest.mark.slow
def test_memory_stays_bounded_whatever_the_size(tmp_path: Path) -> None:
    chunk, count = bytes(64 * 1024), 1600
    whole = hashlib.sha256()
    for _ in range(count):
        whole.update(chunk)
    digest = f"sha256-{whole.hexdigest()}"

    blobs = BlobFolder(tmp_path)
    tracemalloc.start()
    try:
        asyncio.run(blobs.put(digest, stream(*(chunk for _ in range(count)))))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert Path(blobs.path(digest)).stat().st_size == count * len(chunk)
    assert peak < 8 * PIECE


# -- files that are taken in -------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, errno.EXDEV, errno.EMLINK])
def test_a_file_is_taken_in_whole_and_stays_and_that_may_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Where it cannot be linked, it is copied."""

    def link(*_: object) -> None:
        raise OSError(code, "no")

    if code:
        monkeypatch.setattr(os, "link", link)
    content = b"large" * 1000
    path, digest = tmp_path / "told", digest_of(content)
    path.write_bytes(content)
    os.utime(path, (1.0, 1.0))
    # It is there already, and a promise was made: no room is no reason.
    blobs = BlobFolder(tmp_path / "b", all_max=4096)
    for _ in range(2):
        blobs.take(digest, str(path))
        assert content_of(blobs, digest) == content
        assert path.read_bytes() == content
        assert blobs.size == 2 * 4096
        assert blobs.full
    path.unlink()
    blobs.take(digest, str(path))
    assert content_of(blobs, digest) == content
    assert [each.name for each in blobs.folder.iterdir()] == [digest]
    assert blobs.sweep((), time.time() - 60) == 0, "it was put just now, however old the file is"
    assert blobs.sweep((), time.time() + 60) == 1
    assert (blobs.size, blobs.full) == (0, False)


def test_a_file_that_is_not_as_it_was_said_to_be_is_not_taken_in(tmp_path: Path) -> None:
    path, digest = tmp_path / "told", digest_of(b"whole")
    path.write_bytes(b"who")
    blobs = BlobFolder(tmp_path / "b")
    for code in ("wrong_digest", "state_not_writable"):
        with pytest.raises(SwellError) as caught:
            blobs.take(digest, str(path))
        assert caught.value.code == code
        assert list(blobs.folder.iterdir()) == []
        path.unlink(missing_ok=True)


def test_what_is_taken_in_is_synced_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, digest = tmp_path / "told", digest_of(b"whole")
    path.write_bytes(b"whole")
    blobs = BlobFolder(tmp_path / "b")
    synced: list[tuple[bool, bool]] = []

    def fsync(descriptor: int) -> None:
        is_folder = os.path.isdir(f"/proc/self/fd/{descriptor}")
        synced.append((is_folder, (blobs.folder / digest).exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    blobs.take(digest, str(path))
    assert synced == [(False, False), (True, True)]
