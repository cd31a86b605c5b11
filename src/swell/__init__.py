"""Swell: functions, web endpoints and model services on capacity that swells with demand and falls to zero."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swell import exception as exception
    from swell import experimental as experimental
    from swell.model.errors import SwellError as Error
    from swell.sdk.app import App as App
    from swell.sdk.asked import current_request as current_request
    from swell.sdk.call import FunctionCall as FunctionCall
    from swell.sdk.cls import Cls as Cls
    from swell.sdk.dict import Dict as Dict
    from swell.sdk.function import Function as Function
    from swell.sdk.here import checkpoint_dir as checkpoint_dir
    from swell.sdk.here import current_function_call_id as current_function_call_id
    from swell.sdk.here import current_input_id as current_input_id
    from swell.sdk.here import get_cluster_info as get_cluster_info
    from swell.sdk.here import is_local as is_local
    from swell.sdk.here import progress as progress
    from swell.sdk.here import remaining_s as remaining_s
    from swell.sdk.here import stopping as stopping
    from swell.sdk.image import Image as Image
    from swell.sdk.marks import asgi_app as asgi_app
    from swell.sdk.marks import batched as batched
    from swell.sdk.marks import cached as cached
    from swell.sdk.marks import clustered as clustered
    from swell.sdk.marks import concurrent as concurrent
    from swell.sdk.marks import enter as enter
    from swell.sdk.marks import exit as exit
    from swell.sdk.marks import fastapi_endpoint as fastapi_endpoint
    from swell.sdk.marks import isolated as isolated
    from swell.sdk.marks import limit as limit
    from swell.sdk.marks import method as method
    from swell.sdk.marks import openai as openai
    from swell.sdk.marks import tensors as tensors
    from swell.sdk.marks import transform as transform
    from swell.sdk.marks import web_endpoint as web_endpoint
    from swell.sdk.marks import web_server as web_server
    from swell.sdk.marks import wsgi_app as wsgi_app
    from swell.sdk.parameters import parameter as parameter
    from swell.sdk.queue import Queue as Queue
    from swell.sdk.retries import Retries as Retries
    from swell.sdk.run import enable_output as enable_output
    from swell.sdk.schedules import Cron as Cron
    from swell.sdk.schedules import Period as Period
    from swell.sdk.secret import Secret as Secret
    from swell.sdk.source import Source as Source
    from swell.sdk.subscriptions import Files as Files
    from swell.sdk.subscriptions import HttpEvents as HttpEvents
    from swell.sdk.subscriptions import NatsStream as NatsStream
    from swell.sdk.subscriptions import Objects as Objects
    from swell.sdk.subscriptions import RedisStream as RedisStream
    from swell.sdk.subscriptions import Rows as Rows
    from swell.sdk.volume import Volume as Volume
    from swell.wire.event import Event as Event

__version__ = "0.1.0"

_WHERE = {
    "App": "swell.sdk.app",
    "Cls": "swell.sdk.cls",
    "Cron": "swell.sdk.schedules",
    "Dict": "swell.sdk.dict",
    "Event": "swell.wire.event",
    "Files": "swell.sdk.subscriptions",
    "Function": "swell.sdk.function",
    "FunctionCall": "swell.sdk.call",
    "HttpEvents": "swell.sdk.subscriptions",
    "Image": "swell.sdk.image",
    "NatsStream": "swell.sdk.subscriptions",
    "Objects": "swell.sdk.subscriptions",
    "Period": "swell.sdk.schedules",
    "Queue": "swell.sdk.queue",
    "RedisStream": "swell.sdk.subscriptions",
    "Retries": "swell.sdk.retries",
    "Rows": "swell.sdk.subscriptions",
    "Secret": "swell.sdk.secret",
    "Source": "swell.sdk.source",
    "Volume": "swell.sdk.volume",
    "asgi_app": "swell.sdk.marks",
    "batched": "swell.sdk.marks",
    "cached": "swell.sdk.marks",
    "checkpoint_dir": "swell.sdk.here",
    "clustered": "swell.sdk.marks",
    "concurrent": "swell.sdk.marks",
    "current_function_call_id": "swell.sdk.here",
    "current_input_id": "swell.sdk.here",
    "current_request": "swell.sdk.asked",
    "enable_output": "swell.sdk.run",
    "enter": "swell.sdk.marks",
    "exit": "swell.sdk.marks",
    "fastapi_endpoint": "swell.sdk.marks",
    "isolated": "swell.sdk.marks",
    "get_cluster_info": "swell.sdk.here",
    "is_local": "swell.sdk.here",
    "limit": "swell.sdk.marks",
    "method": "swell.sdk.marks",
    "openai": "swell.sdk.marks",
    "parameter": "swell.sdk.parameters",
    "progress": "swell.sdk.here",
    "remaining_s": "swell.sdk.here",
    "stopping": "swell.sdk.here",
    "tensors": "swell.sdk.marks",
    "transform": "swell.sdk.marks",
    "web_endpoint": "swell.sdk.marks",
    "web_server": "swell.sdk.marks",
    "wsgi_app": "swell.sdk.marks",
}

__all__ = ["Error", "__version__", "exception", "experimental", *_WHERE]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: the server's own processes import `swell` without the SDK."""
    if name == "Error":
        value: Any = import_module("swell.model.errors").SwellError
    elif name in ("exception", "experimental"):
        value = import_module(f"swell.{name}")
    elif name in _WHERE:
        value = _loaded(name)
    else:
        value = _not_yet(name)
    globals()[name] = value
    return value


def _loaded(name: str) -> Any:
    try:
        return getattr(import_module(_WHERE[name]), name)
    except (ImportError, AttributeError):
        shadowing = import_module("swell.sdk.shadow").found()
        if shadowing is None:
            raise
        raise shadowing from None


def _not_yet(name: str) -> Any:
    """What stands in for a name that is known and not there yet: an error that says so once it is used."""
    if not name.startswith("_"):
        unavailable = import_module("swell.sdk.unavailable")
        if name in unavailable.NOUNS:
            return unavailable.noun(name)
        if name in unavailable.FUNCTIONS:
            return unavailable.refusing(name, unavailable.FUNCTIONS[name])
    raise AttributeError(f"module 'swell' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
