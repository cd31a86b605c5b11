"""What is a secret? A name with versions, each a few variables whose values only replicas are to see."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

KEYS_MAX = 100
"""Variables of one secret."""
BYTES_MAX = 64 * 1024
"""Of all names and values of one version together."""
VERSIONS_KEPT = 10
"""Older versions of a secret are forgotten."""
APP_OWNED = "app:"
"""How the names of secrets begin that a deploy made of values in the program; no name that a user gives has a colon."""

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}\Z")


class SecretUse(msgspec.Struct, frozen=True):
    """A revision is given the newest version of this secret."""

    namespace: str
    name: str
    required: tuple[str, ...] = ()
    """Variables that it must have."""

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name


class SecretVersion(msgspec.Struct, frozen=True):
    """One version as it is stored: sealed. It never changes."""

    namespace: str
    name: str
    number: int
    at: float
    keys: tuple[str, ...]
    """Names of its variables, which are no secret."""
    sealed: bytes

    @property
    def about(self) -> bytes:
        """What its seal is bound to: the bytes of another version, or of another secret, do not open as this one."""
        return f"{self.namespace}/{self.name}/v{self.number}".encode()


class Revealed(msgspec.Struct, frozen=True):
    """A secret with its values. It goes over links to where it is needed and is stored nowhere."""

    namespace: str
    name: str
    number: int = 0
    """Of the version; 0 = there is no such secret any more."""
    values: tuple[tuple[str, str], ...] = ()
    former: tuple[tuple[str, str], ...] = ()
    """Values of earlier versions that are still kept: only to know them again in what is printed."""

    problem: str = ""
    """Why there are no values although there is such a secret."""

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name

    def __repr__(self) -> str:
        return f"Revealed({self.namespace}/{self.name} v{self.number})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("namespace", self.namespace), ("name", self.name), ("number", self.number)]


def problems(values: Mapping[str, str]) -> list[str]:
    """What keeps these from being the variables of a secret, each a phrase. No value is told."""
    found = [
        f"{key[:80]!r} is no variable's name: letters, digits, underscores" for key in values if not _KEY.match(key)
    ]
    found += [f"the value of {key[:80]} has a NUL character" for key, value in values.items() if "\0" in value]
    if not values:
        found.append("it has no variable: give KEY=VALUE")
    if len(values) > KEYS_MAX:
        found.append(f"it has {len(values)} variables, more than {KEYS_MAX}")
    size = sum(len(text.encode("utf-8", "surrogatepass")) for pair in values.items() for text in pair)
    if size > BYTES_MAX:
        found.append(f"it has {size} bytes, more than {BYTES_MAX}")
    if any(not _encodable(text) for pair in values.items() for text in pair):
        found.append("it has text that cannot be written as UTF-8")
    return found


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
