"""What can be asked about API keys over HTTP? That they are made, listed and revoked."""

from __future__ import annotations

from swell.api.port import ControlPort
from swell.api.routes import ApiRequest, Route
from swell.decide.access import Need
from swell.wire.api import KeyRow, MadeKey, NewKey

MANAGES = Need("admin", somewhere=True)
"""Keys whose scopes are all within it."""


def key_routes(control: ControlPort) -> list[Route]:
    """Every operation there is."""

    async def rows(request: ApiRequest) -> list[KeyRow]:
        return control.keys(request.holder)

    async def make(request: ApiRequest) -> MadeKey:
        return await control.make_key(request.body, request.holder)

    async def revoke(request: ApiRequest) -> KeyRow:
        return await control.revoke_key(request.path["key"], request.holder)

    keys, key = "/api/keys", "/api/keys/{key}"
    return [
        Route("GET", keys, "The API keys there are, oldest first.", rows, gives=list[KeyRow], needs=MANAGES),
        Route("POST", keys, "Make an API key.", make, takes=NewKey, gives=MadeKey, needs=MANAGES),
        Route("DELETE", key, "Revoke an API key, by its id or name.", revoke, gives=KeyRow, needs=MANAGES),
    ]
