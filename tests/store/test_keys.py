"""Are keys made once, kept secret, and refused when they are not?"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swell.model.errors import SwellError
from swell.store.keys import ensure_keys, read_key


def test_keys_are_made_at_the_first_start_and_kept(tmp_path: Path) -> None:
    home, call = tmp_path / "state" / "key", tmp_path / "state" / "call-key"
    keys = ensure_keys(home, call)
    assert re.fullmatch("sk-[0-9a-f]{64}", keys.api)
    assert re.fullmatch("sk-[0-9a-f]{64}", keys.call)
    assert keys.api != keys.call
    assert ensure_keys(home, call) == keys
    assert (read_key(home), read_key(call)) == keys
    for path in (home, call):
        assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in home.parent.iterdir()) == ["call-key", "key"]


def test_all_that_start_at_once_have_the_same_keys(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda _: ensure_keys(tmp_path / "key", tmp_path / "call-key"), range(64)))
    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    key = tmp_path / "key"
    made = ensure_keys(key, tmp_path / "call-key")
    key.chmod(mode)
    with pytest.raises(SwellError, match="chmod 600") as caught:
        ensure_keys(key, tmp_path / "call-key")
    assert caught.value.code == "key_exposed"
    assert made.api not in caught.value.message


@pytest.mark.parametrize("content", [b"", b"sk-123", b"\xff" * 67, b"sk-" + b"0" * 64 + b"more"])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_bytes(content)
    with pytest.raises(SwellError) as caught:
        read_key(key)
    assert caught.value.code == "bad_key_file"
    assert str(key) in caught.value.message


def test_a_missing_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(SwellError, match="swell up") as caught:
        read_key(tmp_path / "key")
    assert caught.value.code == "no_key_file"
