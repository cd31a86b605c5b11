"""The doors to the durable queue: what must a store do with calls, and what does it tell of them?

Every adapter passes its port's conformance suite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from swell.model.call import Body, Call, Change, Depth, GroupEnd, Members, Outcome, Standing, State, Work
from swell.model.workload import Variant

NO_VARIANTS: Mapping[str, Variant] = {}


class Calls(Protocol):
    """The durable queue: each call in it once, and of each at most one result.

    What a method has answered every reader sees, and it outlives this process; but for `lease` it is on disk, too, and
    many that are asked at once share one write. Inside a `transaction()` each answers with a list that is filled when
    the block has ended. While a write is made no other one is: who has more calls, outcomes or changes than
    `call.BATCH_MAX`, or more to forget, asks several times.
    """

    def add(self, works: Sequence[Work], variants: Mapping[str, Variant] = NO_VARIANTS) -> list[str]:
        """Accept calls. `variants`: what their workloads are, of those that are variants, by key: kept as long as any
        of its calls is. The id of each as it is kept: where the id is known already, or another kept call of the
        workload and method has its idempotency key and came with the same API key, that one's, and nothing is added: it
        stays in the group that it came with. SwellError bad_request for one that cannot be kept (`call.check`); then
        none is."""
        ...

    def lease(
        self, workload: str, most: int, now: float, token: int, replica: str, pool: str, idle: bool = True
    ) -> list[Work]:
        """Hand out what is due to a replica of a pool: the higher priority first, then by due time, then by id. Nothing
        makes up for having waited: while enough of a higher priority comes, those of a lower one wait. `token` is of
        this hand-out alone (`fencing_token`); how long it holds is not known here.

        A suspect (`Call.is_suspect`) is handed out alone, and to a replica that has nothing (`idle`): where it is the
        first. Else suspects are passed over.

        It need not be on disk: a lease that a power failure takes back is a call that is handed out once more, with
        the token of a later incarnation, and of the two the first one's result is not recorded.
        """
        ...

    def finish(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Record what attempts came to. True: it was recorded, since the call is leased with that very token. Who is
        told False need not come again: what there was to record is recorded, or no longer asked for. Of a call that was
        cancelled while it was leased so, what the attempt used is recorded, once."""
        ...

    def change(self, changes: Sequence[Change]) -> list[Call | None]:
        """Cancel calls, retry dead letters (with another input, where one is given), or forget what its sender has had,
        or wants no more.
        The call after it, one that was leased with the replica that has it; None where it is not in a state for that,
        and of what is forgotten."""
        ...

    def sweep(self, now: float, most: int) -> list[str]:
        """Forget calls that have expired, the first to expire first; their ids. Of their blobs see `digests`."""
        ...

    def standing(self) -> Standing:
        """What there is to go on with at a start. Its cost grows with what waits: all of it is counted."""
        ...

    def depth(self, workload: str, now: float, most: int) -> Depth:
        """What the queue of a workload asks for. Its cost grows with `most`, not with the queue."""
        ...


class CallRecords(Protocol):
    """What is known of the calls that are kept."""

    def get(self, id: str) -> Call | None: ...

    def get_many(self, ids: Sequence[str]) -> dict[str, Call]:
        """Those of them that are kept, by id."""
        ...

    def whose(self, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Of those of them that are kept, by id, the workload and the id of the API key that they came with."""
        ...

    def ends(self, ids: Sequence[str]) -> list[tuple[Call, Body | None]]:
        """Those of them that have ended, by id, with what `result` tells of each, without a head: not all of them where
        these are large (`PAGE_BYTES`)."""
        ...

    def input(self, id: str) -> Body | None:
        """It is kept as long as the call may be tried: not of one that is done, or cancelled."""
        ...

    def result(self, id: str) -> Body | None:
        """Of one that is done, with its head; of a dead letter the error, as its caller is told it."""
        ...

    def ended(self, group: str, after: int, most: int) -> list[GroupEnd]:
        """The calls of a group that have ended with a number above `after`, by number: none where there are no more so
        far, and fewer than `most` where their results, which come without their heads, are large (`PAGE_BYTES`).

        A group is no more than what its calls say: those of another API key may have the same.
        """
        ...

    def open(self, group: str, after: str, most: int) -> list[Call]:
        """The calls of a group that have not ended, by id, from behind that one on."""
        ...

    def members(self, group: str, ended: bool = True) -> list[Members]:
        """All calls of a group that are kept, in numbers, or without those that have `ended`. Its cost grows with
        these."""
        ...

    def once(self, workload: str, method: str, key: str, idempotency_key: str) -> Call | None:
        """The one with that idempotency key, which came with that API key, if there is one and it is kept."""
        ...

    def kinds(self, group: str) -> Iterable[tuple[str, str, str]]:
        """For which workloads and methods, and with which API keys, there are calls of a group that are kept: each
        once. The first is found at once however many calls there are: who looks for one takes no more than it needs."""
        ...

    def variants(self, workloads: Sequence[str]) -> dict[str, Variant]:
        """What those of these workloads are that are variants and have calls, by key."""
        ...

    def owned(self) -> list[str]:
        """The workloads of programs' apps (`Call.owned`) that calls wait for. Its cost grows with them, not with the
        calls."""
        ...

    def digests(self) -> Iterable[str]:
        """Of the blobs that kept calls name: each once, read a page at a time. That of a call which is accepted, or
        ends, meanwhile may be missing. So who adds a call or a result that names a blob puts that, or asks for it
        (`Blobs.has`), just before; and who removes blobs leaves those that were so of late (`Blobs.sweep`)."""
        ...

    def newest(
        self,
        prefix: str,
        state: State | None,
        most: int,
        before: str = "",
        key: str | None = None,
        exact: bool = False,
        jobs: bool = False,
    ) -> list[Call]:
        """The newest calls of workloads whose key begins so ("namespace/app/", say), or is that (`exact`), in one state
        or in any, newest first; the next page is of those `before` the last one's id. Of one API `key` alone, where
        that is given; `jobs`: only those. Its cost grows with `most` and with the workloads, not with the calls."""
        ...
