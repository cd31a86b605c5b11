"""Is there a server to talk to? One that answers, or one that is started for this process and ends with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from swell.model.errors import SwellError
from swell.sdk.client import Client
from swell.wire import settings

START_TIMEOUT_S = 30.0
"""A server that was started must answer by then."""
_EXIT_GRACE_S = 3.0
"""One that ended while starting may have lost to another that starts: that one may still come up."""
_POLL_S = 0.05
_TAIL_LINES = 20


async def serving(progress: Callable[[str], None] | None = None) -> Client:
    """A client of a server that answers (an operation). One is started where none does and no URL was set."""
    chosen = settings.load()
    client = Client.from_settings(chosen)
    if await client.serving.start():
        return client
    if chosen.url:
        await client.health.start()
        return client
    if progress is not None:
        progress(f"starting a server at {chosen.base_url}")
    log = chosen.paths.logs / "swell.log"
    process, before = _launch(log)
    deadline, ended = time.monotonic() + START_TIMEOUT_S, False
    while time.monotonic() < deadline:
        # Made anew each time: a first start also makes the key.
        client = Client.from_settings(chosen)
        with suppress(SwellError):
            if await client.serving.start():
                await client.health.start()
                return client
        await client.transport.pause(_POLL_S)
        if process.poll() is not None and not ended:
            deadline, ended = min(deadline, time.monotonic() + _EXIT_GRACE_S), True
    process.terminate()
    raise _failed(chosen.base_url, log, before)


def _launch(log: Path) -> tuple[subprocess.Popen[bytes], int]:
    """The server's process, and where in the log its words begin."""
    command = [sys.executable, "-m", "swell.cli.main", "up", "--attach-pid", str(os.getpid())]
    try:
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with log.open("ab") as out:
            before = out.tell()
            # A session of its own: Ctrl-C here must leave it there until the app has been stopped.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
            return process, before
    except OSError as error:
        raise SwellError(
            "server_failed", f"No server could be started: {error}. Set SWELL_HOME to a folder that can be written."
        ) from None


def _failed(url: str, log: Path, before: int) -> SwellError:
    with log.open("rb") as file:
        file.seek(before)
        said = file.read().decode("utf-8", "replace").strip()
    error = SwellError(
        "server_failed",
        f"No server answers at {url}, and one that was started did not come up. Its words are in {log}; "
        "`swell up` starts one in the foreground.",
        status=503,
        detail="\n".join(said.splitlines()[-_TAIL_LINES:]),
    )
    if error.detail:
        error.add_note(error.detail)
    return error
