"""Runs one function of the source while an environment is built: what `Image.run_function` asks for.

Reads (call, bundle folder, packages, secrets) as msgpack from stdin; exits 0, or with the reason on stderr: 1 when the
function raised, LACKING_STATUS when it is not there to be run.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import pickle
import sys

import msgspec

from swell.model.environment import BuildCall
from swell.model.secret import Revealed
from swell.runtime import secrets
from swell.runtime.tracebacks import unpacked_in, user_traceback
from swell.wire.child import LACKING_STATUS, Secrets
from swell.wire.context import Inside, inside


def main() -> int:
    """Import, call, and say how it went."""
    told = msgspec.msgpack.decode(
        sys.stdin.buffer.read(), type=tuple[BuildCall, str, tuple[str, ...], tuple[Revealed, ...]]
    )
    call, folder, packages, revealed = told
    if revealed:
        secrets.apply(Secrets(revealed))
    unpacked_in(folder)
    sys.path.insert(0, folder)
    # As in a replica: what a program does only where it is run by hand must not be done here.
    inside[:] = [Inside(app="", replica="", gateway_url="", call_key="", packages=packages)]
    try:
        found = getattr(importlib.import_module(call.module), call.qualname)
        function = getattr(found, "__swell_raw__", found)
        args, kwargs = pickle.loads(call.arguments)
    except BaseException as error:
        sys.stderr.write(user_traceback(error))
        return LACKING_STATUS
    try:
        result = function(*args, **kwargs)
        if inspect.isawaitable(result):
            asyncio.run(_awaited(result))
    except SystemExit as ending:
        return _status(ending)
    except BaseException as error:
        sys.stderr.write(user_traceback(error))
        return 1
    return 0


def _status(ending: SystemExit) -> int:
    """A function may end as a script does: without a code, or with 0, it has done its work."""
    if ending.code is None or ending.code == 0:
        return 0
    sys.stderr.write(f"SystemExit: {ending.code}\n")
    return 1


async def _awaited(result: object) -> None:
    await result  # type: ignore[misc]


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without atexit: a thread that it left running must not keep this process.
    os._exit(status)
