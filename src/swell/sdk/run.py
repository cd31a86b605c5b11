"""How does an app get onto a server: for a while (`with app.run()`) or to stay (`app.deploy()`)?"""

from __future__ import annotations

import inspect
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, cast, get_args

from swell.model import workload as model
from swell.model.errors import SwellError
from swell.model.key import ALL
from swell.model.owner import Owner
from swell.model.secret import APP_OWNED
from swell.model.workload import DEFAULT_NAMESPACE
from swell.sdk import bundle, describe, frames
from swell.sdk import image as images
from swell.sdk import secret as secrets_of
from swell.sdk.binding import Binding, Deployed
from swell.sdk.bridge import adopt, drive
from swell.sdk.building import Build, content
from swell.sdk.client import Client
from swell.sdk.forgotten import forgotten
from swell.sdk.marks import Given
from swell.sdk.presence import Presence, me
from swell.sdk.refusal import refuse
from swell.sdk.secret import Secret
from swell.sdk.server import keep, serving
from swell.sdk.signatures import public
from swell.sdk.storage import Volumes
from swell.wire import context
from swell.wire.api import DeployLine, LogRow, Strategy
from swell.wire.attached import Stay

_NAME_MAX = 48


class Deployable(Protocol):
    """What is needed of an App."""

    name: str | None
    tags: dict[str, str]
    given: Given
    declared: dict[str, describe.Declared]
    binding: Binding


A = TypeVar("A", bound=Deployable)


class Output:
    """Where progress and the functions' output go. Nowhere, unless asked for."""

    def __init__(
        self, progress: Callable[[str], None] | None = None, log: Callable[[LogRow], None] | None = None
    ) -> None:
        self.progress = progress
        self.log = log


output = Output()


@contextmanager
@public
def enable_output() -> Iterator[None]:
    """Within it, deploys say how they go, and what functions write appears here, on standard error."""
    global output
    before = output
    output = Output(lambda text: _say(text), _written)
    try:
        yield
    finally:
        output = before


def _written(row: LogRow) -> None:
    """What functions write; notes of ours are in the log."""
    if row.stream != "sys":
        _say(row.text)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


# -- describing -----------------------------------------------------------------------------------


class Prepared:
    """An app as control takes it, the bundles it names, by digest, and what is most likely not meant."""

    def __init__(
        self, app: model.App, bundles: dict[str, bytes], notes: list[str], brought: dict[str, Secret] | None = None
    ) -> None:
        self.app = app
        self.bundles = bundles
        self.notes = notes
        self.brought = brought or {}
        """Secrets whose values are brought along, by the names they have until the server has given them theirs."""


def prepare(app: Deployable, place: describe.Place) -> Prepared:
    """Describe an app and pack its source, which is all that is read of the disk. Everything that cannot be deployed is
    refused here."""
    refuse(app.given)
    if not app.declared:
        raise SwellError("empty_app", f"App {place.name!r} has no function: decorate one with @app.function().")
    packed: dict[tuple[tuple[str, Path], ...], bundle.Bundle] = {}
    sources: dict[str, describe.Source] = {}
    found: list[describe.Declared] = []
    noted: list[str] = []
    brought: dict[str, Secret] = {}
    for name, declared in app.declared.items():
        _check(declared)
        image = images.read(declared.image or images.Image())
        image = replace(image, builds=tuple(_building(each, brought) for each in image.builds))
        secrets = tuple(_provisional(each, brought) for each in declared.secrets)
        found.append(replace(declared, image=image, secrets=secrets))
        noted += images.notes(image)
        source = bundle.source(file_of(declared.raw))
        _rename_main(declared.raw, source.module)
        entries = [source.local] if declared.include_source else []
        builds = [bundle.source(file_of(each.function)) for each in image.builds]
        entries += [s.local for s, each in zip(builds, image.builds, strict=True) if each.include_source]
        contents = bundle.gather([*entries, *image.attached])
        key = tuple(sorted(contents.items()))
        if key not in packed:
            packed[key] = bundle.pack(contents)
        told = tuple((s.module, content(each.function)) for s, each in zip(builds, image.builds, strict=True))
        sources[name] = describe.Source(source.module, packed[key].digest, told)
    described = describe.app(found, place, sources)
    bundles = {each.digest: each.data for each in packed.values()}
    return Prepared(described, bundles, list(dict.fromkeys([*describe.notes(described), *noted])), brought)


def _building(build: Build, brought: dict[str, Secret]) -> Build:
    """A function that is to run when the environment is built, as it is found there."""
    _rename_main(build.function, bundle.source(file_of(build.function)).module)
    return replace(build, secrets=tuple(_provisional(each, brought) for each in build.secrets))


def _provisional(secret: Secret, brought: dict[str, Secret]) -> Secret:
    """One whose values are brought along has a name only once the server has them: until then, one from here."""
    if secret.name:
        return secret
    name = next((name for name, other in brought.items() if other is secret), f"{APP_OWNED}{len(brought)}")
    brought[name] = secret
    return Secret(repr(secret), name)


async def bring(prepared: Prepared, client: Client) -> model.App:
    """The app with its secrets by the names that the server has given them."""
    values = {name: secrets_of.values(secret) for name, secret in prepared.brought.items()}
    app = prepared.app
    names = {name: await client.keep_secret.start(app.name, each, app.namespace) for name, each in values.items()}
    return describe.with_secret_names(app, names) if names else app


def _check(declared: describe.Declared) -> None:
    try:
        describe.check(declared)
    except SwellError as error:
        frames.point(error, declared.given.where)
        raise


def file_of(raw: Callable[..., Any]) -> Path:
    """The file that a function or class is written in."""
    module = sys.modules.get(raw.__module__)
    path = getattr(module, "__file__", None)
    if path is None or not Path(path).is_file():
        raise SwellError(
            "no_source_file", f"{raw.__qualname__} is not defined in a file: put it in one, so that it can be imported."
        )
    return Path(path)


def _rename_main(raw: Callable[..., Any], module: str) -> None:
    """In a replica the script is a module of its file's name: let pickles call it so here too."""
    if raw.__module__ != "__main__":
        return
    main = sys.modules["__main__"]
    sys.modules.setdefault(module, main)
    for value in vars(main).values():
        plain = inspect.isclass(value) or inspect.isfunction(value)
        if plain and value.__module__ == "__main__":
            value.__module__ = module


# -- deploying ------------------------------------------------------------------------------------


async def deploy(
    app: Deployable,
    *,
    name: str | None = None,
    namespace: str | None = None,
    owner: Owner | None = None,
    progress: Callable[[str], None] | None = None,
    note: Callable[[str], None] | None = None,
    client: Client | None = None,
    tag: str = "",
    strategy: Strategy = "rolling",
) -> DeployLine:
    """Put an app on the server (an operation); returns URLs by function or method, and what changed.

    `owner`: the process that it ends with. `tag`: what this version of it is called. `progress` is told how it goes,
    and `note` (else `progress`) at the end what is most likely not meant.
    """
    chosen = app.name if name is None else name
    if chosen is None:
        raise SwellError("no_name", "An app needs a name to be deployed: write swell.App('name'), or give name=.")
    space = namespace or DEFAULT_NAMESPACE
    client = client or Client.from_settings()
    place = describe.Place(chosen, space, app.tags, owner, source=shown_source(app))
    prepared = prepare(app, place)
    await put_blobs(prepared.bundles, client, space, chosen if owner is None else ALL)
    for use in {use for declared in app.declared.values() for use in _made(declared, space)}:
        await Volumes(client, use[0]).create.start(use[1], if_missing=True)
    try:
        done = await client.deploy.start(await bring(prepared, client), progress, tag, strategy)
    except SwellError as error:
        programs = [file_of(declared.raw) for declared in app.declared.values()]
        hint = forgotten(f"{error.message}\n{error.detail}", programs)
        if hint:
            error.add_note(hint)
        raise
    app.binding.deployed = Deployed(client, space, chosen, dict(done.urls))
    tell = note or progress
    if tell is not None:
        for said in (*prepared.notes, *done.notes):
            tell(said)
    return done


async def put_blobs(bundles: Mapping[str, bytes], client: Client, namespace: str, app: str) -> None:
    """Have bundles on the server, by their digests (an operation). `app` is what a key would need `deploy` over: of one
    whose name no other has, ALL."""
    for digest, data in bundles.items():
        if not await client.has_blob.start(digest):
            await client.put_blob.start(digest, data, namespace, app)


def _made(declared: describe.Declared, namespace: str) -> Iterator[tuple[str, str]]:
    """Namespaces and names of its volumes that are made where they are not there."""
    return ((each.namespace or namespace, each.name) for each in declared.volumes.values() if each.create)


def strategy(name: str) -> Strategy:
    """The strategy of that name."""
    for known in get_args(Strategy):
        if name == known:
            return cast("Strategy", known)
    words = " or ".join(repr(known) for known in get_args(Strategy))
    raise SwellError("bad_argument", f"App.deploy(strategy={name!r}): it is {words}.")


def shown_source(app: Deployable) -> str:
    """The file an app is written in, as its user would name it."""
    files = {os.path.relpath(file_of(declared.raw)) for declared in app.declared.values()}
    return min(files, default="")


# -- running for a while --------------------------------------------------------------------------


class Running(Generic[A]):
    """An app that is on the server between entering and leaving, for `with` and `async with`."""

    def __init__(
        self,
        app: A,
        *,
        name: str | None = None,
        namespace: str | None = None,
        detach: bool = False,
        progress: Callable[[str], None] | None = None,
        log: Callable[[LogRow], None] | None = None,
    ) -> None:
        self._app = app
        self._stem = name
        self.namespace = namespace or DEFAULT_NAMESPACE
        self._detach = detach
        self._progress = progress
        self._log = log
        self.name = ""
        """What the app is called on the server; empty where there is nothing of it."""
        self.stay: Stay | None = None
        """What becomes of the server that the app was left on; None where it was not left."""
        self._presence: Presence | None = None

    def __enter__(self) -> A:
        with frames.hidden:
            return drive(self._start())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with frames.hidden:
            drive(self._end(error))

    async def __aenter__(self) -> A:
        with frames.hidden:
            return await adopt(self._start())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        with frames.hidden:
            await adopt(self._end(error))

    async def _start(self) -> A:
        if context.inside:
            raise SwellError(
                "in_a_replica",
                "`app.run()` was reached while this module was imported in a replica, or to check that it can be. "
                'Put it under `if __name__ == "__main__":`, or into an @app.local_entrypoint().',
            )
        app = self._app
        if not app.declared:
            # Only local entry points, perhaps over apps that are deployed: nothing of it runs elsewhere.
            return app
        self.name = ephemeral_name(self._stem or app.name or Path(shown_source(app)).stem or "app")
        progress = self._progress or output.progress
        client = await serving(progress)
        owner = None if self._detach else me()
        self._presence = there = Presence(client, self.namespace, self.name, owner)
        try:
            await deploy(
                app,
                name=self.name,
                namespace=self.namespace,
                owner=owner,
                progress=progress,
                client=client,
            )
        except BaseException as error:
            await self._end(error)
            raise
        if (log := self._log or output.log) is not None:
            there.follow(log)
        return app

    async def _end(self, error: BaseException | None) -> None:
        there = self._presence
        if there is None:
            return
        self._app.binding.deployed = None
        refused = None
        try:
            if error is None and self._detach:
                await self._leave(there)
            else:
                refused = await there.stop(hooked(self._app))
            await there.hear_out()
        finally:
            there.close()
        # What went wrong inside matters more than that nothing was there to stop.
        if refused is not None and error is None:
            raise refused

    async def _leave(self, there: Presence) -> None:
        """Let the app be, and the server with it: first of all, so that nothing that comes between may prevent it."""
        try:
            self.stay = keep()
        except BaseException:
            await there.stop(hooked(self._app))
            raise
        if output.progress is not None:
            output.progress(self.left())

    def left(self, home: str | None = None) -> str:
        """How to end what was left, in words. `home` is that of the server where it has to be named."""
        place = f" --home {home}" if home else ""
        stop = f"`swell app stop{place} {model.shown(f'{self.namespace}/{self.name}')}`"
        match self.stay:
            case None:
                return ""
            case "ends":
                return f"The app is left, but its server is stopping. It is back with the next one: {stop} ends it."
            case "stays":
                return f"The app is left on the server: {stop} ends it."
            case "kept":
                down = f"`swell down{place}`"
                return f"The app is left on the server: {stop} ends it. The server stays for it: {down} ends it, too."


def hooked(app: Deployable) -> set[str]:
    """Names of an app's workloads that have hooks which run when a replica ends."""
    return {each.name for each in app.declared.values() if _exits(each)}


def _exits(declared: describe.Declared) -> bool:
    """Has it hooks that run when a replica of it ends?"""
    return any(marked.hook == "exit" for _, marked in declared.members().values())


def ephemeral_name(stem: str) -> str:
    """A name that no other run has."""
    return f"{stem[:_NAME_MAX]}--{secrets.token_hex(4)}"
