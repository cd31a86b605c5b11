"""What of an address may everybody see? All but its password."""

from __future__ import annotations

import re
from itertools import takewhile
from urllib.parse import unquote

HIDDEN = ("password", "passfile", "sslpassword")
_HOST = r"(?:\[[^]/]*\]|[^][:/]*)(?::\d*)?"
_PLACE = re.compile(rf"{_HOST}(?:,{_HOST})*(?:/[^:]*)?")
"""Hosts, their ports, and the name of a database. After a colon nothing but a port: it may be a password."""


def shown(url: str) -> str:
    """The address without a password, wherever it stands in it.

    Where it is not written as it should be, more may be missing: a password may have been written with any signs in it.
    """
    scheme, colon, rest = url.partition("://")
    if not colon or not scheme.isalnum():
        return ""
    place, _, query = rest.partition("?")
    if "@" in query:
        # Of a password in the query, or the query begins inside of one.
        return f"{scheme}://{re.split('[:/@]', place)[0]}"
    before, at, place = place.rpartition("@")
    place = place if _PLACE.fullmatch(place) else ""
    # What comes after a password may be more of it.
    kept = [*takewhile(lambda part: not unquote(part).lower().startswith(HIDDEN), query.split("&") if query else ())]
    return f"{scheme}://{before.partition(':')[0]}{at}{place}{'?' if kept else ''}{'&'.join(kept)}"
