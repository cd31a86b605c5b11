"""Whose is a host? What is asked of names and addresses, since whoever owns a name can make it point here."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from urllib.parse import urlsplit

WEB_HOST = ".localhost"
"""`{label}.localhost`: browsers resolve it to the loopback by themselves."""

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._~-]*)(?::[0-9]*)?")
"""A name, an address, or nothing, which HTTP allows; with a port or without."""


def is_host(value: bytes) -> bool:
    """Whether it can be a name or address with an optional port, as far as its characters tell."""
    return _HOST.fullmatch(value) is not None


def name_of(host: str) -> str:
    """The name or address alone, lower case: "[::1]:80" → "::1", "Shop.localhost.:80" → "shop.localhost"."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].removesuffix(".").lower()


def is_address(name: str) -> bool:
    """An address in the place of a name: what DNS rebinding cannot forge, since it needs a name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Whether it is `localhost` or a loopback address."""
    return name == "localhost" or (is_address(name) and ipaddress.ip_address(name).is_loopback)


@lru_cache(maxsize=256)
def is_of_this_machine(host: str) -> bool:
    """Whether a host, with its port, is loopback or a name below `localhost`."""
    name = name_of(host)
    return name.endswith(WEB_HOST) or is_loopback(name)


def is_own_page(origin: str, host: str) -> bool:
    """Whether the page that sent a request came from the very host it was sent to, and that is of this machine."""
    return origin.lower().partition("://")[2] == host.lower() and is_of_this_machine(host)


def stays_here(url: str) -> bool:
    """Does what is sent to this URL stay on this machine?"""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False
