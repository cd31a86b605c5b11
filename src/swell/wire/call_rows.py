"""What is told of calls in the queue over HTTP?

`GET /calls/ID` tells of one; `GET /calls/ID/result` answers as the call itself would have been answered, with
`Swell-Call-State`, and 202 with this row while there is no answer yet.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from swell.model.call import State
from swell.wire.calls import Progress
from swell.wire.http import ErrorBody

ASKED_MAX = 1000
"""Calls whose ends are asked for in one request."""


class EndRow(msgspec.Struct, frozen=True):
    """A call that has ended: what it would have been answered itself."""

    id: str
    state: State
    status: int
    content_type: str
    body: bytes
    apart: bool = False
    """Its result is large, and at /calls/ID/result alone; status and body here are for who does not know that."""


class EndsPage(msgspec.Struct, frozen=True):
    """What has ended of those calls: `POST /calls/ends`, in msgpack."""

    ends: tuple[EndRow, ...]
    unknown: tuple[str, ...] = ()
    """The ids that are of no call that is kept, or of none for this key."""


class AskedEnds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of that, in JSON."""

    ids: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=ASKED_MAX)]
    """Of the calls."""


class GroupEndRow(msgspec.Struct, frozen=True):
    """One that has ended, of the calls of a group: what it would have been answered itself."""

    id: str
    index: int
    """Of its input in the group."""
    state: State
    status: int
    content_type: str
    body: bytes
    apart: bool = False
    """As of an `EndRow`."""


class GroupPage(msgspec.Struct, frozen=True):
    """What has ended of a group since: `GET /calls/groups/ID/ends?after=N`, in msgpack."""

    ends: tuple[GroupEndRow, ...]
    last: int
    """What to ask from the next time: who does is told of each end once, and of all."""
    open: int | None = None
    """How many have not ended, where none of them has since."""
    problem: ErrorBody | None = None
    """Why none of the others can be worked on now, where none can. They wait all the same."""


class GroupRow(msgspec.Struct, frozen=True):
    """A group of calls, as far as they are kept."""

    id: str
    calls: int
    open: int
    """Those that have not ended."""


class Retried(msgspec.Struct, frozen=True):
    """What became of a page of dead letters."""

    retried: int
    """So many of them wait again."""
    before: str = ""
    """Those before the one of this id come next; empty: there are no more."""


class CallRow(msgspec.Struct, frozen=True):
    """One call. Times in seconds since the epoch."""

    id: str
    state: State
    namespace: str
    app: str
    function: str
    """Or "Class.method"; of one with parameters or options, Class~digest.method."""
    accepted_at: float
    due_at: float
    """It is begun no sooner."""
    attempts: int
    """Those that counted, with the one that is under way."""
    priority: int = 0
    waits: str = ""
    """Why it has no replica, where that is known: what does not fit, that starts fail, or that nothing of that name is
    deployed."""
    key: str = ""
    """Id of the API key it came with."""
    replica: str = ""
    """That has it, or had it last."""
    tries_max: int = 0
    """Tries that its function's `retries=` allow; one that loses its replica has at least three more."""
    begun_at: float | None = None
    """When this try began; None where it has not, or that is not known (after a restart of control, for a moment)."""
    deadline_at: float | None = None
    """When it is to be over. A report of progress may move that."""
    heard_at: float | None = None
    """When the runner of its replica said last that it has it."""
    progress: Progress | None = None
    """What its code said last of how far it is, in this try."""
    error: ErrorBody | None = None
    """Of the last attempt that failed; none once it is done."""
    ended_at: float | None = None
    expires_at: float | None = None
    """From then on it may be forgotten."""
    cpu_us: int = 0
    """What all attempts used."""
    run_us: int = 0
    nodes: int = 0
    """Replicas that work on it together, of a job: as many as its function had when it came; 0: it is no job."""
    result_type: str = ""
    """Content type of its result, where it is done and one call was asked for."""
    result: Any = None
    """The result itself where that is JSON; any other is at /calls/ID/result."""
    result_apart: bool = False
    """It is there alone whatever it is, since it is large."""
    status: int | None = None
    """Of the answer, as its code set it; None: it set none."""
    headers: dict[str, str] = {}
    """And what headers it set."""
