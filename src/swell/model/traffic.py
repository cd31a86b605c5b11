"""Which versions of an app is its traffic to go to? What a user may ask for."""

from __future__ import annotations

import re

import msgspec

from swell.model.errors import SwellError
from swell.model.workload import Method

TAG = re.compile(r"[a-z](?:[a-z0-9-]{0,18}[a-z0-9])?\Z")
_VERSION = re.compile(r"v[0-9]+\Z")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}\Z")
_UNSEEN = ("host", "authorization", "connection", "content-length", "transfer-encoding", "expect", "upgrade")
"""Headers that the gateway keeps to itself."""


class Branch(msgspec.Struct, frozen=True):
    """A revision that requests may go to."""

    pool: str
    version: int
    methods: tuple[Method, ...]
    percent: float = 0.0
    header: tuple[str, str] | None = None
    tag: str = ""


class ByHeader(msgspec.Struct, frozen=True):
    """Requests with this header and value go to a version."""

    name: str
    value: str
    version: int


class ByTag(msgspec.Struct, frozen=True):
    """A name that leads to a version alone."""

    tag: str
    version: int


class Traffic(msgspec.Struct, frozen=True):
    """PUT /api/apps/{namespace}/{name}/traffic: the whole of it; what is not named has no share, header or tag."""

    shares: tuple[tuple[int, float], ...] = ()
    """(version, percent); without any, what has the traffic takes all of it."""
    hash_header: str = ""
    """Requests with the same value of it go to the same version; empty: each is drawn anew."""
    headers: tuple[ByHeader, ...] = ()
    tags: tuple[ByTag, ...] = ()
    function: str = ""
    """Function or class it is about; empty: all of the app."""

    @property
    def versions(self) -> set[int]:
        """Those that are named."""
        shares = {version for version, _ in self.shares}
        return shares | {each.version for each in self.headers} | {each.version for each in self.tags}


def check(traffic: Traffic) -> None:
    """Refuse what cannot be meant."""
    named = [version for version, _ in traffic.shares]
    if len(named) != len(set(named)):
        raise _bad("a version is given two shares")
    if any(not 0 <= percent <= 100 for _, percent in traffic.shares):
        raise _bad("a share is a percentage from 0 to 100")
    whole = sum(percent for _, percent in traffic.shares)
    if named and abs(whole - 100) > 1e-6:
        told = " ".join(f"v{version}={percent:g}" for version, percent in traffic.shares)
        raise _bad(f"the shares add up to {whole:g}, not to 100 ({told})")
    for name in (*filter(None, (traffic.hash_header,)), *(each.name for each in traffic.headers)):
        if not _HEADER.match(name) or name.lower() in _UNSEEN or name.lower().startswith("swell-"):
            raise _bad(f"{name[:80]!r} is no header that requests could be told apart by")
    tags = [each.tag for each in traffic.tags]
    if len(tags) != len(set(tags)):
        raise _bad("a tag leads to one version")
    for tag in tags:
        if not TAG.match(tag) or _VERSION.match(tag) or "--" in tag:
            raise _bad(f"{tag[:80]!r} is no tag: use up to 20 small letters, digits and dashes, and not v and a number")


def _bad(why: str) -> SwellError:
    return SwellError("bad_traffic", f"The traffic cannot be split so: {why}.", status=422)
