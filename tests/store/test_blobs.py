"""Is a blob there only when it is whole and what its digest says?"""

from __future__ import annotations

import asyncio
import hashlib
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


async def collect(blobs: BlobFolder, digest: str, start: int = 0, size: int | None = None) -> bytes:
    return b"".join([piece async for piece in blobs.read(digest, start, size)])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chunks=st.lists(st.binary(max_size=50), max_size=8), start=st.integers(0, 60), size=st.none() | st.integers(0, 60)
)
def test_what_was_put_in_chunks_is_read_by_any_range(
    tmp_path: Path, chunks: list[bytes], start: int, size: int | None
) -> None:
    blobs = BlobFolder(tmp_path)
    content = b"".join(chunks)
    digest = digest_of(content)
    asyncio.run(blobs.put(digest, stream(*chunks)))
    assert blobs.has(digest)
    assert Path(blobs.path(digest)).read_bytes() == content
    end = None if size is None else start + size
    assert asyncio.run(collect(blobs, digest, start, size)) == content[start:end]


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
    assert asyncio.run(collect(blobs, digest)) == content


@pytest.mark.parametrize(
    "digest", ["", "sha256-", "sha256-" + "0" * 63, "sha256-" + "A" * 64, "../" + "0" * 64, "md5-" + "0" * 64]
)
def test_what_is_no_digest_is_refused(tmp_path: Path, digest: str) -> None:
    blobs = BlobFolder(tmp_path)
    for ask in (blobs.has, blobs.path, lambda d: asyncio.run(blobs.put(d, stream(b"")))):
        with pytest.raises(SwellError, match="no digest"):
            ask(digest)
    assert list(tmp_path.iterdir()) == []


def test_a_blob_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SwellError) as caught:
        asyncio.run(collect(BlobFolder(tmp_path), "sha256-" + "0" * 64))
    assert (caught.value.code, caught.value.status) == ("unknown_blob", 404)


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


def test_unfinished_files_of_a_crash_are_cleared_away(tmp_path: Path) -> None:
    blobs = BlobFolder(tmp_path)
    asyncio.run(blobs.put(digest_of(b"a"), stream(b"a")))
    (tmp_path / ".put-left").write_bytes(b"half")
    BlobFolder(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [digest_of(b"a")]


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

    async def there_and_back() -> int:
        blobs = BlobFolder(tmp_path)
        await blobs.put(digest, stream(*(chunk for _ in range(count))))
        return sum([len(piece) async for piece in blobs.read(digest)])

    tracemalloc.start()
    try:
        assert asyncio.run(there_and_back()) == count * len(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * PIECE
