"""What may user code know of where it runs and of the input it works on?"""

from __future__ import annotations

from swell.sdk.signatures import public
from swell.wire import context


@public
def is_local() -> bool:
    """False in a replica, True anywhere else."""
    return not context.inside


@public
def current_input_id() -> str | None:
    """The id of the request being worked on; None outside one."""
    current = context.current.get()
    return None if current is None else current.request


@public
def current_function_call_id() -> str | None:
    """The `object_id` of the `FunctionCall` being worked on; None outside one that was spawned."""
    current = current_input_id()
    return current if current is not None and current.startswith("fc-") else None


@public
def remaining_s() -> float | None:
    """Seconds until the caller's deadline, below zero once it has passed; None outside a request."""
    current = context.current.get()
    return None if current is None else current.remaining_s()
