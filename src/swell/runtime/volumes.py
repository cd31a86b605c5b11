"""How does a process come to its volumes? In a mount namespace of its own; and it asks its runner for all that follows.

What it sees is a version that never changes (`lower`) with what is its own over it. Others see that once the runner has
made a version of it (`runner/volumes`), and this process sees theirs once the runner has put a newer one in its place.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack

from swell.model.errors import SwellError
from swell.runtime.runner.sandbox import kernel
from swell.wire.child import AskVolume, Mount, VolumeDone

_NAMED_FLAGS = getattr(os, "O_PATH", 0) | getattr(os, "O_DIRECTORY", 0)


_PLAIN = {"redirect_dir": "off", "metacopy": "off", "index": "off"}
"""Whatever a node's kernel is set to, what was changed is to stand in the upper folder as a whole."""


def enter(mounts: Sequence[Mount]) -> None:
    """Have them, out of sight of all other processes."""
    kernel.unshare(kernel.NEWNS, "mount")
    # What is mounted elsewhere on the node comes and goes here as well, and nothing of this leaves.
    kernel.mount("none", "/", flags=kernel.REC | kernel.SLAVE)
    for mount in mounts:
        put(mount, mount.path)


def put(mount: Mount, target: str) -> None:
    """Mount one at this path, which is there."""
    if not mount.own:
        kernel.mount(mount.lower, target, flags=kernel.BIND)
        kernel.set_attributes(target, kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | kernel.ATTR_NODEV)
        return
    with ExitStack() as opened:
        options = ",".join(f"{name}={path}" for name, path in parts(mount, opened).items())
        kernel.mount(f"volume-{mount.name}", target, "overlay", kernel.NOSUID | kernel.NODEV, options)


def parts(mount: Mount, opened: ExitStack) -> dict[str, str]:
    """Of an overlay. By descriptors, which are `opened`: a path may be long, or have what separates options in it."""
    folders = {"lowerdir": mount.lower, "upperdir": f"{mount.own}/upper", "workdir": f"{mount.own}/work"}
    found = dict(_PLAIN)
    for name, path in folders.items():
        descriptor = os.open(path, _NAMED_FLAGS)
        opened.callback(os.close, descriptor)
        found[name] = f"/proc/self/fd/{descriptor}"
    return found


class Answer(Future[None]):
    """Of the runner. The event loop's own thread, which is what hears it, must not wait for it."""

    def __init__(self, loop_thread: int) -> None:
        super().__init__()
        self._loop_thread = loop_thread

    def result(self, timeout: float | None = None) -> None:
        if not self.done() and threading.get_ident() == self._loop_thread:
            raise SwellError(
                "needs_asyncio",
                "In asynchronous code write `await volume.commit.aio()`, and `.reload.aio()`: the plain form would "
                "block all that runs here.",
            )
        super().result(timeout)


class Asking:
    """What this process wants of its runner."""

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Callable[[AskVolume], None]) -> None:
        """To be made in the loop's thread."""
        self._loop = loop
        self._send = send
        self._thread = threading.get_ident()
        self._process = os.getpid()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[AskVolume, Answer]] = {}

    def ask(self, what: str, namespace: str, name: str) -> Future[None]:
        """From any thread. SwellError in a process that was forked from this one: it hears nothing of the runner."""
        if os.getpid() != self._process:
            words = f"Only the process of the function itself can {what} a volume, not one that was forked from it."
            raise SwellError("not_mounted", words, status=409)
        answer = Answer(self._thread)
        message = AskVolume(next(self._numbers), what, namespace, name)
        self._waiting[message.ask] = (message, answer)
        self._loop.call_soon_threadsafe(self._send, message)
        return answer

    def done(self, message: VolumeDone) -> None:
        """The runner has answered."""
        _, answer = self._waiting.pop(message.ask, (None, None))
        if answer is None or not answer.set_running_or_notify_cancel():
            return
        if message.code:
            answer.set_exception(SwellError(message.code, message.message, status=409))
        else:
            answer.set_result(None)

    def again(self) -> None:
        """Ask anew, of another runner, what the one before did not answer. Twice is as good as once."""
        for message, _ in list(self._waiting.values()):
            self._send(message)
