"""What do the arguments of calls, and of what becomes of them, do?"""

from __future__ import annotations

_MAP = {"kwargs": "given to every call"}

EFFECTS: dict[str, dict[str, str]] = {
    "Function.remote": {"args": "sent to the function", "kwargs": "sent to the function"},
    "Function.spawn": {"args": "sent to the function", "kwargs": "sent to the function"},
    "FunctionCall.from_id": {"function_call_id": "the call whose object_id that is"},
    "FunctionCall.get": {
        "timeout": "TimeoutError after so many seconds; 0 only looks; default: as long as it takes",
        "index": "of a spawn_map, the number of the input whose result it is; default: the first",
    },
    "FunctionCall.iter": {
        "start": "the number of the first input whose result it gives",
        "end": "the number before which it ends; default: all",
    },
    "FunctionCall.gather": {"function_calls": "whose results it returns, in that order"},
    "Function.remote_gen": {"args": "sent to the function", "kwargs": "sent to the function"},
    "Function.local": {"args": "given to the function", "kwargs": "given to the function"},
    "Function.map": {
        **_MAP,
        "input_iterators": "one argument of each call",
        "order_outputs": "False gives results as they come",
        "return_exceptions": "exceptions are given as results",
    },
    "Function.starmap": {
        **_MAP,
        "input_iterator": "the arguments of each call",
        "order_outputs": "False gives results as they come",
        "return_exceptions": "exceptions are given as results",
    },
    "Function.for_each": {
        **_MAP,
        "input_iterators": "one argument of each call",
        "ignore_exceptions": "an exception does not end it",
    },
    "Function.spawn_map": {**_MAP, "input_iterators": "one argument of each call"},
    "Function.with_queueing": {
        "priority": "of those that wait for the function the higher go first: -100 to 100; default: 0",
        "delay": "none is begun before so many seconds have passed; default: at once",
        "idempotency_key": "one that was spawned with the same before, and is still kept, is that call",
        "timeout": "seconds that each try may take; no more than the function gives it",
    },
}
