"""What must stand behind the API? Control, a place for blobs, and a reader of logs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Protocol

from swell.decide.access import Holder
from swell.model.key import ApiKey
from swell.model.traffic import Traffic
from swell.model.workload import App, Scaling, Version
from swell.wire.api import (
    AppRow,
    DeployLine,
    KeyRow,
    LimitRow,
    MadeKey,
    NewKey,
    PoolUsage,
    ReplicaRow,
    RequestRow,
    Rescale,
    SecretRow,
    Strategy,
    VersionRow,
    Why,
)


class ControlPort(Protocol):
    """What people ask of control. Everything raises SwellError in words a user can act on."""

    async def deploy(
        self,
        app: App,
        progress: Callable[[str], None],
        how: str = "deploy",
        tag: str = "",
        strategy: Strategy = "rolling",
    ) -> DeployLine:
        """Build, import and put an app in place; returns the "done" line once it has its traffic or does not start,
        raises when nothing was changed.

        `how` says what makes this version of it, `tag` is what its author calls that.
        `app` has no `problems` and its blobs are there. `progress` takes a line about a build, on the
        event loop. It is cancelled when the client leaves: waiting for builds then ends and nothing
        is changed, but a commit that has begun is finished.
        """
        ...

    async def stop_app(self, namespace: str, name: str) -> None:
        """Take an app away. Unknown: SwellError with status 404."""
        ...

    async def rescale(self, namespace: str, name: str, workload: str, asked: Rescale) -> Scaling:
        """Change how a workload is scaled, until the next deploy; returns all of it."""
        ...

    async def versions(self, namespace: str, name: str) -> list[VersionRow]:
        """The history of an app, the newest version first. Unknown: SwellError with status 404."""
        ...

    async def version(self, namespace: str, name: str, number: int) -> Version:
        """One version of an app; number 0: the one before what takes the traffic. Unknown: SwellError with status
        404."""
        ...

    async def traffic(self, namespace: str, name: str, asked: Traffic, progress: Callable[[str], None]) -> DeployLine:
        """Have an app's traffic go to several of its versions; answered as a deploy."""
        ...

    async def promote(self, namespace: str, name: str, progress: Callable[[str], None]) -> DeployLine:
        """Give all the traffic to the version that was made ready beside what has it."""
        ...

    def newer(self, namespace: str, name: str) -> list[int]:
        """The versions after what has the traffic that have a share, header or tag."""
        ...

    async def withdraw(self, namespace: str, name: str, progress: Callable[[str], None]) -> DeployLine:
        """Take that from them."""
        ...

    def deployed(self) -> list[tuple[str, str]]:
        """(namespace, name) of every app."""
        ...

    async def apps(self, *, counts: bool) -> list[AppRow]:
        """The apps, at once. With `counts` it may wait a moment to hear how many replicas each has, never longer."""
        ...

    async def replicas(self) -> list[ReplicaRow]:
        """Replicas and templates. SwellError with status 503 while they are not known."""
        ...

    async def why(self, request_id: str) -> Why:
        """Where a request's time went. Unknown or forgotten: SwellError with status 404."""
        ...

    async def requests(self, namespace: str, app: str, most: int) -> list[RequestRow]:
        """The newest requests whose records are kept, of one app or (app "") of all of the namespace."""
        ...

    async def usage(self, since_s: float) -> list[PoolUsage]:
        """Use of each pool in the last `since_s` seconds; 0 = all that is kept."""
        ...

    def limits(self, holder: Holder) -> list[LimitRow]:
        """Every limit that the holder of a key may know of."""
        ...

    def key(self, id: str) -> ApiKey | None:
        """The API key of this id, whether it works or not."""
        ...

    def keys(self, holder: Holder) -> list[KeyRow]:
        """The API keys that the holder of one may manage."""
        ...

    async def make_key(self, asked: NewKey, holder: Holder) -> MadeKey:
        """Make an API key, which is on disk before it is told."""
        ...

    async def revoke_key(self, named: str, holder: Holder) -> KeyRow:
        """Let an API key, named by its id or name, work no longer."""
        ...

    def health(self) -> dict[str, object]:
        """State of control itself, as JSON values."""
        ...


class SecretsPort(Protocol):
    """What people ask about secrets. Nothing answers a value."""

    def rows(self, namespace: str) -> list[SecretRow]: ...

    async def create(self, namespace: str, name: str, values: Mapping[str, str]) -> SecretRow:
        """A new one. SwellError with status 409 where it is there."""
        ...

    async def rotate(
        self, namespace: str, name: str, values: Mapping[str, str], unset: Sequence[str] = ()
    ) -> SecretRow:
        """A new version. Unknown: SwellError with status 404."""
        ...

    async def keep_for_app(self, namespace: str, app: str, values: Mapping[str, str]) -> str:
        """Values that a program brings along; returns the name to deploy with."""
        ...

    async def delete(self, namespace: str, name: str, number: int = 0, force: bool = False) -> None:
        """A version, or (0) all. SwellError with status 409 where apps use it, without `force`."""
        ...


class LogReader(Protocol):
    """Lines of output, each a JSON object without its newline. Closed by the caller."""

    def __call__(
        self,
        namespace: str,
        app: str,
        *,
        since: float = 0,
        request: str = "",
        tail: int | None = 100,
        follow: bool = False,
    ) -> AsyncGenerator[bytes, None]: ...
