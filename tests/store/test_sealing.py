"""Is what is sealed closed to all who lack the key, and does it open only as what it is?"""

from __future__ import annotations

import hmac
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from swell.model.errors import SwellError
from swell.store.sealing import MasterKeySealer


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "master.key"


@given(plain=st.binary(max_size=200), about=st.binary(max_size=50), other=st.binary(max_size=50))
def test_it_opens_as_what_it_is_about_and_as_nothing_else(path: Path, plain: bytes, about: bytes, other: bytes) -> None:
    sealer = MasterKeySealer(path)
    sealed = sealer.seal(plain, about)
    assert MasterKeySealer(path).open(sealed, about) == plain
    assert len(plain) < 8 or plain not in sealed
    if other != about:
        with pytest.raises((SwellError, UnicodeDecodeError)):
            sealer.open(sealed, other)


@given(data=st.data())
def test_no_byte_of_it_can_be_changed_or_left_out(path: Path, data: st.DataObject) -> None:
    sealer = MasterKeySealer(path)
    sealed = bytearray(sealer.seal(b"value", b"a/b/v1"))
    at = data.draw(st.integers(0, len(sealed) - 1))
    cut = bytes(sealed[:at])
    sealed[at] ^= data.draw(st.integers(1, 255))
    for wrong in (bytes(sealed), cut):
        with pytest.raises(SwellError, match="cannot be opened") as raised:
            sealer.open(wrong, b"a/b/v1")
        assert raised.value.code == "secret_sealed"


def test_equal_values_are_sealed_differently_and_named_alike(path: Path) -> None:
    sealer = MasterKeySealer(path)
    assert sealer.seal(b"value", b"a") != sealer.seal(b"value", b"a")
    assert sealer.digest(b"value") == MasterKeySealer(path).digest(b"value") != sealer.digest(b"other")


def test_each_has_a_key_of_its_own_and_the_master_key_seals_that(path: Path) -> None:
    """By AES-256-GCM both times, in the form in which databases have it."""
    keys = []
    for _ in range(2):
        sealed = MasterKeySealer(path).seal(b"value", b"a/b/v1")
        master = bytes.fromhex(path.read_text().strip().removeprefix("mk-"))
        wrapping = hmac.digest(master, b"swell: wraps keys of secrets", "sha256")
        key = AESGCM(wrapping).decrypt(sealed[1:13], sealed[13:61], b"key of a/b/v1")
        assert AESGCM(key).decrypt(sealed[61:73], sealed[73:], b"a/b/v1") == b"value"
        keys.append(key)
    assert keys[0] != keys[1]
    assert {len(key) for key in keys} == {32}


def test_another_key_opens_nothing_and_names_otherwise(path: Path, tmp_path: Path) -> None:
    other = MasterKeySealer(tmp_path / "other.key")
    sealed = MasterKeySealer(path).seal(b"value", b"a/b/v1")
    with pytest.raises(SwellError, match=r"a/b/v1 cannot be opened: there is no .*other\.key") as raised:
        other.open(sealed, b"a/b/v1")
    assert raised.value.code == "secret_sealed"
    assert not (tmp_path / "other.key").exists(), "none that is made now would open it"
    other.seal(b"", b"")
    with pytest.raises(SwellError, match=r"a/b/v1 cannot be opened: it was sealed with another .*other\.key"):
        other.open(sealed, b"a/b/v1")
    assert other.digest(b"value") != MasterKeySealer(path).digest(b"value")


def test_the_key_is_made_when_it_is_first_needed_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    sealer = MasterKeySealer(path)
    assert not path.exists()
    sealer.seal(b"", b"")
    assert path.stat().st_mode & 0o777 == 0o600
    os.chmod(path, 0o640)
    with pytest.raises(SwellError, match=r"can be read by other users.*all secrets are lost then") as raised:
        MasterKeySealer(path).seal(b"", b"")
    assert raised.value.code == "key_exposed"
