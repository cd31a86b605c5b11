"""Is there a server to talk to? One that is up, or one that is started for this process and ends after it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from swell.model.errors import SwellError
from swell.sdk.bridge import Pending
from swell.sdk.client import Client
from swell.wire import attached, settings
from swell.wire.attached import Stay
from swell.wire.handed import handed
from swell.wire.identity import how_ended
from swell.wire.paths import Home


async def serving(progress: Callable[[str], None] | None = None) -> Client:
    """A client of the server that settings name (an operation). Where they name none, one is started on their home."""
    chosen = settings.load()
    client = Client.from_settings(chosen)
    if chosen.url or (_stays(chosen.paths) and await client.serving.start()):
        return client
    if progress is not None:
        progress("starting a server")
    with ThreadPoolExecutor(1) as threads:
        done = await Pending(threads.submit(_ensure, chosen))
    # Asked for anew: it may listen elsewhere, and a first start makes the key.
    client = Client.from_settings(chosen)
    if await client.serving.start():
        return client
    raise SwellError(
        "server_failed",
        f"No server answers at {client.url}, and none could be started: {done.stderr.strip() or _ended(done)}",
        status=503,
    )


def keep() -> Stay:
    """Let the server that settings name outlive this process, where one was started for it."""
    chosen = settings.load()
    if chosen.url:
        return "stays"
    try:
        return attached.keep(chosen.paths)
    except OSError as error:
        raise SwellError(
            "server_failed",
            f"The app was stopped, since its server would have ended: it cannot be told to stay, for {error.filename} "
            f"cannot be written ({error.strerror}). Start one that does with `swell up -d`.",
        ) from None


def _stays(home: Home) -> bool:
    """Is there a server on it that lives as long as we do?"""
    ours = home.attached / str(os.getpid())
    return home.server_url() is not None and (ours.exists() or not home.for_clients())


def _ended(done: subprocess.CompletedProcess[str]) -> str:
    return f"what was to see to it ended by {how_ended(done.returncode)}."


def _ensure(chosen: settings.Settings) -> subprocess.CompletedProcess[str]:
    """Returns once a server is ready that lives as long as this process, or cannot be had.

    In a process of its own, so that nothing of the server is loaded into the user's.
    """
    said, environ = handed(msgspec.to_builtins(chosen), os.environ)
    return subprocess.run(
        [sys.executable, "-P", "-m", "swell.supervise", "--settings", said, "--join", str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environ,
        text=True,
        check=False,
    )
