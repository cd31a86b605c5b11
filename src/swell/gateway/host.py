"""Is a host one of this machine? What is asked of names, since whoever owns a name can make it point here."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from swell.decide.route import WEB_HOST

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~-]*)(?::[0-9]*)?")
"""A name, an address, or nothing, which HTTP allows; with a port or without."""


def is_host(value: bytes) -> bool:
    """Whether it can be a name or address with an optional port, as far as its characters tell."""
    return _HOST.fullmatch(value) is not None


def name_of(host: bytes) -> str:
    """The name or address alone, lower case: "[::1]:80" → "::1", "Shop.localhost.:80" → "shop.localhost"."""
    text = host.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].removesuffix(".")


@lru_cache(maxsize=256)
def is_of_this_machine(host: bytes) -> bool:
    """Whether it is a loopback address, `localhost` or a name below it, which browsers resolve by themselves."""
    name = name_of(host)
    if name == "localhost" or name.endswith(WEB_HOST):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_own_page(origin: bytes, host: bytes) -> bool:
    """Whether the page that sent a request came from the very host it was sent to, and that is of this machine."""
    return origin.lower().partition(b"://")[2] == host.lower() and is_of_this_machine(host)
