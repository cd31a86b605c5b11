"""How do programs learn what the API offers? From an OpenAPI 3.1 document made of the declared routes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from swell.api.answers import NDJSON, Answer
from swell.api.routes import Route
from swell.wire.http import JSON, OCTETS, ErrorEnvelope

_REF = "#/components/schemas/{name}"


def document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The whole document, as JSON values."""
    kinds = [ErrorEnvelope, *(kind for route in routes for kind in (route.takes, route.gives) if _has_schema(kind))]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    schema_of = dict(zip(map(repr, kinds), schemas, strict=True))
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Swell control API", "version": version},
        "security": [{"key": []}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(route: Route, schema_of: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handle.__name__,
        "summary": route.does,
        "description": f"Needs the scope {route.needs}.",
        "security": [{"key": [str(route.needs)]}],
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": {
            "default": {
                "description": "What is wrong, and the way out.",
                "content": {JSON: {"schema": schema_of[repr(ErrorEnvelope)]}},
            }
        },
    }
    if route.takes is not None:
        content = {OCTETS: {}} if route.takes is bytes else {JSON: {"schema": schema_of[repr(route.takes)]}}
        operation["requestBody"] = {"required": route.takes is not bytes, "content": content}
    if route.gives is None:
        operation["responses"]["204"] = {"description": "Done."}
    else:
        media = NDJSON if route.lines else OCTETS if route.gives is bytes else "*/*" if route.gives is Answer else JSON
        each = "Lines, each one of these." if route.lines else "The answer."
        content = {media: {} if route.gives in (bytes, Answer) else {"schema": schema_of[repr(route.gives)]}}
        operation["responses"]["200"] = {"description": each, "content": content}
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)}", route.path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    _, components = msgspec.json.schema_components([route.query], ref_template=_REF)
    schema = components[route.query.__name__]
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": field}
        for name, field in schema["properties"].items()
    ]


def _has_schema(kind: Any) -> bool:
    return kind is not None and kind not in (bytes, Answer)
