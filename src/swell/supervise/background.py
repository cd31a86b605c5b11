"""How is a server started in the background, found, and stopped, from another process?"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from swell.model.errors import SwellError
from swell.supervise import clients
from swell.supervise.lock import Holder, holder
from swell.supervise.server import end_leftovers
from swell.supervise.supervisor import IN_ORDER
from swell.wire.handed import handed
from swell.wire.paths import Home

UP_S = 120.0
"""How long a server may take to come up: each of its processes has its own, shorter limit."""
_LOOK_S = 0.05


def start(settings: Mapping[str, Any], attached: Sequence[int] = ()) -> Holder:
    """Start a server in a session of its own; returns once it is ready. Raises SwellError when it does not come up.

    With `attached` it lives as long as one of these processes (and of those that attach later).
    """
    import tempfile

    up_s = _up_s(Home(Path(settings["home"])))
    reading, writing = os.pipe()
    word, environ = handed(settings, os.environ)
    argv = [sys.executable, "-P", "-m", "swell.supervise", "--settings", word]
    argv += ["--report-fd", str(writing), *(word for pid in attached for word in ("--attach-pid", str(pid)))]
    # What it says before it has a log of its own is kept here; a pipe would break once we are gone.
    with tempfile.TemporaryFile() as words:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                pass_fds=[writing],
                start_new_session=True,
                env=environ,
            )
        finally:
            os.close(writing)
        try:
            answer = _answer(reading, up_s)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            os.close(reading)
        if "up" in answer:
            # It is on its own now; Popen need not complain that nobody waits for it.
            process.returncode = 0
            return Holder(**answer["up"])
        process.wait()
        if "error" in answer:
            raise SwellError(answer["error"]["code"], answer["error"]["message"])
        words.seek(0)
        detail = words.read().decode(errors="replace")
    log = Home(Path(settings["home"])).server_log
    raise SwellError("start_failed", f"The server ended before it was ready; see {log}.", detail=detail)


def _up_s(home: Home) -> float:
    """How long it may take until there is a server here: one that is ending may end first."""
    other = holder(home)
    return UP_S + (other.end_s if other is not None and clients.ending(home) else 0.0)


def _answer(reading: int, up_s: float) -> dict[str, Any]:
    """What it reports; empty when it ended without a word."""
    if not select.select([reading], [], [], up_s)[0]:
        raise SwellError("start_failed", f"The server was not ready within {up_s:g} s and was stopped.")
    # It may be longer than a pipe holds: what a process said last is in it.
    with open(reading, "rb", closefd=False) as said:
        line = said.readline()
    return json.loads(line) if line else {}


def ensure(settings: Mapping[str, Any], pid: int, say: Callable[[str], None]) -> Holder:
    """The server on this state directory, running at least as long as process `pid`; started if there is none."""
    home = Home(Path(settings["home"]))
    up_s = _up_s(home)
    until = time.monotonic() + up_s
    while time.monotonic() < until:
        found = holder(home)
        if found is None:
            say("starting a server")
            try:
                return start(settings, [pid])
            except SwellError as error:
                if error.code == "port_in_use" and settings["port"]:
                    # Nobody else needs to find it: any port will do.
                    settings = {**settings, "port": 0}
                elif error.code != "home_in_use":
                    raise
        elif found.state == "ready" and (not found.attached or clients.attach(home, pid)):
            return found
        time.sleep(_LOOK_S)
    raise SwellError("start_failed", f"The server on {home.root} neither came up nor ended within {up_s:g} s.")


def leave(home: Home, pid: int) -> None:
    """Process `pid` needs the server no more. If it was the last that did, this waits until the server has ended."""
    clients.detach(home, pid)
    found = holder(home)
    if found is not None and clients.ending(home):
        found.identity.wait(found.end_s)


def stop(home: Home, say: Callable[[str], None], now: bool = False) -> int | None:
    """Stop the server on this state directory and wait for its end; returns its pid, None when none ran.

    `now` cuts what is in flight short. What a server that was killed left behind is ended too: 0 then.
    """
    found = holder(home)
    if found is None:
        return 0 if end_leftovers(home, say, keep_replicas=False) else None
    if found.state != "stopping":
        found.identity.signal(IN_ORDER)
    if now:
        # Another signal, since two of the same may arrive as one.
        found.identity.signal(signal.SIGINT)
    until = time.monotonic() + found.end_s
    while not found.identity.wait(_LOOK_S) and time.monotonic() < until:
        here = holder(home)
        if here is not None and here.waits_for:
            say(here.waits_for)
    if found.identity.alive:
        raise SwellError(
            "still_running",
            f"The server (pid {found.pid}) did not end within {found.end_s:g} s; see {home.server_log}. "
            f"`kill -9 {found.pid}` and `swell down` again end it for certain.",
        )
    return found.pid
