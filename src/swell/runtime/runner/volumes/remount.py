"""How does a replica that runs come to see another version? From outside: a helper steps into its mount namespace.

The replica may have no right to mount, and its sandbox does not show where versions are. What is mounted is made before
the helper steps in, and put in place the moment after the old one is taken away; that fails while files of it are open.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from swell.model.errors import SwellError
from swell.runtime import volumes
from swell.runtime.runner.sandbox import kernel
from swell.wire.child import Mount

OPEN_SHOWN = 5
"""Open files that are named."""
_WORDS_MAX = 1000
_DONE, _BUSY, _LOST = b"done", b"busy", b"lost: "


class Unmounted(SwellError):
    """It was taken away, and nothing could be put in its place, as far as is known."""


async def remount(pid: int, mount: Mount) -> None:
    """Have the process see this at the mount's path, and with it all that share its namespace.

    SwellError volume_busy where something of what is mounted there is in use, Unmounted where nothing may be mounted
    there any more; else all is as before. To be called in the main thread.
    """
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    reading, writing = os.pipe()
    try:
        helper = os.fork()
        if helper == 0:
            _help(namespace, mount, writing)
    finally:
        os.close(namespace)
        os.close(writing)
    said = await asyncio.to_thread(_told, helper, reading)
    if said == _DONE:
        return
    if said == _BUSY:
        raise await asyncio.to_thread(_busy, pid, mount)
    words = said.removeprefix(_LOST).decode(errors="replace") or "nothing says why"
    # Of a helper that was killed nobody knows how far it came.
    kind = Unmounted if not said or said.startswith(_LOST) else SwellError
    raise kind("state_failed", f"The volume {mount.name!r} could not be mounted anew: {words}.", status=500)


def tried(mount: Mount) -> str:
    """Why a process of this node cannot mount it; empty when it can."""
    if sys.platform != "linux":
        return "that takes Linux"
    reading, writing = os.pipe()
    helper = os.fork()
    if helper == 0:
        words = b""
        try:
            volumes.enter([mount])
        except BaseException as error:
            words = str(error).encode()[:_WORDS_MAX]
        finally:
            os.write(writing, words or _DONE)
            os._exit(0)
    os.close(writing)
    said = _told(helper, reading)
    if said == _DONE:
        return ""
    why = said.decode(errors="replace")
    return why if os.geteuid() == 0 else f"{why}: that takes a server that runs as root"


def _help(namespace: int, mount: Mount, said: int) -> None:
    words = b""
    try:
        signal.set_wakeup_fd(-1)
        with ExitStack() as opened:
            if mount.own:
                made = kernel.detached_overlay(volumes.parts(mount, opened))
            else:
                made = kernel.detached_view(mount.lower)
        kernel.join(namespace, kernel.NEWNS, "mount")
        words = _exchange(made, mount.path)
    except BaseException as error:
        words = str(error).encode()[:_WORDS_MAX]
    finally:
        os.write(said, words or b"?")
        os._exit(0)


def _exchange(made: int, path: str) -> bytes:
    """Put this in the place of what is mounted there; or that back."""
    before = kernel.detached_copy(path)
    try:
        kernel.unmount(path)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return _BUSY
    try:
        kernel.attach(made, path)
    except OSError as error:
        try:
            kernel.attach(before, path)
        except OSError:
            # What is written there now would be nobody's.
            return _LOST + str(error).encode()[:_WORDS_MAX]
        raise
    finally:
        os.close(before)
    return _DONE


def _told(helper: int, reading: int) -> bytes:
    """What it says at its end, in one piece."""
    try:
        return os.read(reading, 2 * _WORDS_MAX)
    finally:
        os.close(reading)
        # Whoever waits for all children may have been first.
        with suppress(ChildProcessError):
            os.waitpid(helper, 0)


def _busy(pid: int, mount: Mount) -> SwellError:
    found = sorted(set(_open_in(pid, mount.path)))
    more = f" and {len(found) - OPEN_SHOWN} more" if len(found) > OPEN_SHOWN else ""
    named = ", ".join(found[:OPEN_SHOWN]) or "something of it"
    return SwellError(
        "volume_busy",
        f"The volume {mount.name!r} cannot be reloaded while files of it are open here: {named}{more}. Close them.",
        status=409,
    )


def _open_in(pid: int, folder: str) -> Iterator[str]:
    """What processes that share this one's mounts have open there."""
    mine = os.readlink(f"/proc/{pid}/ns/mnt")
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                if os.readlink(process / "ns" / "mnt") == mine:
                    yield from _of_process(process, folder)


def _of_process(process: Path, folder: str) -> Iterator[str]:
    links = [process / "cwd", *sorted((process / "fd").iterdir())]
    mapped = [line.split(maxsplit=5)[-1] for line in (process / "maps").read_text().splitlines()]
    targets = list(mapped)
    for link in links:
        with suppress(OSError):
            targets.append(os.readlink(link))
    for target in targets:
        path = target.removesuffix(" (deleted)")
        if path == folder:
            yield f"{folder} (the working directory)"
        elif path.startswith(f"{folder}/"):
            yield path
