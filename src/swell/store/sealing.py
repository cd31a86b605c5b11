"""How are secrets kept from who has the database? Each version is sealed with a key of its own, and those keys with the
master key, which lies in a file of its own and is in no backup of the database.

AES-256-GCM both times (`cryptography`, imported when the first secret is sealed or opened), bound to namespace, name
and version: what is sealed as one opens as no other.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from functools import cached_property
from pathlib import Path

from swell.model.errors import SwellError
from swell.store.keys import ensure_master_key

_FORMAT = b"\x01"
_NONCE = 12
_KEY = 32
_WRAPPED = _NONCE + _KEY + 16


class MasterKeySealer:
    """The `Sealer` port over one file. It is made when something is sealed and it is not there, and read once: who
    seals asks before whether what is there opens, since what a lost key sealed opens with no other."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def seal(self, plain: bytes, about: bytes) -> bytes:
        key = os.urandom(_KEY)
        return _FORMAT + _encrypt(self._wrapping, key, b"key of " + about) + _encrypt(key, plain, about)

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """SwellError where this master key, or these bytes, are not those it was sealed with, or there is no such key:
        none is made, since none that is made now would open it."""
        from cryptography.exceptions import InvalidTag

        if "_master" not in self.__dict__ and not self._path.exists():
            raise _sealed(about, f"there is no {self._path}. Put the former key back there")
        try:
            if sealed[:1] != _FORMAT:
                raise ValueError
            key = _decrypt(self._wrapping, sealed[1 : 1 + _WRAPPED], b"key of " + about)
            return _decrypt(key, sealed[1 + _WRAPPED :], about)
        except (InvalidTag, ValueError):
            why = f"it was sealed with another master key than {self._path}, or changed. Put the former key back"
            raise _sealed(about, f"{why} and restart") from None

    def digest(self, content: bytes) -> str:
        """Tells contents apart to nobody but who has the key: equal ones are equal, and nothing else can be learnt."""
        return hmac.new(self._naming, content, hashlib.sha256).hexdigest()[:32]

    @cached_property
    def _master(self) -> bytes:
        return bytes.fromhex(ensure_master_key(self._path).removeprefix("mk-"))

    @cached_property
    def _wrapping(self) -> bytes:
        return hmac.new(self._master, b"swell: wraps keys of secrets", hashlib.sha256).digest()

    @cached_property
    def _naming(self) -> bytes:
        return hmac.new(self._master, b"swell: names secrets of apps", hashlib.sha256).digest()


def _sealed(about: bytes, why: str) -> SwellError:
    words = f"The secret {about.decode()} cannot be opened: {why}, or make the secret anew: "
    return SwellError("secret_sealed", f"{words}`swell secret delete`, then `swell secret create`.", status=500)


def _encrypt(key: bytes, plain: bytes, about: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, plain, about)


def _decrypt(key: bytes, sealed: bytes, about: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], about)
