"""How does a replica end whose input cannot be stopped? Its exit hooks run beside that input; then what it started is
told to end, which the input may have waited for; then the process ends.

That is done on a thread of its own: the thread of the input, or the event loop, is what cannot be had. The runner ends
the process where it takes too long.
"""

from __future__ import annotations

import inspect
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from swell.runtime import programs
from swell.runtime.load import Hook
from swell.runtime.tracebacks import user_traceback

LAST_WORDS_S = 0.5
"""What waited for a program that was ended has so long to clean up."""
_LOOK_S = 0.02


def leave(
    hooks: Sequence[Hook], await_: Callable[[Hook], object] | None, status: int, over: Callable[[], bool]
) -> None:
    """The process ends with `status` after the last hook, which is not waited for here. `await_` runs an asynchronous
    one to its end; None: it cannot be run, since the event loop is blocked. `over`: nothing is worked on any more."""
    if not hooks and not programs.Programs():
        os._exit(status)
    threading.Thread(target=_leave, args=(hooks, await_, status, over), name="swell-leaving", daemon=True).start()


def _leave(
    hooks: Sequence[Hook], await_: Callable[[Hook], object] | None, status: int, over: Callable[[], bool]
) -> None:
    try:
        for hook in hooks:
            _run(hook, await_)
        if programs.end():
            # In looks, not by a clock: that a machine stands still takes nothing of it.
            for _ in range(round(LAST_WORDS_S / _LOOK_S)):
                if over():
                    break
                time.sleep(_LOOK_S)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(status)


def _run(hook: Hook, await_: Callable[[Hook], object] | None) -> None:
    """Whatever it raises, the others run."""
    name = getattr(hook, "__name__", type(hook).__name__)
    try:
        if not inspect.iscoroutinefunction(hook):
            hook()
        elif await_ is not None:
            await_(hook)
        else:
            sys.stderr.write(f"{name} was not run at exit: the event loop is blocked\n")
    except BaseException as error:
        with suppress(OSError):
            sys.stderr.write(f"{name} raised at exit:\n{user_traceback(error)}")
