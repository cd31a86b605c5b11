"""How does a replica end whose input cannot be stopped? Its exit hooks run beside that input; then the process ends.

They run on a thread of their own: the thread of the input, or the event loop, is what cannot be had. The runner ends
the process where they take too long.
"""

from __future__ import annotations

import inspect
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from swell.runtime.load import Hook
from swell.runtime.tracebacks import user_traceback


def leave(hooks: Sequence[Hook], await_: Callable[[Hook], object] | None, status: int) -> None:
    """The process ends with `status` after the last hook, which is not waited for here. `await_` runs an asynchronous
    one to its end; None: it cannot be run, since the event loop is blocked."""
    if not hooks:
        os._exit(status)
    threading.Thread(target=_leave, args=(hooks, await_, status), name="swell-leaving", daemon=True).start()


def _leave(hooks: Sequence[Hook], await_: Callable[[Hook], object] | None, status: int) -> None:
    try:
        for hook in hooks:
            _run(hook, await_)
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
