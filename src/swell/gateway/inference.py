"""What is told of models by the Open Inference Protocol V2, with no replica needed?

A model at zero is ready: a request wakes it. One whose starts keep failing is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

import swell
from swell.decide.inference import Told, versions_of
from swell.decide.route import Row
from swell.gateway.heads import JSON_TYPE
from swell.gateway.pool import Pool
from swell.model.workload import Method
from swell.wire.inference import PLATFORM, Listed, ModelMetadata, ServerMetadata, described

_NOT_READY = 503
Models = Mapping[str, tuple[Row, Method]]


def answer_of(told: Told, models: Models, pools: Mapping[str, Pool], knows: bool) -> tuple[int, bytes, bytes]:
    """(status, content type, body). `models`: those that the caller may see. `knows`: what is deployed was heard, and
    new requests are taken."""
    status, said = _said(told, models, pools, knows)
    return status, JSON_TYPE, msgspec.json.encode(said)


def _said(told: Told, models: Models, pools: Mapping[str, Pool], knows: bool) -> tuple[int, Any]:
    match told.what:
        case "live":
            return 200, {"live": True}
        case "ready":
            return 200 if knows else _NOT_READY, {"ready": knows}
        case "key":
            return 200, {"key": True}
        case "server":
            return 200, ServerMetadata("swell", swell.__version__)
        case "models":
            return 200, {"models": sorted(models)}
        case "index":
            return 200, [each for name in sorted(models) for each in _listed(name, models, pools)]
    assert told.row is not None
    assert told.method is not None
    tensors = told.method.tensors
    assert tensors is not None
    if told.what == "model_ready":
        ready = knows and not _failing(pools, told.row.pool)
        return 200 if ready else _NOT_READY, {"name": told.model, "ready": ready}
    versions = tuple(each.names[0] for each in versions_of(told.row, told.method))
    return 200, ModelMetadata(told.model, versions, PLATFORM, described(tensors.inputs), described(tensors.outputs))


def _listed(name: str, models: Models, pools: Mapping[str, Pool]) -> Iterator[Listed]:
    """Each of its versions."""
    for version in versions_of(*models[name]):
        failing = _failing(pools, version.row.pool)
        yield Listed(name, version.names[0], "UNAVAILABLE" if failing else "READY", failing)


def _failing(pools: Mapping[str, Pool], name: str) -> str:
    """Why a model cannot be had; empty where it can."""
    pool = pools.get(name)
    return pool.failing if pool is not None else ""
