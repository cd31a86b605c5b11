"""How do queued calls travel over the control link? From a gateway to the queue, from there to runners, and back.

Everything that ends is level: a runner says again what ended until it is told that this was heard, and what it holds
every few seconds. An id and a token name one hand-out of a call; what has another token than the call's last lease is
of nobody any more.
"""

from __future__ import annotations

import msgspec

from swell.model.call import Body

NOTHING = Body("")
LEFT = "Its machine went, as had been said of it (swell node leave): that was no attempt."
"""What is said of a call that was there, in an end that was none of its own."""
INPUT_MAX = 4 * 1024 * 1024
"""Bytes of the arguments of one call."""
GROUP_INPUTS_MAX = 1000
"""Inputs of one group that are accepted together."""
GROUP_BODY_MAX = 2 * INPUT_MAX
"""Bytes of them all."""
DELAY_MAX_S = 30 * 86_400.0
"""A call may be put off for this long."""
KEEP_MIN_S, KEEP_MAX_S = 60.0, 30 * 86_400.0
"""How long one may be kept after its end."""
MESSAGE_MAX = 200
"""Characters of what code says of its progress that are kept."""

Lease = tuple[str, int]
"""A call's id and the fencing token it was handed out with."""

# -- up: gateway → control --------------------------------------------------------------------


class Many(msgspec.Struct, frozen=True):
    """Inputs of a group."""

    first: int
    """The number of the first one; the others follow."""
    inputs: tuple[bytes, ...]


class NewCall(msgspec.Struct, frozen=True):
    """An input to be worked on later, or several."""

    workload: str
    """Key ("namespace/app/name")."""
    method: str
    input: Body
    """A pickle is brought, or accepted, by those alone who may send one: who works on the call may trust it."""
    accept: str = ""
    """What its result may be sent as, as in the header of that name: one type, none, or `JSON_OR_PICKLE`."""
    key: str = ""
    """Id of the API key it came with."""
    priority: int = 0
    """Higher goes first; −100…100."""
    delay_s: float = 0.0
    """It is not begun before that has passed."""
    idempotency_key: str = ""
    """Where a call to the workload that is kept came with it and the same API key, this is that call."""
    group: str = ""
    """Calls that were made together have one in common."""
    many: Many | None = None
    """One call for each of these; `input` then tells of which type they are, and nothing more."""
    keep_s: float = 0.0
    """So long it is kept after its end; 0: as long as usual."""
    timeout_s: float = 0.0
    """What each try may take, of what its function gives; 0: all of that."""


class NewEvent(msgspec.Struct, frozen=True):
    """An event for a function that has a trigger, as it was posted: what it says, and whether it is signed, control
    sees."""

    workload: str
    headers: tuple[tuple[str, str], ...]
    """By their names in small letters, but for those of the connection."""
    body: bytes = b""
    key: str = ""
    """Id of the API key it came with."""
    signed: bool = False
    """It was let in as one that is signed: of those a key is never asked for."""


class SubmitEvent(msgspec.Struct, frozen=True, tag="submit_event"):
    """Accept the call of an event. Answered by `Submitted` with the same `ask`."""

    ask: int
    event: NewEvent


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """Accept a call, or several: all of them or none. Answered by `Submitted` with the same `ask`."""

    ask: int
    call: NewCall


# -- up: runner → control ---------------------------------------------------------------------


class CallEnd(msgspec.Struct, frozen=True):
    """What came of one hand-out."""

    id: str
    token: int
    replica: str
    code: str = ""
    """Why there is no result; empty where there is one."""
    message: str = ""
    body: Body = NOTHING
    """The result; else the error as its caller is to be told it, where there is one."""
    cpu_us: int = 0
    """What this attempt used, as far as the replica told."""
    run_us: int = 0
    members: int = 0
    """Of the gang, where one of them had it. It is recorded once the attempt is over: others do not wait for that."""
    size: int = 0
    """Bytes of the result, where its digest alone is in `body`: its runner has it in a file."""


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """These calls are over at their replicas. Said again after each reconnect, until `EndedHeard` names them."""

    calls: tuple[CallEnd, ...]


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the code of a call said last of how far it is."""

    at: float
    """When its runner heard of it; seconds since the epoch."""
    done: float | None = None
    total: float | None = None
    """What `done` is to come to."""
    message: str = ""


class Running(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call that was sent to its replica."""

    id: str
    token: int
    begun_at: float
    """Seconds since the epoch."""
    progress: Progress | None = None


class Holding(msgspec.Struct, frozen=True, tag="holding"):
    """All calls that the runner has: not begun, running, or ended and not heard. Their leases go on."""

    calls: tuple[Lease, ...]
    running: tuple[Running, ...] = ()
    """Those of them that run; where there are very many, those that have run for longest."""


class AskKept(msgspec.Struct, frozen=True, tag="ask_kept"):
    """Which of these calls are kept? They have checkpoints at this runner. Answered by `NotKept`."""

    calls: tuple[str, ...]


# -- down: control → gateway ------------------------------------------------------------------


class Submitted(msgspec.Struct, frozen=True, tag="submitted"):
    """The call is on disk under this id, or why it was not accepted."""

    ask: int
    id: str = ""
    status: int = 0
    """Of the HTTP answer to a refusal; with it `code` and `message`."""
    code: str = ""
    message: str = ""
    ids: tuple[str, ...] | None = None
    """In place of it, of a group or a batch of events: those of all calls, in the order of their inputs."""


# -- down: control → runner -------------------------------------------------------------------


class Member(msgspec.Struct, frozen=True):
    """What a replica is to know of its gang before it begins the call."""

    rank: int
    peers: tuple[str, ...]
    """Where each member is, by rank: "host:port". Its own port is kept free for its code."""


class Granted(msgspec.Struct, frozen=True):
    """A call to be worked on."""

    id: str
    token: int
    method: str
    input: Body
    accept: str
    timeout_s: float
    """What this attempt may take at most, from when the replica takes it."""
    attempt: int = 1
    limited_by: str = "timeout"
    """The argument of the function that sets it; empty: the call came with less."""
    member: Member | None = None
    """Of a gang: every member is given the call."""


class Grant(msgspec.Struct, frozen=True, tag="grant"):
    """Calls for a replica of this runner, in this order. Each is answered by an end."""

    epoch: int
    replica: str
    calls: tuple[Granted, ...]


class Revoke(msgspec.Struct, frozen=True, tag="revoke"):
    """Nobody wants these any more: what is not begun is dropped, what runs is stopped. Each is answered by an end, with
    the code "cancelled" where it had not ended by itself."""

    calls: tuple[Lease, ...]


class Resume(msgspec.Struct, frozen=True, tag="resume"):
    """To a runner that connected: what it is believed to have, by replica. Of those that it does not have it says that
    they ended: with the code "drained" where they never came, as far as is known, else "lease_expired"."""

    epoch: int
    calls: tuple[tuple[str, tuple[Lease, ...]], ...]


class EndedHeard(msgspec.Struct, frozen=True, tag="ended_heard"):
    """The ends of these are recorded, or nobody needs them: the runner may forget them."""

    calls: tuple[Lease, ...]


class NotKept(msgspec.Struct, frozen=True, tag="not_kept"):
    """Of the calls that were asked after, those that nothing is known of any more: their checkpoints may go."""

    calls: tuple[str, ...]


Down = Grant | Revoke | Resume | EndedHeard | NotKept
"""To a runner."""
