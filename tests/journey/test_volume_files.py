"""Are files of volumes read and written from Python as the SDK's users expect? On a real platform."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import swell
from private_swell import PrivateSwell, wait_until
from sdk import deployable
from swell.sdk import volume as module

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def volume(own_server: PrivateSwell) -> Iterator[swell.Volume]:
    made = swell.Volume.from_name("mine", create_if_missing=True)
    yield made
    swell.Volume.delete("mine", allow_missing=True)


@pytest.mark.shows("Volume.from_name", "create_if_missing")
@pytest.mark.shows("Volume.listdir", "path", "recursive")
@pytest.mark.shows("Volume.iterdir", "path", "recursive")
@pytest.mark.shows("Volume.read_file", "path")
@pytest.mark.shows("Volume.read_file_into_fileobj", "path", "fileobj")
@pytest.mark.shows("Volume.batch_upload", "force")
def test_files_are_put_and_read(volume: swell.Volume, tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "a.txt").write_text("a")
    (tmp_path / "d" / "e" / "b.txt").write_text("bb")
    with pytest.raises(swell.Error, match="There is no volume 'nobody'"):
        swell.Volume.from_name("nobody").listdir("/")
    assert volume.listdir("/") == []
    with volume.batch_upload() as batch:
        batch.put_directory(tmp_path / "d", "/dir")
        batch.put_directory(tmp_path / "d", "/flat", recursive=False)
        batch.put_file(tmp_path / "d" / "a.txt", "/top/")
        batch.put_file(io.BytesIO(b"from memory"), "m.bin")
    assert [entry.path for entry in volume.listdir("/")] == ["dir", "flat", "m.bin", "top"]
    everything = ["dir", "dir/a.txt", "dir/e", "dir/e/b.txt", "flat", "flat/a.txt", "m.bin", "top", "top/a.txt"]
    assert [entry.path for entry in volume.listdir("/", recursive=True)] == everything
    assert [entry.path for entry in volume.iterdir("dir")] == ["dir/a.txt", "dir/e", "dir/e/b.txt"]
    assert [entry.path for entry in volume.iterdir("dir", recursive=False)] == ["dir/a.txt", "dir/e"]
    (entry,) = volume.listdir("dir/e/b.txt")
    assert (entry.type, entry.size) == (module.FileEntryType.FILE, 2)
    assert b"".join(volume.read_file("dir/e/b.txt")) == b"bb"
    into = io.BytesIO()
    assert volume.read_file_into_fileobj("m.bin", into) == 11
    assert into.getvalue() == b"from memory"
    batch = volume.batch_upload()
    batch.put_file(io.BytesIO(b"other"), "m.bin")
    batch.put_file(io.BytesIO(b"x"), "new")
    with pytest.raises(swell.Error, match=r"There is a 'm\.bin'"):
        batch.__exit__(None, None, None)
    assert len(volume.listdir("/")) == 4
    with volume.batch_upload(force=True) as batch:
        batch.put_file(io.BytesIO(b"other"), "m.bin")
    assert b"".join(volume.read_file("m.bin")) == b"other"
    with suppress(RuntimeError), volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"x"), "never")
        raise RuntimeError
    assert "never" not in [entry.path for entry in volume.listdir("/")]


@pytest.mark.shows("Volume.remove_file", "path", "recursive")
@pytest.mark.shows("Volume.copy_files", "src_paths", "dst_path", "recursive")
def test_files_are_copied_and_removed(volume: swell.Volume) -> None:
    with volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"a"), "d/a")
    volume.copy_files(["d/a"], "b")
    with pytest.raises(swell.Error, match="is a folder"):
        volume.copy_files(["d"], "c")
    volume.copy_files(["d"], "c", recursive=True)
    assert [entry.path for entry in volume.listdir("", recursive=True)] == ["b", "c", "c/a", "d", "d/a"]
    volume.remove_file("b")
    with pytest.raises(swell.Error, match="not empty"):
        volume.remove_file("c")
    volume.remove_file("c", recursive=True)
    assert [entry.path for entry in volume.listdir("", recursive=True)] == ["d", "d/a"]


@pytest.mark.shows("Volume.rename", "old_name", "new_name", "environment_name")
@pytest.mark.shows("Volume.delete", "name", "allow_missing", "environment_name")
@pytest.mark.shows("Volume.from_name", "name", "environment_name")
@pytest.mark.shows("Volume.ephemeral", "environment_name")
def test_names_and_namespaces(own_server: PrivateSwell) -> None:
    staging = swell.Volume.from_name("a", environment_name="staging", create_if_missing=True)
    assert staging.listdir("/") == []
    swell.Volume.rename("a", "b", environment_name="staging")
    with pytest.raises(swell.Error, match="There is no volume 'b'"):
        swell.Volume.from_name("b").listdir("/")
    with pytest.raises(swell.Error, match="There is no volume 'b'"):
        swell.Volume.delete("b")
    swell.Volume.delete("b", allow_missing=True)
    swell.Volume.delete("b", environment_name="staging")

    def there() -> list[str]:
        return [row["name"] for row in json.loads(own_server.run("volume", "list", "-e", "staging", "--json"))]

    assert there() == []
    with swell.Volume.ephemeral(environment_name="staging") as ours:
        assert there() == [ours.name]
    assert there() == []


def test_each_has_a_form_for_asyncio(own_server: PrivateSwell) -> None:
    async def use() -> None:
        async with swell.Volume.ephemeral() as ours:
            async with ours.batch_upload() as batch:
                batch.put_file(io.BytesIO(b"a"), "d/a")
            assert [entry.path async for entry in ours.iterdir.aio("/")] == ["d", "d/a"]
            assert b"".join([piece async for piece in ours.read_file.aio("d/a")]) == b"a"
            await ours.remove_file.aio("d/a")
            assert [entry.path for entry in await ours.listdir.aio("/")] == ["d"]
            with pytest.raises(swell.Error, match="for functions that have the volume"):
                await ours.commit.aio()

    asyncio.run(use())


def test_what_a_program_left_is_deleted(own_server: PrivateSwell) -> None:
    script = "import os, swell; swell.Volume.ephemeral().__enter__(); os._exit(1)"
    subprocess.run([sys.executable, "-c", script], timeout=60)
    wait_until("it is deleted", lambda: json.loads(own_server.run("volume", "list", "--json")) == [])


@pytest.mark.parametrize("path", ["data", "/", "/usr/data", "/tmp", "/a/../b", "/a:b", "/a,b"])
def test_paths_that_no_volume_can_have(path: str) -> None:
    with pytest.raises(swell.Error, match=r"App\(volumes=\{"):
        swell.App("a", volumes={path: swell.Volume.from_name("v")})


def test_what_is_no_volume_is_told_by_its_kind() -> None:
    with pytest.raises(swell.Error, match=r"App\.function\(volumes=\{'/data': …\}\): .* not an object of type str"):
        swell.App("a").function(volumes={"/data": "v"})(deployable.plain)
    with pytest.raises(swell.Error, match="volume 'a/b' is no name"):
        swell.Volume.from_name("a/b")
    with pytest.raises(swell.Error, match="swell volume"):
        swell.Volume.objects.list()
