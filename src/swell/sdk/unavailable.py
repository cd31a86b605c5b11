"""Which names of Modal's API are not here, yet or any more, and what does a user who reaches for one read?

Each noun is a real class, so that it can be imported and stand in annotations; using it raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from swell.model.errors import SwellError
from swell.sdk.frames import hidden

NOUNS: dict[str, str] = {
    "billing": "There is no bill: what was used and what it cost is read with `swell usage`.",
    "CloudBucketMount": "Bucket mounts are not available yet: read the bucket with its own client in the function.",
    "Client": "There is no Client to make by hand: set SWELL_URL and SWELL_KEY, and App, Function and Cls use them.",
    "Cluster": "There is no Cluster to make by hand: @app.function(nodes=…) has several replicas work on each call.",
    "Environment": "Environments are plain names here: pass environment_name= to App.run, App.deploy or from_name.",
    "FilePatternMatcher": "Pattern matchers are not available: give ignore= patterns or a function of a path.",
    "NetworkFileSystem": "Network file systems are not available: use a folder that every node can reach.",
    "Probe": "Sandboxes are not available yet.",
    "Proxy": "Proxies are not available: the function reaches the network as its node does.",
    "Sandbox": "Sandboxes are not available yet: deploy the code as a function.",
    "SandboxSnapshot": "Sandboxes are not available yet.",
    "SchedulerPlacement": "Placement by region is not available: there is one node.",
    "Server": "Server handles are not available yet: use @app.function() with @web_server(port).",
    "Tunnel": "Tunnels are not available: use @web_server(port).",
    "Mount": "Mounts are part of the image now: Image.add_local_file, add_local_dir or add_local_python_source.",
    "SharedVolume": "SharedVolume is called NetworkFileSystem now, which is not available: use a folder of the node.",
    "Stub": "Stub is called App now: swell.App(name).",
    "Workspace": "Workspaces are not available: there is one per server.",
    "gpu": "GPUs are named in text now: gpu='A100', gpu='A100:2', or a list in order of preference.",
}
"""Class (or module of such) → what to say when it is used."""

FUNCTIONS: dict[str, str] = {
    "asgi": "asgi is called asgi_app now.",
    "build": "There are no build steps any more: do it in an @enter(snap=True) method, which runs once per template.",
    "create_package_mounts": "It is Image.add_local_python_source(…) now.",
    "forward": "Tunnels are not available: use @web_server(port).",
    "interact": "A function has no terminal: `swell shell FILE::FUNCTION` opens one in what it has.",
    "is_inside": "It is swell.is_local() now (the other way round), and Image.imports() around an image's imports.",
    "lookup": "It is Function.from_name(app, name) and Cls.from_name(app, name) now.",
    "sessioned": "Sessions are not available yet.",
    "webhook": "webhook is called fastapi_endpoint now.",
    "wsgi": "wsgi is called wsgi_app now.",
}
"""Function or decorator → what to say when it is called."""


def refuse(message: str) -> NoReturn:
    """Say that something is not there."""
    raise SwellError("not_available", message)


class Later(type):
    """Kind of a class that is not there yet: importable and annotatable, an error when used."""

    def __call__(cls, *_args: Any, **_kwargs: Any) -> NoReturn:
        with hidden:
            refuse(str(cls.__doc__))

    def __getattr__(cls, name: str) -> NoReturn:
        # Python itself looks for such names: it must hear that they are not there, not why.
        if name.startswith("_"):
            raise AttributeError(name)
        with hidden:
            refuse(str(cls.__doc__))


def noun(name: str) -> Later:
    """The class that stands in for `name`."""
    return Later(name, (), {"__doc__": NOUNS[name], "__module__": "swell"})


def refusing(name: str, message: str) -> Callable[..., NoReturn]:
    """A function or method called `name` that only says `message`."""

    def refused(*_args: Any, **_kwargs: Any) -> NoReturn:
        with hidden:
            refuse(message)

    refused.__name__ = refused.__qualname__ = name
    refused.__doc__ = message
    return refused


def stand_in(owner: type, messages: Mapping[str, str]) -> None:
    """Give a class methods that only say that they are not there. `messages`: name → what to say."""
    for name, message in messages.items():
        setattr(owner, name, staticmethod(refusing(f"{owner.__name__}.{name}", message)))
