"""Which deployed app does a function belong to right now, and on which server?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from swell.model.errors import SwellError
from swell.model.workload import DEFAULT_NAMESPACE
from swell.wire import context

if TYPE_CHECKING:
    from swell.sdk.client import Client


class Deployed(NamedTuple):
    """An app on a server."""

    client: Client
    namespace: str
    app: str
    urls: Mapping[str, str] = {}
    """Those the deploy told, by "function" or "Class.method"."""

    def target(self, name: str) -> str:
        """The path of one of its functions below /call/."""
        return f"{self.app}/{name}" if self.namespace == DEFAULT_NAMESPACE else f"{self.namespace}/{self.app}/{name}"


_inside: dict[context.Inside, Client] = {}
"""The client of the platform that this replica runs on."""


def platform(here: context.Inside) -> Client:
    """How code in a replica reaches the platform."""
    if here not in _inside:
        from swell.sdk.client import Client

        _inside.clear()
        _inside[here] = Client(here.gateway_url, here.call_key)
    return _inside[here]


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
        return Deployed(platform(here), namespace or DEFAULT_NAMESPACE, name)


class Named:
    """A binding to an app by its name, deployed by someone else."""

    def __init__(self, app: str, namespace: str | None) -> None:
        self._app = app
        self._namespace = namespace

    def resolve(self, _what: str) -> Deployed:
        """Where calls go."""
        if context.inside:
            here = context.inside[0]
            namespace = self._namespace or here.app.rpartition("/")[0] or DEFAULT_NAMESPACE
            return Deployed(platform(here), namespace, self._app)
        from swell.sdk.client import Client

        return Deployed(Client.from_settings(), self._namespace or DEFAULT_NAMESPACE, self._app)
