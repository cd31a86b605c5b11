"""Which deployed app does a function belong to right now, and on which server?"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from swell.model.errors import SwellError
from swell.model.retrying import Retrying
from swell.model.workload import DEFAULT_NAMESPACE
from swell.sdk.retries import NEVER
from swell.wire import context

if TYPE_CHECKING:
    from swell.sdk.client import Client
    from swell.wire.api import WorkloadRow

_FRESH_S = 1.0
"""Settings are read from files: not for every call."""
_PATIENCE_S = 2.0
"""A call waits this long to hear what is known of its function, and then goes without."""
_AGAIN_S = 10.0
"""What the server did not tell is not asked for again sooner."""


class Deployed(NamedTuple):
    """An app on a server."""

    client: Client
    namespace: str
    app: str
    urls: Mapping[str, str] = {}
    """Those the deploy told, by "function" or "Class.method"."""
    version: int = 0
    """The only one of it that calls are for; 0: whichever has the traffic."""

    def target(self, name: str) -> str:
        """The path of one of its functions below /call/."""
        app = f"{self.app}@v{self.version}" if self.version else self.app
        return f"{app}/{name}" if self.namespace == DEFAULT_NAMESPACE else f"{self.namespace}/{app}/{name}"


class Known(NamedTuple):
    """What a caller has to know of a function to call it as its author meant it."""

    generator: bool | None
    """Does it answer with a stream? None = not known: the answer will tell."""
    retrying: Retrying
    cached: bool = False
    """The gateway keeps its answers."""
    gang: bool = False
    """Several replicas work on a call, which comes by the queue."""


UNKNOWN = Known(None, NEVER)


@lru_cache(8)
def _client(url: str, key: str, home: str = "", supposed: bool = False) -> Client:
    """One for all handles, so that they share its connections."""
    from swell.sdk.client import Client

    return Client(url, key, home, supposed)


def _from(here: context.Inside, namespace: str, app: str, version: int = 0) -> Deployed:
    """An app, for code in a replica. SwellError where it cannot be called from there."""
    if here.importing and here.gateway_url and here.app == f"{namespace}/{app}":
        # A replica of it would import the same, and call another one: none would ever be ready.
        raise SwellError(
            "in_a_replica",
            f"Nothing of {app} can be called while its module is imported in a replica: call it within a function, or "
            "in a method with @swell.enter().",
        )
    return Deployed(platform(here), namespace, app, version=version)


def current() -> Client:
    """The server that settings name now, from outside."""
    from swell.sdk.client import Client

    found = Client.from_settings()
    return _client(found.url, found.key, found.home, found.supposed)


def platform(here: context.Inside) -> Client:
    """How code in a replica reaches the platform it runs on. SwellError where it cannot."""
    if here.alone:
        raise SwellError(
            "isolated",
            "This replica runs in a sandbox that keeps it from calling others: @swell.isolated(network='node'), "
            "without block_network= and restrict_modal_access=, lets it.",
            status=403,
        )
    if not here.gateway_url:
        raise SwellError(
            "in_a_replica",
            "Nothing can be called while a module is imported to see that it can be, nor while an environment is "
            "built: call it within a function, or in a method with @swell.enter().",
        )
    return _client(here.gateway_url, here.call_key)


class Binding:
    """What an App object stands for: nothing yet, an app that runs for a while, or a deployed one."""

    def __init__(self, name: str | None, workloads: set[str]) -> None:
        self.name = name
        self.workloads = workloads
        """Names of what is registered; shared with the App."""
        self.deployed: Deployed | None = None
        self.includers: list[Binding] = []
        """Apps that took this one's functions in."""

    def reach(self) -> Iterator[Binding]:
        """This one and those it is part of."""
        yield self
        for includer in self.includers:
            yield from includer.reach()

    def resolve(self, what: str) -> Deployed:
        """Where calls go now. Raises SwellError when the app does not run."""
        for binding in self.reach():
            if binding.deployed is not None:
                return binding.deployed
        if context.inside:
            return self._within(context.inside[0])
        raise SwellError(
            "not_running",
            f"{what} cannot be called remotely, since its app does not run. Call it within `with app.run():` (or a "
            "local entrypoint, with `swell run`), or find a deployed one with swell.Function.from_name(app, name).",
        )

    def _within(self, here: context.Inside) -> Deployed:
        """In a replica: the app that this replica is part of, if that is ours; else the one of our name."""
        namespace, _, app = here.app.rpartition("/")
        own = not here.workload or any(here.workload in binding.workloads for binding in self.reach())
        name = app if own or self.name is None else self.name
        return _from(here, namespace or DEFAULT_NAMESPACE, name)


class Named:
    """A binding to an app by its name, deployed by someone else."""

    def __init__(self, app: str, namespace: str | None, version: int = 0) -> None:
        self._app = app
        self._version = version
        self._namespace = namespace
        self._client: Client
        self._fresh_until = -math.inf
        """Then settings are read again (on the monotonic clock)."""
        self._known: dict[str, Known] = {}
        self._ask_at = -math.inf
        """Not before then (on the monotonic clock): what was asked for last time was not there."""

    def resolve(self, _what: str) -> Deployed:
        """Where calls go."""
        if context.inside:
            here = context.inside[0]
            namespace = self._namespace or here.app.rpartition("/")[0] or DEFAULT_NAMESPACE
            return _from(here, namespace, self._app, self._version)
        if time.monotonic() > self._fresh_until:
            self._client = current()
            self._fresh_until = time.monotonic() + _FRESH_S
        return Deployed(self._client, self._namespace or DEFAULT_NAMESPACE, self._app, version=self._version)

    async def known(self, function: str) -> Known | None:
        """What the server says of one of its functions (an operation): asked for once, for all of the app.

        None where it says nothing in time: a call does not depend on the control API. A replica's key is for
        calls alone.
        """
        at = self.resolve(function)
        if function not in self._known and at.client.key and not context.inside and time.monotonic() > self._ask_at:
            try:
                rows = await at.client.apps.start(within_s=_PATIENCE_S)
            except SwellError:
                rows = []
            found = [row.workloads for row in rows if (row.namespace, row.name) == (at.namespace, at.app)]
            self._known = {name: known for workloads in found for row in workloads for name, known in _of(row)}
            self._ask_at = time.monotonic() + _AGAIN_S
        return self._known.get(function)


def _of(row: WorkloadRow) -> Iterator[tuple[str, Known]]:
    for method in row.methods:
        name = row.name if row.kind == "function" else f"{row.name}.{method}"
        yield name, Known(method in row.generators, row.retrying, method in row.cached, row.nodes > 0)
