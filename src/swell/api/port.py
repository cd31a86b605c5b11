"""What must stand behind the API? Control, a place for blobs, and a reader of logs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Protocol

from swell.api.answers import Streamed
from swell.decide.access import Holder
from swell.model.call import Body, GroupEnd, Members, Mine, State
from swell.model.key import ApiKey
from swell.model.kv import Kind, Page
from swell.model.owner import Owner
from swell.model.ports import Blobs
from swell.model.request import KeyCount
from swell.model.traffic import Traffic
from swell.model.volume import Entry, Quota
from swell.model.workload import App, Revision, Scaling, Version
from swell.wire.api import (
    AppRow,
    DeployLine,
    FileRow,
    Heard,
    KeyRow,
    LimitRow,
    MadeKey,
    NewKey,
    NewVariant,
    PoolUsage,
    ReplicaRow,
    RequestRow,
    Rescale,
    SecretRow,
    Strategy,
    VariantRow,
    VersionRow,
    VolumeRow,
    Why,
)
from swell.wire.call_rows import CallRow, Retried
from swell.wire.http import ErrorBody
from swell.wire.kv import CollectionRow, NewItems, Take
from swell.wire.nodes import NodeRow
from swell.wire.triggers import Backfill, Backfilled, Fired, FiringRow, TriggerRow


class ControlPort(Protocol):
    """What people ask of control. Everything raises SwellError in words a user can act on."""

    async def deploy(
        self,
        app: App,
        progress: Callable[[str], None],
        how: str = "deploy",
        tag: str = "",
        strategy: Strategy = "rolling",
        *,
        holder: Holder,
    ) -> DeployLine:
        """Build, import and put an app in place; returns the "done" line once it has its traffic or does not start,
        raises when nothing was changed.

        `how` says what makes this version of it, `tag` is what its author calls that. `holder`: who asks, and may put
        it in place; of the variants there are those stay that it may have made.
        `app` has no `problems` and its blobs are there. `progress` takes a line about a build, on the
        event loop. It is cancelled when the client leaves: waiting for builds then ends and nothing
        is changed, but a commit that has begun is finished.
        """
        ...

    async def stop_app(self, namespace: str, name: str) -> None:
        """Take an app away. Unknown: SwellError with status 404."""
        ...

    def revision(self, namespace: str, name: str, workload: str) -> Revision:
        """What the replicas of a workload run that has the traffic. Unknown: SwellError with status 404."""
        ...

    async def rescale(self, namespace: str, name: str, workload: str, asked: Rescale) -> Scaling:
        """Change how a workload is scaled, until the next deploy; returns all of it."""
        ...

    async def vary(self, namespace: str, name: str, workload: str, asked: NewVariant, by: str = "") -> VariantRow:
        """Have a workload with other parameters and options; once more, it is the same one. `asked` has no
        `options_problems`. `by`: the id of the API key that asks."""
        ...

    async def versions(self, namespace: str, name: str) -> list[VersionRow]:
        """The history of an app, the newest version first. Unknown: SwellError with status 404."""
        ...

    async def version(self, namespace: str, name: str, number: int) -> Version:
        """One version of an app; number 0: the one before what takes the traffic. Unknown: SwellError with status
        404."""
        ...

    async def traffic(
        self, namespace: str, name: str, asked: Traffic, progress: Callable[[str], None], *, holder: Holder
    ) -> DeployLine:
        """Have an app's traffic go to several of its versions; answered as a deploy. Refused to a holder who may not
        put one of them in place."""
        ...

    async def promote(
        self, namespace: str, name: str, progress: Callable[[str], None], *, holder: Holder
    ) -> DeployLine:
        """Give all the traffic to the version that was made ready beside what has it. Refused as that is."""
        ...

    def newer(self, namespace: str, name: str) -> list[int]:
        """The versions after what has the traffic that have a share, header or tag."""
        ...

    async def withdraw(
        self, namespace: str, name: str, progress: Callable[[str], None], *, holder: Holder
    ) -> DeployLine:
        """Take that from them. Refused to a holder who may not put in place what gets it."""
        ...

    def heard(self, owner: Owner) -> Heard:
        """A program that something may belong to is there."""
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

    async def nodes(self) -> list[NodeRow]:
        """What there is to run them on. None while that is not known."""
        ...

    async def why(self, request_id: str, holder: Holder) -> Why:
        """Where a request's time went. Unknown, forgotten, or of an app that the holder may not see: SwellError with
        status 404, of the same words."""
        ...

    async def requests(self, namespace: str, app: str, most: int) -> list[RequestRow]:
        """The newest requests whose records are kept, of one app or (app "") of all of the namespace."""
        ...

    async def usage(self, since_s: float) -> list[PoolUsage]:
        """Use of each pool in the last `since_s` seconds; 0 = all that is kept."""
        ...

    async def key_usage(self, since_s: float) -> list[KeyCount]:
        """What was asked and used with each API key at each pool in the last `since_s` seconds; 0 = all kept."""
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


class VolumesPort(Protocol):
    """What people ask about volumes."""

    def rows(self, namespace: str) -> list[VolumeRow]: ...

    def contents(self, namespace: str) -> Blobs:
        """Where what is to be in the volumes of a namespace is put first."""
        ...

    async def create(
        self, namespace: str, name: str, quota: Quota, if_missing: bool = False, owner: Owner | None = None
    ) -> VolumeRow:
        """A new one, which ends with its `owner`. SwellError with status 409 where it is there."""
        ...

    async def alter(
        self, namespace: str, name: str, new_name: str | None, bytes_max: int | None, files_max: int | None
    ) -> VolumeRow:
        """Give it another name or quota; None leaves what there is. Unknown: SwellError with status 404."""
        ...

    async def delete(self, namespace: str, name: str, force: bool = False) -> None:
        """SwellError with status 409 where apps use it, without `force`."""
        ...

    async def listed(self, namespace: str, name: str, path: str, recursive: bool) -> list[FileRow]: ...

    async def content(self, namespace: str, name: str, path: str) -> str:
        """The file of the node that holds the content of a file."""
        ...

    async def put(self, namespace: str, name: str, put: Sequence[tuple[str, Entry]], force: bool) -> VolumeRow:
        """A version with these, whose contents are here."""
        ...

    async def remove(self, namespace: str, name: str, path: str, recursive: bool) -> VolumeRow: ...

    async def copy(
        self, namespace: str, name: str, sources: Sequence[str], to: str, recursive: bool
    ) -> VolumeRow: ...  # fmt: skip


class KvPort(Protocol):
    """What programs ask about dicts and queues, which are found by their names or ids. Unknown: SwellError with status
    404."""

    async def rows(self, kind: Kind, namespace: str) -> list[CollectionRow]: ...

    async def row(self, kind: Kind, namespace: str, name: str) -> CollectionRow: ...

    async def create(
        self, kind: Kind, namespace: str, name: str, if_missing: bool = False, owner: Owner | None = None
    ) -> CollectionRow:
        """A new one, which ends with its `owner`. SwellError with status 409 where it is there."""
        ...

    async def delete(self, kind: Kind, namespace: str, name: str) -> None: ...

    async def get(self, namespace: str, name: str, key: bytes) -> bytes | None: ...

    async def contains(self, namespace: str, name: str, key: bytes) -> bool: ...

    async def put(
        self, namespace: str, name: str, entries: Sequence[tuple[bytes, bytes]], missing: bool, request: str
    ) -> int:
        """How many were put."""
        ...

    async def pop(self, namespace: str, name: str, key: bytes, request: str) -> bytes | None: ...

    async def entries(self, namespace: str, name: str, after: int, values: bool) -> Page: ...

    async def count(self, namespace: str, name: str) -> int: ...

    async def clear(self, namespace: str, name: str) -> None: ...

    async def put_items(self, namespace: str, name: str, asked: NewItems) -> None:
        """Waits for room; a caller that leaves cancels it. SwellError with status 409 where there is none."""
        ...

    async def take(self, namespace: str, name: str, asked: Take) -> list[bytes]:
        """Waits for the first item; a caller that leaves cancels it."""
        ...

    async def items(self, namespace: str, name: str, partition: str, after: int) -> Page: ...

    async def partitions(self, namespace: str, name: str) -> dict[str, int]: ...

    async def clear_items(self, namespace: str, name: str, partition: str | None) -> None: ...


class CallsPort(Protocol):
    """What is asked about queued calls. None: there is no such call."""

    async def whose(self, id: str) -> tuple[str, str, str] | None:
        """(namespace, app) that a call is for, and the id of the API key that it came with."""
        ...

    async def row(self, id: str, wait_s: float = 0.0, by: str = "") -> CallRow | None:
        """With its result, once it has ended or so much time has passed; a caller that leaves cancels it."""
        ...

    async def rows(
        self,
        namespace: str,
        app: str,
        function: str,
        state: State | None,
        most: int,
        before: str,
        key: str | None,
        jobs: bool,
    ) -> list[CallRow]:
        """Those of one function, of one app (function "") or of all of the namespace (app "", too), newest first, from
        the one before that id on; of one API key, or of all (None); `jobs` alone, or all."""
        ...

    async def result(self, id: str) -> Body | None:
        """Of a dead letter the error. None: there is none, or none yet."""
        ...

    async def file(self, id: str, body: Body) -> str:
        """The path of the file that has its result, of which `body` has the digest. SwellError unknown_call: none has
        it any more."""
        ...

    async def cancel(self, id: str, by: str) -> CallRow | None:
        """As it is then: it may have ended before."""
        ...

    async def input(self, id: str) -> Body | None:
        """None: it is not kept, as that of one that is done or cancelled is not."""
        ...

    async def retry(self, id: str, input: Body | None = None) -> CallRow | None:
        """With another input, where one is given. SwellError with status 409 where it is no dead letter, and 413 where
        that is too large."""
        ...

    async def retry_many(
        self, namespace: str, app: str, function: str, since: float, most: int, before: str, key: str | None
    ) -> Retried:
        """Those of a page of dead letters that ended `since` then. Which: as of `rows`."""
        ...

    async def ends(
        self, ids: Sequence[str], least: int, wait_s: float, mine: Mine, by: str = ""
    ) -> tuple[Sequence[tuple[CallRow, Body | None]], Sequence[str]]:
        """What has ended of those with these ids that are so, once there is any or so much time has passed, with what
        came of it; and the ids that are of none, where there are any at once. Up to `least` are waited for, but no
        longer than pays; a caller that leaves cancels it."""
        ...

    async def has_any(self, group: str, mine: Mine) -> bool:
        """Are any calls of the group so? Soon told, however many it has, where the first one is."""
        ...

    async def member(self, group: str, index: int, mine: Mine) -> CallRow | None:
        """The one for the input of that number, of those."""
        ...

    async def group_ends(
        self, group: str, after: int, most: int, least: int, wait_s: float, mine: Mine, by: str = ""
    ) -> Sequence[tuple[CallRow, GroupEnd]]:
        """What has ended of those after that number, once there is any or so much time has passed. Up to `least` of
        them are waited for, but no longer than pays; a caller that leaves cancels it."""
        ...

    async def members(self, group: str, ended: bool) -> list[Members]:
        """All that is kept of a group, in numbers, or what has not `ended`."""
        ...

    async def remove(self, id: str) -> None:
        """Forget one that has ended, with all that it has. SwellError with status 409 where it has not."""
        ...

    def forget(self, group: str, key: str, number: int) -> None:
        """Soon: of its calls that came with that key those that ended up to that number. Their sender has had them."""
        ...

    async def cancel_group(self, group: str, by: str, mine: Mine) -> bool:
        """End what has not ended of those, and take no more in for a minute. Were there any?"""
        ...

    def problem(self, workload: str) -> ErrorBody | None:
        """Why no call of that workload can be worked on now, where that is known."""
        ...


class TriggersPort(Protocol):
    """What is asked about triggers. SwellError unknown_app, unknown_trigger."""

    async def rows(self, namespace: str, app: str) -> list[TriggerRow]:
        """Those of one app or (app "") of all of the namespace."""
        ...

    async def firings(self, namespace: str, app: str, name: str, most: int) -> list[FiringRow]:
        """The newest, newest first."""
        ...

    async def pause(self, namespace: str, app: str, name: str, paused: bool) -> TriggerRow: ...

    async def fire(self, namespace: str, app: str, name: str) -> Fired: ...

    async def backfill(self, namespace: str, app: str, name: str, asked: Backfill) -> Backfilled:
        """SwellError bad_request where that is not known, or too much."""
        ...


class BackupsPort(Protocol):
    """What people ask about backups."""

    async def open(self, key_files: bool) -> Streamed:
        """All that is kept now. SwellError with status 409 while another is being read."""
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
