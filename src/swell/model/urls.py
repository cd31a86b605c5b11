"""What of an address may everybody see? All but its password."""

from __future__ import annotations

HIDDEN = ("password=", "passfile=", "sslpassword=")


def shown(url: str) -> str:
    """The address without a password, wherever it stands in it, and also where it is not written as it should be."""
    scheme, colon, rest = url.partition("://")
    if not colon:
        return ""
    # A password may have been written with any signs in it.
    before, at, after = rest.rpartition("@")
    place, _, query = after.partition("?")
    kept = [part for part in query.split("&") if part and not part.lower().startswith(HIDDEN)]
    return f"{scheme}://{before.partition(':')[0]}{at}{place}{'?' if kept else ''}{'&'.join(kept)}"
