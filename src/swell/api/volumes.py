"""What can be asked about volumes over HTTP? What they hold, as one reads and writes a tree of files."""

from __future__ import annotations

import msgspec

from swell.api.port import VolumesPort
from swell.api.routes import ApiRequest, Route
from swell.decide.access import Need
from swell.model.errors import SwellError
from swell.model.names import check_names
from swell.model.workload import DEFAULT_NAMESPACE
from swell.wire.api import Copies, FileRow, NewFiles, NewVolume, VolumeRow, VolumeSettings

ALL_OF = Need("deploy", "namespace")
"""A volume is for all apps of its namespace."""
ONE = "/api/volumes/{namespace}/{name}"
CONTENT = "/api/volume-contents/{namespace}/{digest}"


class VolumesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which volumes."""

    namespace: str = DEFAULT_NAMESPACE


class ForceQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How hard."""

    force: bool = False
    """Also where deployed apps use it."""


class PathQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which file or folder."""

    path: str = ""
    """Empty: the top."""
    recursive: bool = False
    """All that is below it, too."""


class VolumeHandlers:
    """Answers, one method per route."""

    def __init__(self, volumes: VolumesPort) -> None:
        self._volumes = volumes

    def routes(self) -> list[Route]:
        files, copies, content = f"{ONE}/files", f"{ONE}/copies", f"{ONE}/content"
        rows, row, path = list[VolumeRow], VolumeRow, PathQuery
        return [
            Route("GET", "/api/volumes", "The volumes there are.", self.rows, VolumesQuery, gives=rows, needs=ALL_OF),
            Route("PUT", ONE, "Make a volume.", self.create, takes=NewVolume, gives=row, needs=ALL_OF),
            Route("PATCH", ONE, "Another name or quota.", self.alter, takes=VolumeSettings, gives=row, needs=ALL_OF),
            Route("DELETE", ONE, "Delete a volume and all in it.", self.delete, ForceQuery, needs=ALL_OF),
            Route("GET", files, "What a folder holds.", self.listed, path, gives=list[FileRow], needs=ALL_OF),
            Route("POST", files, "A version with these files.", self.put, takes=NewFiles, gives=row, needs=ALL_OF),
            Route("DELETE", files, "A version without them.", self.remove, path, gives=row, needs=ALL_OF),
            Route("POST", copies, "A version with copies.", self.copy, takes=Copies, gives=row, needs=ALL_OF),
            Route("GET", content, "The bytes of a file.", self.content, path, gives=bytes, needs=ALL_OF),
            Route("HEAD", CONTENT, "Is this content here? 404 if not.", self.has_content, needs=ALL_OF),
            Route("PUT", CONTENT, "Put what is to be in files.", self.put_content, takes=bytes, needs=ALL_OF),
        ]

    async def rows(self, request: ApiRequest) -> list[VolumeRow]:
        check_names(request.query.namespace, "")
        return self._volumes.rows(request.query.namespace)

    async def create(self, request: ApiRequest) -> VolumeRow:
        asked: NewVolume = request.body
        return await self._volumes.create(*_at(request), asked.quota, asked.if_missing, asked.owner)

    async def alter(self, request: ApiRequest) -> VolumeRow:
        asked: VolumeSettings = request.body
        return await self._volumes.alter(*_at(request), asked.name, asked.bytes_max, asked.files_max)

    async def delete(self, request: ApiRequest) -> None:
        await self._volumes.delete(*_at(request), request.query.force)

    async def listed(self, request: ApiRequest) -> list[FileRow]:
        query: PathQuery = request.query
        return await self._volumes.listed(*_at(request), query.path, query.recursive)

    async def put(self, request: ApiRequest) -> VolumeRow:
        asked: NewFiles = request.body
        return await self._volumes.put(*_at(request), asked.put, asked.force)

    async def remove(self, request: ApiRequest) -> VolumeRow:
        query: PathQuery = request.query
        return await self._volumes.remove(*_at(request), query.path, query.recursive)

    async def copy(self, request: ApiRequest) -> VolumeRow:
        asked: Copies = request.body
        return await self._volumes.copy(*_at(request), asked.sources, asked.to, asked.recursive)

    async def content(self, request: ApiRequest) -> str:
        return await self._volumes.content(*_at(request), request.query.path)

    async def has_content(self, request: ApiRequest) -> None:
        namespace, digest = request.path["namespace"], request.path["digest"]
        check_names(namespace, "")
        if not self._volumes.contents(namespace).has(digest):
            raise SwellError("unknown_blob", "There is no such content here: put it first.", status=404)

    async def put_content(self, request: ApiRequest) -> None:
        namespace = request.path["namespace"]
        check_names(namespace, "")
        await self._volumes.contents(namespace).put(request.path["digest"], request.chunks)


def _at(request: ApiRequest) -> tuple[str, str]:
    return request.path["namespace"], request.path["name"]
