"""What do the codes say with which a replica ended, in words? For people who look, and for callers."""

from __future__ import annotations

SERVED = "served"
"""It took one input, and that is over."""
PREEMPTED = "preempted"
"""What is of a higher priority has its room, or its node is about to leave."""
GANG_BROKEN = "gang_broken"
TERMINATED = "terminated"
"""Its process was sent SIGTERM, and not by its runner: the host goes down, say, or its own code did it."""
UNKNOWN = "unknown"
"""Control did not know of it, or had taken it for lost."""
ORDERED = frozenset(
    {
        *("idle", "superseded", "removed", "stopped", "reclaimed", "evicted", "over_max", "rotated", "renewed"),
        *(SERVED, "shutdown", PREEMPTED, GANG_BROKEN),
    }
)
"""Ends that were ordered: they need no last words."""

SOON = frozenset({PREEMPTED, GANG_BROKEN, "shutdown"})
"""Ends that what is in flight is told of, too: it is given so little time that it should end by itself."""

_WORDS = {
    "idle": "nobody needed it any longer",
    "superseded": "its revision gets no more requests",
    "removed": "its app was deployed without it",
    "stopped": "its app was stopped",
    "reclaimed": "what it held was needed",
    "evicted": "templates held too much memory",
    "over_max": "there were more than max_containers",
    SERVED: "it had served its one request",
    PREEMPTED: "what is of a higher priority needed its room, or its node is to leave",
    GANG_BROKEN: "another member of its gang ended, or the attempt that they worked at did",
    "shutdown": "the server was stopped",
    TERMINATED: "its process was told to end (SIGTERM), and not by its server",
    UNKNOWN: "nobody had asked for it any more",
    "lost": "its node no longer had it",
    "stuck": "an input could not be stopped",
    "import_error": "its module could not be imported",
    "bad_entry": "its entry point cannot be used",
    "bad_bundle": "its source could not be unpacked",
    "environment": "its environment could not be made",
    "rotated": "a secret it was loaded with was rotated",
    "renewed": "a volume it was loaded with has a newer version",
    "volume_gone": "a volume it needs is gone",
    "secret_gone": "a secret it needs is gone",
    "internal": "a fault of Swell's own",
    "enter_error": "its start-up code failed",
    "startup_timeout": "it was not ready in time",
    "out_of_memory": "its memory limit was reached",
    "crashed": "its process crashed",
    "exited": "its process ended by itself",
    "not_listening": "nothing listened on its port",
}

REASONS = frozenset(_WORDS)

WAYS_OUT = {"out_of_memory": "memory=(request, limit) gives it more"}
"""What helps where the reason of an end alone says what happened."""


def in_words(reason: str, why: str = "") -> str:
    """The code of an end as a person may read it, with `why` it was ordered where that says more."""
    words = _WORDS.get(reason, reason.replace("_", " "))
    return f"{words} ({why})" if why and why != words else words


def end_told(reason: str, detail: str) -> str:
    """What ended a replica, as whoever called it is told: nothing that it printed, and nothing of other requests."""
    more = WAYS_OUT.get(reason, "") or (detail.partition("\n")[0] if reason == "crashed" else "")
    return ": ".join(filter(None, (in_words(reason), more)))
