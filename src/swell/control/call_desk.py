"""What do people get to see of queued calls, and what may they do with them?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from swell.control.accepting import check_size
from swell.control.calls import CallKeeper
from swell.model.call import (
    BATCH_MAX,
    Body,
    Call,
    CallError,
    Forget,
    GroupEnd,
    Head,
    Members,
    Mine,
    Remove,
    State,
    is_call_id,
    member_key,
)
from swell.model.call_ports import CallRecords
from swell.model.errors import SwellError
from swell.model.variant import base_of
from swell.model.workload import app_of
from swell.wire.call_rows import CallRow, Retried
from swell.wire.http import JSON, ErrorBody, ErrorEnvelope, media_type


class CallDesk:
    """Answers to what is asked about calls."""

    def __init__(self, keeper: CallKeeper, records: CallRecords, waits: Callable[[str], str]) -> None:
        """`waits`: why there are no more replicas of a workload, where it wants some."""
        self._keeper = keeper
        self._records = records
        self._waits = waits

    async def whose(self, id: str) -> tuple[str, str, str] | None:
        """(namespace, app) that a call is for, and the id of its API key; None: there is no such call."""
        call = await asyncio.to_thread(self._records.get, id)
        return (*app_of(call.workload), call.key) if call is not None else None

    async def row(self, id: str, wait_s: float = 0.0, by: str = "") -> CallRow | None:
        """A call with what came of it, once it has ended or so much time has passed. `by`: id of the key that asks."""
        call = await self._keeper.ended(id, wait_s, by)
        return await self._whole(call) if call is not None else None

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
        """A page of calls, newest first; of one API key, or of all (None); of all kinds, or jobs alone."""
        which = (_prefix(namespace, app, function), state, most, before, key, bool(function), jobs)
        return [self._row(call) for call in await asyncio.to_thread(self._records.newest, *which)]

    async def result(self, id: str) -> Body | None:
        """Of one that is done; of a dead letter the error. None where there is none, or none yet."""
        return await asyncio.to_thread(self._records.result, id)

    async def file(self, id: str, body: Body) -> str:
        """Where its result is, which is not in the body: the path. SwellError unknown_call where it went with it."""
        return await asyncio.to_thread(self._keeper.results.path, body.digest, id)

    async def cancel(self, id: str, by: str) -> CallRow | None:
        """The call, which has ended; `by`: the id of the API key that asks."""
        changed = await self._keeper.cancel(id, _cancelled(by))
        return self._row(changed) if changed is not None else await self.row(id)

    async def input(self, id: str) -> Body | None:
        """Of one that may be tried still. None where it is not kept."""
        return await asyncio.to_thread(self._records.input, id)

    async def retry(self, id: str, input: Body | None = None) -> CallRow | None:
        """The call, which waits again, with another input where one is given. SwellError with status 409 where it is no
        dead letter, and 413 where that is too large."""
        call = await asyncio.to_thread(self._records.get, id)
        if call is not None and input is not None:
            check_size(len(input.data), call.members)
        changed = await self._keeper.retry(id, input) if call is not None else None
        if changed is not None:
            return self._row(changed)
        call = await self._keeper.ended(id, 0.0)
        if call is None:
            return None
        words = f"The call {id} is {call.state}: only one that failed for good can be tried again."
        raise SwellError("not_failed", words, status=409)

    async def retry_many(
        self, namespace: str, app: str, function: str, since: float, most: int, before: str, key: str | None
    ) -> Retried:
        """Of a page of dead letters, chosen as `rows` are, those wait again that ended since then."""
        prefix, exact = _prefix(namespace, app, function), bool(function)
        page = await asyncio.to_thread(self._records.newest, prefix, "failed", most, before, key, exact)
        chosen = [call for call in page if call.ended_at is not None and call.ended_at >= since]
        changed = await asyncio.gather(*(self._keeper.retry(call.id) for call in chosen))
        # Another may have been as fast.
        retried = sum(call is not None for call in changed)
        return Retried(retried, page[-1].id if len(page) == most else "")

    async def ends(
        self, ids: Sequence[str], least: int, wait_s: float, mine: Mine, by: str = ""
    ) -> tuple[Sequence[tuple[CallRow, Body | None]], Sequence[str]]:
        """A page of what has ended of those with these ids that are so, once there is any or so much time has passed;
        and those ids that are of none, for which nothing else is waited for."""
        asked = tuple(id for id in dict.fromkeys(ids) if is_call_id(id))
        whose = await asyncio.to_thread(self._records.whose, asked)
        seen = tuple(id for id in asked if id in whose and mine(*app_of(whose[id][0]), whose[id][1]))
        unknown = set(ids).difference(seen)
        look = partial(asyncio.to_thread, self._records.ends, seen)
        found = await self._keeper.waits.until_some(seen, least, 0.0 if unknown else wait_s, look, by)
        return [(self._row(call), body) for call, body in found], sorted(unknown)

    async def has_any(self, group: str, mine: Mine) -> bool:
        """Are any of its calls so?"""

        def look() -> bool:
            return any(mine(*app_of(workload), key) for workload, _method, key in self._records.kinds(group))

        return await asyncio.to_thread(look)

    async def member(self, group: str, index: int, mine: Mine) -> CallRow | None:
        """The one for the input of that number, of those."""

        def look() -> Call | None:
            kinds = (kind for kind in self._records.kinds(group) if mine(*app_of(kind[0]), kind[2]))
            found = (self._records.once(*kind, member_key(group, index)) for kind in kinds)
            return next((call for call in found if call is not None), None)

        call = await asyncio.to_thread(look)
        return self._row(call) if call is not None else None

    async def group_ends(
        self, group: str, after: int, most: int, least: int, wait_s: float, mine: Mine, by: str = ""
    ) -> Sequence[tuple[CallRow, GroupEnd]]:
        """A page of what has ended of those, once there is any or so much time has passed."""
        told = after

        def look() -> list[GroupEnd]:
            nonlocal told
            # Whoever waits for theirs is not woken, nor held up, by pages of others.
            while page := self._records.ended(group, told, most):
                found = [end for end in page if _is(mine, end.call)]
                if found:
                    return found
                told = page[-1].number
            return []

        found = await self._keeper.waits.until_some((group,), least, wait_s, partial(asyncio.to_thread, look), by)
        return [(self._row(end.call), end) for end in found]

    async def members(self, group: str, ended: bool) -> list[Members]:
        """All that is kept of a group, in numbers, or what has not `ended`."""
        return await asyncio.to_thread(self._records.members, group, ended)

    async def remove(self, id: str) -> None:
        """Forget one that has ended, with its input, result and checkpoints. SwellError with status 409 where it has
        not."""
        await self._keeper.forget(Remove(id))
        call = await asyncio.to_thread(self._records.get, id)
        if call is not None:
            words = f"The call {id} is {call.state}: only one that has ended can be forgotten (swell calls cancel)."
            raise SwellError("not_ended", words, status=409)
        self._keeper.not_kept(id)

    def forget(self, group: str, key: str, number: int) -> None:
        """Its calls that came with that key and ended up to that number, soon."""
        self._keeper.forget(Forget(group, key, number))

    def problem(self, workload: str) -> ErrorBody | None:
        """Why no call of it can be worked on now, where that is known."""
        return self._keeper.problem(workload)

    async def cancel_group(self, group: str, by: str, mine: Mine) -> bool:
        """End what has not ended of those, and take no more in. Were there any? `by` as of one call."""
        await self._keeper.groups.end(group, by, mine)
        last, why = "", _cancelled(by)
        while found := await asyncio.to_thread(self._records.open, group, last, BATCH_MAX):
            await asyncio.gather(*(self._keeper.cancel(call.id, why) for call in found if _is(mine, call)))
            last = found[-1].id
        return await self.has_any(group, mine)

    async def _whole(self, call: Call) -> CallRow:
        row = self._row(call)
        body = await self.result(call.id) if call.ended_at is not None else None
        if body is None:
            return row
        is_json = media_type(body.content_type) == JSON
        try:
            if call.state == "failed" and is_json:
                return msgspec.structs.replace(row, error=msgspec.json.decode(body.data, type=ErrorEnvelope).error)
            if call.state == "done":
                head = body.head or Head()
                row = msgspec.structs.replace(
                    row, result_type=body.content_type, status=head.status or None, headers=dict(head.headers)
                )
                if body.digest:
                    return msgspec.structs.replace(row, result_apart=True)
                if is_json:
                    return msgspec.structs.replace(row, result=msgspec.json.decode(body.data, type=msgspec.Raw))
        except msgspec.MsgspecError:
            # It says what it is, and is not.
            return row
        return row

    def _row(self, call: Call) -> CallRow:
        namespace, app, name = call.workload.split("/", 2)
        error, seen = call.error, self._keeper.seen(call)
        return CallRow(
            id=call.id,
            state=call.state,
            namespace=namespace,
            app=app,
            function=name if call.method == base_of(name) else f"{name}.{call.method}",
            accepted_at=call.accepted_at,
            due_at=call.due_at,
            attempts=call.attempts,
            priority=call.priority,
            waits=self._waits(call.workload) if call.state == "queued" else "",
            key=call.key,
            replica=call.replica,
            tries_max=call.retrying.max_retries + 1,
            begun_at=seen.begun_at,
            deadline_at=seen.deadline_at,
            heard_at=seen.heard_at,
            progress=seen.progress,
            error=ErrorBody(error.code, error.message) if error is not None else None,
            ended_at=call.ended_at,
            expires_at=call.expires_at,
            cpu_us=call.cpu_us,
            run_us=call.run_us,
            nodes=call.members,
        )


def _prefix(namespace: str, app: str, function: str) -> str:
    """Which workloads' keys begin so: of all apps of a namespace, of one, or one of that."""
    return f"{namespace}/{app}/{function}" if app else f"{namespace}/"


def _is(mine: Mine, call: Call) -> bool:
    return mine(*app_of(call.workload), call.key)


def _cancelled(by: str) -> CallError:
    return CallError("cancelled", f"It was cancelled with the key {by}." if by else "It was cancelled.")
