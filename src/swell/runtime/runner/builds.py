"""Can this revision run here? Its environment made, its source unpacked, its module imported once."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from swell.model.environment import Environment
from swell.model.errors import SwellError
from swell.model.limits import IMPORT_TIMEOUT_MIN_S
from swell.model.orders import BuildReport
from swell.model.workload import Revision
from swell.runtime.runner import build_calls, bundle, cache, commands, environment, launching
from swell.runtime.runner.processes import Reaper
from swell.runtime.runner.redact import Redactor
from swell.runtime.runner.sandbox.maker import Sandboxes
from swell.runtime.runner.secrets import SecretBook
from swell.wire.child import LACKING_STATUS, Failed
from swell.wire.paths import Home

log = logging.getLogger("swell.runner")

IMPORTED_KEPT = 1000
"""Imports that are known to work and not tried again."""
INTERNAL = (
    "The server made a mistake of its own while it prepared this, and wrote down where in logs/swell.log of its "
    "state directory. Deploy again; if that does not help, restart it (swell down, swell up)."
)
"""What is said of an exception that nobody foresaw; its traceback is in the log alone."""


class Prepared(msgspec.Struct, frozen=True):
    """What a replica is exec'ed from."""

    python: Path
    folder: Path
    """The unpacked bundle."""


class Builder:
    """Environments and bundles of one server, made at most once each."""

    def __init__(
        self, home: Home, reaper: Reaper, server: Mapping[str, str], sandboxes: Sandboxes, book: SecretBook
    ) -> None:
        """`server`: the server's environment variables."""
        self.home = home
        self.reaper = reaper
        self.server = server
        self.sandboxes = sandboxes
        self.book = book
        self.unseen: Mapping[str, str] = {}
        """Variables that hide from a process what it was not given."""
        self.building: list[Revision] = []
        """What deploys build at this moment."""
        self._usable: set[str] = set()
        """Interpreters that were seen to run the runtime."""
        self._imported: OrderedDict[tuple[object, ...], None] = OrderedDict()
        """What was imported well, by all that the import depends on. The latest last."""

    def ready(self, revision: Revision) -> Prepared | None:
        """What was prepared before; None when there is something to make first. Never waits."""
        wanted = revision.environment
        python: Path | None
        if wanted.is_built:
            python = environment.built(wanted, self.home.environments)
        else:
            python = Path(wanted.interpreter) if wanted.interpreter in self._usable else None
        folder = self.home.bundles / revision.bundle
        return Prepared(python, folder) if python is not None and folder.is_dir() else None

    async def prepare(self, revision: Revision, progress: Callable[[str], None]) -> Prepared:
        """Make what is missing. Raises SwellError ("environment", "bad_bundle") that says what failed."""
        ready = self.ready(revision)
        if ready is not None:
            return ready
        wanted = revision.environment
        folder = await asyncio.to_thread(bundle.unpack, self.home.blobs / revision.bundle, self.home.bundles)

        async def finish(home: Path) -> None:
            await build_calls.Site(wanted, home, folder, self.reaper, self.book, self.server).run(progress)

        python = await environment.ensure(wanted, self.home.environments, self.reaper, progress, self.server, finish)
        if not wanted.is_built:
            self._usable.add(wanted.interpreter)
        return Prepared(python, folder)

    async def build(self, revision: Revision, progress: Callable[[str], None]) -> BuildReport:
        """Prepare and import once. Every failure is a report, never an exception."""
        self.building.append(revision)
        try:
            prepared = await self.prepare(revision, progress)
            await self._import(revision, prepared, progress)
        except SwellError as error:
            code = "import" if error.code == "import" else "environment"
            return BuildReport(False, code, error.message, error.detail)
        except OSError as error:
            message = f"The server could not write the environment: {error}. Check its state directory's disk."
            return BuildReport(False, "environment", message)
        except Exception:
            log.exception("the build of %s went wrong", revision.id)
            return BuildReport(False, "internal", INTERNAL)
        finally:
            self.building.remove(revision)
            for folder in made_for(revision.environment, revision.bundle, self.home):
                cache.touch(folder)
        return BuildReport(True)

    async def _import(self, revision: Revision, prepared: Prepared, progress: Callable[[str], None]) -> None:
        entry = revision.entry
        key = (prepared.python, revision.environment, revision.bundle, entry, revision.isolation, revision.secrets)
        if key in self._imported:
            return
        progress(f"checking the import of {entry.module}")
        output: list[str] = []
        lacking = self.book.lacking(revision.secrets)
        if lacking:
            raise SwellError("environment", f"{lacking[0].upper()}{lacking[1:]}.")
        redact = Redactor(self.book.of(revision.secrets))
        environ = launching.environ(revision, prepared.python, self.server, self.unseen, {})
        # Its replicas import it within that, too.
        timeout_s = max(revision.startup_timeout_s, IMPORT_TIMEOUT_MIN_S)
        with self.sandboxes.check(revision, prepared.python, prepared.folder, environ) as (around, membership):
            status = await commands.run(
                self.reaper,
                [str(prepared.python), "-P", "-m", "swell.runtime.check"],
                environ,
                lambda line: output.append(redact(line)),
                timeout_s,
                cwd=revision.environment.workdir or str(prepared.folder),
                said=msgspec.msgpack.encode((revision, str(prepared.folder), self.book.current(revision.secrets))),
                around=around,
                membership=membership,
            )
        if status is None:
            raise SwellError(
                "import",
                f"Importing module {entry.module!r} took longer than {timeout_s:g} s. Move slow work out of the "
                "module's top level, into @enter methods, or give it more time with startup_timeout=.",
                detail="\n".join(output),
            )
        if status == LACKING_STATUS:
            raise SwellError("environment", output[-1])
        if status != 0:
            raise SwellError(
                "import",
                f"Module {entry.module!r} could not be imported with {prepared.python} "
                f"(Python {revision.environment.python or sys.version_info[0]}).",
                detail="\n".join(output),
            )
        self._imported[key] = None
        if len(self._imported) > IMPORTED_KEPT:
            self._imported.popitem(last=False)


def made_for(wanted: Environment, bundle: str, home: Home) -> tuple[Path, ...]:
    """The folders in the cache that a revision with this environment and bundle runs from."""
    unpacked = home.bundles / bundle
    return (unpacked, home.environments / environment.digest(wanted)) if wanted.is_built else (unpacked,)


def unprepared(replica: str, error: Exception) -> Failed:
    """What a replica that could not be prepared is reported as."""
    if isinstance(error, SwellError):
        return Failed(error.code, "\n".join(filter(None, (error.message, error.detail))))
    if isinstance(error, OSError):
        return Failed("environment", str(error))
    log.error("the start of %s went wrong", replica, exc_info=error)
    return Failed("internal", INTERNAL)
