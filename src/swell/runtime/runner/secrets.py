"""Who on this node is told which secrets, and what of them must never be seen in what they print?

Values are in this process's memory alone, and for programs that cannot read os.environ again (a foreign server, say) in
files on a tmpfs, in a folder per replica that only this user may enter; no way leads into a sandbox, where the process
makes them itself. A runner that begins is told them anew.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from swell.model.secret import Revealed, SecretUse
from swell.runtime.runner.children import Child
from swell.runtime.runner.redact import Redactor
from swell.runtime.secrets import write
from swell.wire import link as wire
from swell.wire.child import Secrets

log = logging.getLogger("swell.runner")

SHARED_MEMORY = Path("/dev/shm")
IN_SANDBOX = "/dev/shm/swell-secrets"
"""Of a template and its forks, who share their sandbox and have the same secrets."""


class SecretBook:
    """What control told of secrets."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], Revealed] = {}

    def hear(self, message: wire.Secrets) -> set[tuple[str, str]]:
        """Returns those that are other than they were."""
        before = self._told
        told = {secret.key: _with_former(secret, before.get(secret.key)) for secret in message.secrets}
        self._told = told if message.whole else {**before, **told}
        return {key for key, secret in told.items() if _now(secret) != _now(before.get(key))}

    def of(self, uses: Iterable[SecretUse]) -> tuple[Revealed, ...]:
        """What is known of these, with values of earlier versions: only to know them again in what is printed."""
        return tuple(self._told[use.key] for use in uses if use.key in self._told)

    def current(self, uses: Iterable[SecretUse]) -> tuple[Revealed, ...]:
        """What code that uses these is told: no values of earlier versions."""
        return tuple(msgspec.structs.replace(secret, former=()) for secret in self.of(uses))

    def knows(self, uses: Iterable[SecretUse]) -> bool:
        """Was control heard about each of them?"""
        return all(use.key in self._told for use in uses)

    def lacking(self, uses: Iterable[SecretUse]) -> str:
        """Why nothing that uses them can start; empty where it can."""
        for use in uses:
            told = self._told.get(use.key)
            if told is not None and told.problem:
                return told.problem
            if told is None or not told.number:
                again = f"swell secret create {use.name} KEY=VALUE"
                return f"the secret {use.name!r} is gone: make it again (`{again}`), or deploy without it"
        return ""


def _now(secret: Revealed | None) -> object:
    return None if secret is None else (secret.number != 0, secret.values)


def _with_former(secret: Revealed, before: Revealed | None) -> Revealed:
    """It may have been told to somebody: it is known again even when its version was deleted."""
    if before is None:
        return secret
    all_former = dict.fromkeys((*secret.former, *before.values, *before.former))
    return msgspec.structs.replace(secret, former=tuple(pair for pair in all_former if pair not in secret.values))


class Confiding:
    """Tells processes what they are to know, and keeps it out of what they say."""

    def __init__(self, book: SecretBook, folder: Path | None, sandboxed: Callable[[], bool]) -> None:
        self.book = book
        self.folder = folder
        """Of a folder for each replica; None where this node has no place for such."""
        self.sandboxed = sandboxed
        """Have sandboxes memory of their own for them here?"""

    def tell(self, child: Child) -> None:
        """Its values as they are now, where it uses any. OSError when its channel takes none.

        What has values of a secret that is gone keeps them, until it is drained.
        """
        if not child.secrets or self.book.lacking(child.secrets):
            return
        self.learn(child)
        if child.link is not None:
            known = self.book.current(child.secrets)
            if child.isolated:
                child.link.send(Secrets(known, IN_SANDBOX if self.sandboxed() else "", inside=True))
            else:
                child.link.send(Secrets(known, self._write(child.id, known)))

    def learn(self, child: Child) -> None:
        """Know again in its output what it may have been told."""
        if child.secrets:
            child.redact = Redactor(self.book.of(child.secrets))
            if child.log is not None:
                child.log.redact = child.redact

    def changed(self, children: Iterable[Child], keys: set[tuple[str, str]], rotated: Callable[[Child], None]) -> None:
        """Tell those that use one of them; of a template, which has loaded what it was told, `rotated` disposes."""
        for child in children:
            if not any(use.key in keys for use in child.secrets):
                continue
            child.outdated = "rotated" if child.role == "template" else ""
            if child.outdated and child.ready_monotonic_s is not None:
                rotated(child)
            elif not child.outdated:
                # A channel that broke is connected again, and it is told then.
                with suppress(OSError):
                    self.tell(child)

    def applied(self, child: Child) -> tuple[str, ...]:
        """What is done for it, in words."""
        if not child.secrets:
            return ()
        files = self.sandboxed() if child.isolated else self.folder is not None
        return ("memory hidden from other processes", "secrets as files" if files else "no secrets as files")

    def forget(self, replica: str) -> None:
        """Take its files away."""
        if self.folder is not None:
            shutil.rmtree(self.folder / replica, ignore_errors=True)

    def sweep(self, replicas: Iterable[str]) -> None:
        """Take away the files of all others."""
        known = set(replicas)
        if self.folder is not None and self.folder.is_dir():
            for path in self.folder.iterdir():
                if path.name not in known:
                    self.forget(path.name)

    def close(self) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, replica: str, secrets: Sequence[Revealed]) -> str:
        """A file for each variable; returns their folder, empty where there is none."""
        if self.folder is None:
            return ""
        top = self.folder / replica
        try:
            _make_own(self.folder)
            write(top, secrets)
        except OSError as error:
            log.warning("secrets of %s are not written to files: %s", replica, error.strerror)
            shutil.rmtree(top, ignore_errors=True)
            return ""
        return str(top)


def files_folder(home: Path, shared: Path = SHARED_MEMORY) -> Path | None:
    """Where the files of a server's replicas go: memory that no disk keeps. None where there is none."""
    if not _is_tmpfs(shared):
        return None
    return shared / f"swell-{os.getuid()}-{hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]}"


def _make_own(folder: Path) -> None:
    """Others may make folders beside it, too: what stands there must be this user's, and closed to all others."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(errno.EPERM, f"{folder} is not ours alone")


def _is_tmpfs(path: Path) -> bool:
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return False
    return any(mount[1] == str(path) and mount[2] == "tmpfs" for mount in mounts)
