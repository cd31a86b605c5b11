"""What can be asked about secrets over HTTP? Everything but their values, which only go in."""

from __future__ import annotations

from typing import Annotated

import msgspec

from swell.api.port import SecretsPort
from swell.api.routes import ApiRequest, Route
from swell.decide.access import Need
from swell.model.names import check_names
from swell.model.workload import DEFAULT_NAMESPACE
from swell.wire.api import AppSecret, AppSecretKept, NewSecret, NewValues, SecretRow

ALL_OF = Need("deploy", "namespace")
"""A secret is for all apps of its namespace."""


class SecretsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which secrets."""

    namespace: str = DEFAULT_NAMESPACE


class DeleteQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of a secret."""

    version: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Its number; 0 = all."""
    force: bool = False
    """Also where deployed apps use it."""


class SecretHandlers:
    """Answers, one method per route."""

    def __init__(self, secrets: SecretsPort) -> None:
        self._secrets = secrets

    def routes(self) -> list[Route]:
        one = "/api/secrets/{namespace}/{name}"
        return [
            Route(
                "GET",
                "/api/secrets",
                "Secrets, without values.",
                self.rows,
                SecretsQuery,
                gives=list[SecretRow],
                needs=ALL_OF,
            ),
            Route("PUT", one, "Make a secret.", self.create, takes=NewSecret, gives=SecretRow, needs=ALL_OF),
            Route("POST", one, "Give it a new version.", self.rotate, takes=NewValues, gives=SecretRow, needs=ALL_OF),
            Route("DELETE", one, "Delete it, or one version.", self.delete, DeleteQuery, needs=ALL_OF),
            Route(
                "POST",
                "/api/secrets/{namespace}",
                "Keep values that a program brings along; answers the name to deploy with.",
                self.keep,
                takes=AppSecret,
                gives=AppSecretKept,
                needs=Need("deploy", "namespace", "app"),
            ),
        ]

    async def rows(self, request: ApiRequest) -> list[SecretRow]:
        check_names(request.query.namespace, "")
        return self._secrets.rows(request.query.namespace)

    async def create(self, request: ApiRequest) -> SecretRow:
        return await self._secrets.create(request.path["namespace"], request.path["name"], request.body.values)

    async def rotate(self, request: ApiRequest) -> SecretRow:
        asked: NewValues = request.body
        return await self._secrets.rotate(request.path["namespace"], request.path["name"], asked.values, asked.unset)

    async def keep(self, request: ApiRequest) -> AppSecretKept:
        asked: AppSecret = request.body
        return AppSecretKept(await self._secrets.keep_for_app(request.path["namespace"], asked.app, asked.values))

    async def delete(self, request: ApiRequest) -> None:
        query: DeleteQuery = request.query
        await self._secrets.delete(request.path["namespace"], request.path["name"], query.version, query.force)
