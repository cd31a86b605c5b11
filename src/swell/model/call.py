"""What is one input that was accepted to be worked on later, and what became of it?

A call is kept in the durable queue (`ports.Calls`) from when it was accepted until its result was kept long enough. Its
input and its result stand beside it, so that who lists calls reads neither.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from swell.model.retrying import Retrying

State = Literal["queued", "leased", "done", "failed", "cancelled"]
"""Failed for good: a dead letter. The last three are ends; of them only "failed" can be left, by a retry."""

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


def fencing_token(epoch: int, number: int) -> int:
    """Of the n-th hand-out (1 = first) of one incarnation of control. None is made twice, and a later one is larger."""
    return epoch << 40 | number


class CallError(msgspec.Struct, frozen=True):
    """Why an attempt failed, in a code and in words."""

    code: str
    message: str


class Body(msgspec.Struct, frozen=True):
    """An input or a result: the bytes themselves, or the blob that has them."""

    content_type: str
    data: bytes = b""
    digest: str = ""
    """Of the blob; empty where the bytes stand here."""


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
    """Of the calls that are due, the higher go first."""
    idempotency_key: str = ""
    """Of the calls to a workload that are kept and came with one API key, only one has it."""
    retrying: Retrying = Retrying()
    jitter: float = 0.1
    """Share of each delay that chance may take away: 0 none, 1 all."""
    timeout_s: float = 300.0
    """Of one attempt."""
    keeping: Keeping = Keeping()
    state: State = "queued"
    attempts: int = 0
    """Those that counted, with the one that is under way."""
    token: int = 0
    """Of its last lease; 0 = it has none."""
    replica: str = ""
    """That has it, or had it last."""
    error: CallError | None = None
    """Of the last attempt that failed; none once it is done."""
    ended_at: float | None = None
    cpu_us: int = 0
    """What all attempts used, as far as they were told."""
    run_us: int = 0

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


Outcome = Done | Failed | Again


# -- what is asked for from outside -------------------------------------------------------------


class Cancel(msgspec.Struct, frozen=True):
    """It ends now, queued or leased. What its replica still reports is not recorded."""

    id: str
    at: float
    error: CallError


class Retry(msgspec.Struct, frozen=True):
    """A dead letter goes back into the queue with all its attempts."""

    id: str
    at: float


Change = Cancel | Retry


# -- what the queue tells -----------------------------------------------------------------------


class Depth(msgspec.Struct, frozen=True):
    """How much a workload's queue asks for at some moment."""

    due: int
    """Calls that may be handed out; counted up to the number that was asked for."""
    next_at: float | None
    """When the next one becomes due; None: no other waits."""


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


class Count(msgspec.Struct, frozen=True):
    """How many calls of a workload are in a state; never 0."""

    workload: str
    state: State
    calls: int


class Swept(msgspec.Struct, frozen=True):
    """A call that is forgotten."""

    id: str
    free: tuple[str, ...] = ()
    """Digests of blobs that it named and that no call names any more."""
