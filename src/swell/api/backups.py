"""What can be asked about backups over HTTP? One of all that the server keeps, as one stream."""

from __future__ import annotations

import msgspec

from swell.api.answers import Streamed
from swell.api.port import BackupsPort
from swell.api.routes import ApiRequest, Route
from swell.decide.access import Need

ALL = Need("admin")
"""All that is kept, and with key files the server itself."""


class BackupQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of it."""

    key_files: bool = False
    """With the keys of the server, what secrets are sealed with among them."""


def backup_routes(backups: BackupsPort) -> list[Route]:
    """Every operation there is."""

    async def backup(request: ApiRequest) -> Streamed:
        return await backups.open(request.query.key_files)

    does = "All that the server keeps, as a tar: a manifest first."
    return [Route("GET", "/api/backup", does, backup, BackupQuery, gives=bytes, streamed=True, needs=ALL)]
