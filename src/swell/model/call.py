"""What is one input that was accepted to be worked on later, and what became of it?

A call is kept in the durable queue (`call_ports.Calls`) from when it was accepted until its result was kept long
enough. Its input and its result stand beside it, so that who lists calls reads neither.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Literal

import msgspec

from swell.model.errors import SwellError, brief
from swell.model.retrying import Retrying

State = Literal["queued", "leased", "done", "failed", "cancelled"]
"""Failed for good: a dead letter. The last three are ends; of them only "failed" can be left, by a retry."""

PRIORITY_MAX = 100
"""Priorities are from as much below 0 to this."""
NAME_MAX = 256
"""Characters of an idempotency key, or of a group."""
BATCH_MAX = 1000
"""Calls that one write has in it: while it is made, no other one is."""
LOSSES = frozenset({"replica_died", "lease_expired"})
"""Codes of attempts whose replica is gone, or was not heard of for too long. Whose fault that was is not known: it may
have been that of the call, or of one beside it."""
DAY_S = 86_400.0
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Digits in base 32, without those that are read as others. They sort as their values do."""


_ID = re.compile(rf"fc-[{_CROCKFORD}]{{26}}")


def is_call_id(text: str) -> bool:
    """Could this be the id of a call?"""
    return _ID.fullmatch(text) is not None


def call_id(ms: int, chance: bytes) -> str:
    """The id of a call that is accepted so many ms after the epoch, with 10 random bytes. Ids sort by that time."""
    number = ms << 80 | int.from_bytes(chance[:10], "big")
    return "fc-" + "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


_GROUP_ID = re.compile(rf"fg-[{_CROCKFORD}]{{26}}")


def is_group_id(text: str) -> bool:
    """Could this name calls that were made together?"""
    return _GROUP_ID.fullmatch(text) is not None


def group_id(ms: int, chance: bytes) -> str:
    """One, made as an id of a call is. Whoever makes the calls makes it: so what is sent again is known again."""
    return "fg-" + call_id(ms, chance)[3:]


def member_key(group: str, index: int) -> str:
    """The idempotency key of the call that is for the input of that number in its group. No caller's own has a space
    in it."""
    return f"{group} {index}"


def fencing_token(epoch: int, number: int) -> int:
    """Of the n-th hand-out (1 = first) of one incarnation of control. None is made twice, and a later one is larger."""
    return epoch << 40 | number


class CallError(msgspec.Struct, frozen=True):
    """Why an attempt failed, in a code, which is never empty, and in words. Characters in these that cannot be kept
    (`check`) are replaced: an error is told whatever its words are."""

    code: str
    message: str

    def __post_init__(self) -> None:
        if not self.code:
            raise ValueError("a call's error has a code")
        if not _can_be_kept(self.message):
            kept = self.message.encode("utf-8", "replace").decode().replace("\0", "?")
            msgspec.structs.force_setattr(self, "message", kept)


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the code of a call said of its answer beside the result."""

    status: int = 0
    """0: nothing."""
    headers: tuple[tuple[str, str], ...] = ()


class Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """An input or a result: the bytes themselves, or the blob that has them."""

    content_type: str
    data: bytes = b""
    digest: str = ""
    """Of the blob; empty where the bytes stand here."""
    head: Head | None = None
    """Of a result of which more was said."""


PAGE_BYTES = 4 * 1024**2
"""Results are read together up to so many bytes, and one more."""


class Keeping(msgspec.Struct, frozen=True):
    """How long a call is kept after its end, with its input and result, whether or not anybody asked for them."""

    result_s: float = 7 * DAY_S
    """One that is done, or cancelled."""
    dead_letter_s: float = 30 * DAY_S


class Call(msgspec.Struct, frozen=True):
    """One input in the queue. Times in seconds since the epoch."""

    id: str
    workload: str
    """Key ("namespace/app/name")."""
    method: str
    accepted_at: float
    due_at: float
    """It is handed out no sooner."""
    accept: str = ""
    """What its result may be sent as, as in the header of that name."""
    key: str = ""
    """Id of the API key it came with; empty for none, and for the server's own."""
    priority: int = 0
    """Of the calls to a workload that are due, the higher go first, however long others wait. Up to `PRIORITY_MAX`."""
    idempotency_key: str = ""
    """Of the calls to a workload that are kept and came with one API key, only one has it."""
    group: str = ""
    """Calls that were made together have one in common; empty for none."""
    retrying: Retrying = Retrying()
    jitter: float = 0.1
    """Share of each delay that chance may take away: 0 none, 1 all."""
    timeout_s: float = 300.0
    """What one attempt may take at most."""
    keeping: Keeping = Keeping()
    state: State = "queued"
    attempts: int = 0
    """Those that counted, with the one that is under way."""
    token: int = 0
    """Of its last lease; 0 = it has none, or was cancelled and what its attempt used is recorded."""
    replica: str = ""
    """That has it, or had it at its end; empty for none."""
    pool: str = ""
    """That this replica is, or was, of; empty for none."""
    leased_at: float | None = None
    """When it was handed out to that replica; None for none."""
    error: CallError | None = None
    """Of the last attempt that failed; none once it is done."""
    ended_at: float | None = None
    cpu_us: int = 0
    """What all attempts used, as far as they were told."""
    run_us: int = 0
    members: int = 0
    """Replicas that work on it together, as its function said when it came (`nodes=`): it is a job. 0: it is none."""
    owned: bool = False
    """Its app belongs to a program, and ends with it: after that nobody can work on it."""

    @property
    def index(self) -> int:
        """Of its input among those of its group; 0 of one that is of none."""
        return int(self.idempotency_key.rpartition(" ")[2]) if self.group else 0

    @property
    def is_suspect(self) -> bool:
        """It was lost at its last try, and may be what ended its replica: it is tried again with no call beside it. So
        it takes none along, and who had such a neighbour is rid of it."""
        return self.error is not None and self.error.code in LOSSES

    @property
    def expires_at(self) -> float | None:
        """From then on it may be forgotten; None: not before it ended."""
        if self.ended_at is None:
            return None
        return self.ended_at + (self.keeping.dead_letter_s if self.state == "failed" else self.keeping.result_s)


class Work(msgspec.Struct, frozen=True):
    """A call with its input: what is accepted, and what a replica gets."""

    call: Call
    input: Body


def check(call: Call) -> None:
    """SwellError bad_request where the queue cannot keep the call as it is."""
    if not -PRIORITY_MAX <= call.priority <= PRIORITY_MAX:
        raise _refused(f"{call.priority} is no priority: they are from -{PRIORITY_MAX} to {PRIORITY_MAX}.")
    for name, value in (("idempotency key", call.idempotency_key), ("group", call.group)):
        if len(value) > NAME_MAX:
            raise _refused(f"The {name} {brief(value)!r} has {len(value)} characters; it may have {NAME_MAX}.")
    fields = msgspec.structs.asdict(call)
    for part in (call.retrying, call.keeping):
        fields |= msgspec.structs.asdict(part)
    for name, value in fields.items():
        match value:
            case str() if not _can_be_kept(value):
                words = "it has a NUL, or half a surrogate pair, in it"
            case float() if not math.isfinite(value):
                words = "it is no finite number"
            case int() if not -(2**63) <= value < 2**63:
                words = "it is too large"
            case _:
                continue
        raise _refused(f"{name} cannot be {brief(ascii(value))}: {words}.")


def _can_be_kept(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _refused(words: str) -> SwellError:
    return SwellError("bad_request", words)


# -- what an attempt comes to -------------------------------------------------------------------


class Done(msgspec.Struct, frozen=True):
    """There is a result."""

    id: str
    token: int
    at: float
    result: Body
    cpu_us: int = 0
    """Of this attempt, as in the others."""
    run_us: int = 0


class Failed(msgspec.Struct, frozen=True):
    """It is not tried again: a dead letter, kept with its input."""

    id: str
    token: int
    at: float
    error: CallError
    body: bytes = b""
    """The error as its caller is told it. Never a blob: a retry forgets it."""
    content_type: str = "application/json"
    cpu_us: int = 0
    run_us: int = 0


class Again(msgspec.Struct, frozen=True):
    """It goes back into the queue."""

    id: str
    token: int
    due_at: float
    error: CallError | None = None
    """None: the attempt did not fail, and the error of the one before stays."""
    counts: bool = True
    """False: as if there had been no attempt."""
    cpu_us: int = 0
    run_us: int = 0


class Cancelled(msgspec.Struct, frozen=True):
    """It was stopped, and is not tried again."""

    id: str
    token: int
    at: float
    error: CallError
    cpu_us: int = 0
    run_us: int = 0


Outcome = Done | Failed | Again | Cancelled


# -- what is asked for from outside -------------------------------------------------------------


class Cancel(msgspec.Struct, frozen=True):
    """It ends now, queued or leased. Of what its replica still reports, what the attempt used is recorded."""

    id: str
    at: float
    error: CallError


class Retry(msgspec.Struct, frozen=True):
    """A dead letter goes back into the queue with all its attempts."""

    id: str
    at: float
    input: Body | None = None
    """That it has from now on; None: the one it had."""


class Forget(msgspec.Struct, frozen=True):
    """The calls of a group that ended with a number up to this one, and came with that API key, are forgotten with all
    that they have: their sender has what came of them. `BATCH_MAX` of them at most, the first to end first."""

    group: str
    key: str
    number: int


class Remove(msgspec.Struct, frozen=True):
    """A call that has ended is forgotten with all that it has: before its time, since somebody wants the room."""

    id: str


Change = Cancel | Retry | Forget | Remove


# -- what the queue tells -----------------------------------------------------------------------


class Depth(msgspec.Struct, frozen=True):
    """How much a workload's queue asks for at some moment."""

    due: int
    """Calls that may be handed out; counted up to the number that was asked for."""
    next_at: float | None
    """When the next one becomes due; None: no other waits."""
    priorities: tuple[tuple[int, int], ...] = ()
    """(priority, how many of them have it): of those that were counted, the highest first."""
    suspects: int = 0
    """So many of those that may be handed out are suspects; of each priority no more are counted than of all."""
    suspect_first: bool = False
    """The first to be handed out is one."""


class Queued(msgspec.Struct, frozen=True):
    """All that waits for one workload, due or not."""

    calls: int
    due_at: float
    """When the first of them is, or was, due."""


class Standing(msgspec.Struct, frozen=True):
    """The queue as a new incarnation of control finds it."""

    queued: dict[str, Queued]
    """By workload."""
    leased: tuple[Call, ...]
    """By id."""


class GroupEnd(msgspec.Struct, frozen=True):
    """A call of a group that has ended, with what came of it."""

    number: int
    """Grows with each end that is recorded, whenever that was: whoever asks for those after the last number that they
    were told misses none, and is told none twice. A dead letter that is tried again ends once more."""
    call: Call
    result: Body | None
    """As `CallRecords.result`, without a head."""


class Members(msgspec.Struct, frozen=True):
    """Calls of a group to one workload that came with one API key."""

    workload: str
    key: str
    open: int
    """Those that have not ended."""
    ended: int


Mine = Callable[[str, str, str], bool]
"""Whether a call is of those that are meant: by its namespace, its app and the id of its API key."""
