"""How does an app get in place, and away again? Checked, built, then in the world and on disk in one event, or not at
all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from swell.control import port_conflicts
from swell.control.addresses import urls
from swell.control.rescaling import rescaled
from swell.control.rolling import asleep, not_started, rolls_on, served, staging, story
from swell.control.variants import Variants
from swell.control.versions import changes, chosen, current, named, numbered, rows
from swell.decide.access import SERVER, Holder, check_put_in_place, may_use
from swell.decide.place import never_fits
from swell.decide.powers import lacking, listing, summary, unmountable, unwalled
from swell.decide.roll import follow
from swell.decide.traffic import alone, green, labels, models, newer, split, staged, unsplit
from swell.decide.variants import bare, varied
from swell.decide.variants import variants as variants_of
from swell.model.errors import SwellError
from swell.model.events import AppDeployed, AppStopped, Event
from swell.model.openai import Offer
from swell.model.ports import Clock, Engine, WorldLog
from swell.model.traffic import Traffic, check
from swell.model.unknown import UnknownApp, unknown_workload
from swell.model.variant import of_json
from swell.model.workload import NO_OPTIONS, PLAIN, App, Revision, Scaling, Variant, Version, shown
from swell.model.world import World
from swell.wire.api import DeployLine, NewVariant, Rescale, Strategy, VariantRow, VersionRow

ROLL_LOOK_S = 0.02
"""How often a deploy looks whether what it put in place has its traffic."""


class Deployer:
    """Deploys and stops apps."""

    def __init__(
        self,
        world: World,
        take: Callable[[Event], None],
        engine: Engine,
        log: WorldLog,
        clock: Clock,
        base_url: str,
        engines: Mapping[str, frozenset[str]],
        waiting: Mapping[str, str],
        check_secrets: Callable[[App], None],
        variants: Variants,
    ) -> None:
        """`take` brings an event into the world and the log. `engines`: name → capabilities of every engine there is,
        to say who has what this one lacks. `waiting`: pool → why it waits for room. `check_secrets` refuses an app
        whose secrets are not there."""
        self.world = world
        self.take = take
        self.engine = engine
        self.log = log
        self.clock = clock
        self.base_url = base_url
        self.engines = engines
        self.waiting = waiting
        self._check_secrets = check_secrets
        self.deployed_at = log.deployed_at()
        """When each app was last deployed."""
        self.variants = variants
        self._newest = log.newest_versions()
        self._writing = asyncio.Lock()
        self._deploying: list[App] = []

    async def deploy(
        self,
        app: App,
        progress: Callable[[str], None],
        how: str = "deploy",
        tag: str = "",
        strategy: Strategy = "rolling",
        holder: Holder = SERVER,
    ) -> DeployLine:
        """Build and import every revision, then put the app in place in one event, or change nothing; and wait until it
        has its traffic. SwellError "not_started": it is in place, and fails to start beside the version that serves.

        `how` says what makes this version, `tag` is what its author calls it. `holder`: who may put it in place.
        """
        self._deploying.append(app)
        try:
            return await self._put_in_place(app, progress, lambda: self._next(app, how, tag, strategy, holder))
        finally:
            self._deploying.remove(app)

    async def _put_in_place(
        self, app: App, progress: Callable[[str], None], make: Callable[[], AppDeployed]
    ) -> DeployLine:
        known = self.world.apps.get(app.key)
        self._check_fits(app)
        self._check_secrets(app)
        built: set[tuple[object, ...]] = set()
        # Of those that import the same, the one that leaves most time for it.
        for revision in sorted(app.revisions, key=lambda each: -each.startup_timeout_s):
            what = (revision.environment, revision.bundle, revision.entry.module, revision.isolation)
            if what in built:
                continue
            built.add(what)
            await self._build(revision, progress)
        app = await self._commit(make) or app
        await self._roll(app, progress)
        failed = not_started(self.world, app)
        if failed is not None:
            raise failed
        verb = "deployed" if known is None else "deployed again"
        return DeployLine(
            "done",
            f"{app.name} {verb}: {len(bare(app).workloads)} workloads",
            version=app.version,
            urls=tuple(urls(self.base_url, bare(app))),
            changes=tuple(changes(None if known is None else bare(known), bare(app))),
            notes=(*staging(app), *self._unready(app), *port_conflicts.shared(bare(app), self.world.apps.values())),
            asleep=tuple(asleep(self.world, bare(app))),
        )

    async def _roll(self, app: App, progress: Callable[[str], None]) -> None:
        """Wait until what is deployed has its traffic, something of it failed to start, or another deploy came."""
        told = ""
        while keys := rolls_on(self.world, app):
            says = story(self.world, keys[0], self.waiting.get(self.world.workloads[keys[0]].pool, ""))
            if says != told:
                progress(says)
            told = says
            await asyncio.sleep(ROLL_LOOK_S)

    def _unready(self, app: App) -> list[str]:
        """What of it does not have its traffic, and why."""
        return [f"{each.written}: {says}" for each in app.workloads if (says := story(self.world, each.key))]

    def _next(self, app: App, how: str, tag: str, strategy: Strategy, holder: Holder) -> AppDeployed:
        """An app that stays gets the next number; one that belongs to a program has no versions."""
        # Building may have taken minutes.
        self._check_secrets(app)
        now = self.clock.now()
        if app.owner is not None:
            self._check_name(app)
            self._check_taken(app)
            return AppDeployed(now, follow(self.world, self._varied(numbered(app, 0), holder)))
        released = numbered(app, self._newest.get(app.key, 0) + 1)
        known = self.world.apps.get(app.key)
        if strategy == "blue-green" and known is not None:
            live = self._varied(staged(bare(known), released), holder)
        else:
            live = self._varied(released, holder)
            live = live if strategy == "recreate" else follow(self.world, live)
        self._check_taken(bare(live))
        over, over_served = (current(known), served(self.world, bare(known))) if known is not None else (0, True)
        return AppDeployed(now, live, how, tag, released if live is not released else None, over, over_served)

    def _varied(self, app: App, holder: Holder) -> App:
        """With the variants of what is in place now, but those that have secrets of a namespace where the holder may
        not deploy: the code that they would be given to is of its choice."""
        known = self.world.apps.get(app.key)
        if known is None:
            return app
        kept = [
            (name, variant)
            for name, variant in variants_of(known)
            if may_use(holder, variant.options.secrets or (), app.namespace) is None
        ]
        return varied(app, kept)

    async def versions(self, namespace: str, name: str) -> list[VersionRow]:
        """An app's history, the newest version first."""
        kept = await asyncio.to_thread(self.log.versions, self._app(namespace, name).key)
        app = self._app(namespace, name)
        return rows(bare(app), kept, self._unready(app))

    async def version(self, namespace: str, name: str, number: int) -> Version:
        """One version of an app; number 0: the one that had the traffic before what takes it."""
        app = bare(self._app(namespace, name))
        return chosen(app, await asyncio.to_thread(self.log.versions, app.key), number)

    async def traffic(
        self, namespace: str, name: str, asked: Traffic, progress: Callable[[str], None], holder: Holder = SERVER
    ) -> DeployLine:
        """Have an app's traffic go to several of its versions."""
        check(asked)
        app = self._app(namespace, name)
        versions = named(bare(app), await asyncio.to_thread(self.log.versions, app.key), asked.versions)
        for version in versions.values():
            check_put_in_place(holder, version)
        done = await self._change(app, lambda live: split(live, asked, versions), progress, holder)
        return msgspec.structs.replace(done, notes=(*unsplit(bare(app), asked), *done.notes))

    async def promote(
        self, namespace: str, name: str, progress: Callable[[str], None], holder: Holder = SERVER
    ) -> DeployLine:
        """Give all the traffic to the version that was made ready beside what has it."""
        app = self._app(namespace, name)
        number = _staged_beside(app)
        released = (await self.version(namespace, name, number)).app
        check_put_in_place(holder, released)

        def promoted(live: App) -> App:
            if _staged_beside(live) != number:
                raise SwellError("nothing_staged", f"v{number} of {name} gave way to another meanwhile.", status=409)
            return released

        return await self._change(app, promoted, progress, holder)

    def newer(self, namespace: str, name: str) -> list[int]:
        """The versions after what has the traffic that have a share, header or tag."""
        return newer(self._app(namespace, name))

    async def withdraw(
        self, namespace: str, name: str, progress: Callable[[str], None], holder: Holder = SERVER
    ) -> DeployLine:
        """Take that from them: what has the traffic gets all of it."""
        app = self._app(namespace, name)
        check_put_in_place(holder, alone(bare(app)))
        # No variant gets other code by that, so each keeps its secrets.
        return await self._change(app, alone, progress, SERVER)

    async def _change(
        self, app: App, change: Callable[[App], App], progress: Callable[[str], None], holder: Holder
    ) -> DeployLine:
        """Put another composition of the app's versions in place; environments that are gone are made again."""

        def make() -> AppDeployed:
            live = bare(self._app(app.namespace, app.name))
            changed = change(live if live.version else numbered(live, current(live)))
            changed = follow(self.world, self._varied(changed, holder))
            self._check_taken(bare(changed))
            return AppDeployed(self.clock.now(), changed)

        # Nor does a deploy look at variants: what one of them cannot have any more is for its callers to hear.
        return await self._put_in_place(bare(make().app), progress, make)

    def _app(self, namespace: str, name: str) -> App:
        deployed = self.world.apps
        if f"{namespace}/{name}" not in deployed:
            raise UnknownApp(name, namespace, ((app.namespace, app.name) for app in deployed.values()))
        return deployed[f"{namespace}/{name}"]

    async def _build(self, revision: Revision, progress: Callable[[str], None]) -> None:
        report = await self.engine.build(revision, progress)
        if not report.ok:
            raise SwellError(report.error, report.message, status=422, detail=report.detail)

    def _check_fits(self, app: App) -> None:
        engine = self.engine
        lacks = lacking(app, engine.name, {**self.engines, engine.name: engine.capabilities})
        if lacks:
            raise SwellError("not_available", summary(app, engine.name, lacks), status=422, detail=listing(lacks))
        revisions = {revision.id: revision for revision in app.revisions}
        nodes = [node for node in self.world.nodes.values() if node.alive]
        wall = unwalled(app, nodes) or unmountable(app, nodes)
        if wall is not None:
            raise SwellError("not_available", wall, status=422)
        for workload in app.workloads:
            why = never_fits(revisions[workload.revision].needs, nodes)
            if why is not None:
                raise SwellError(
                    "never_fits",
                    f"{workload.written} can never be placed here: {why}. Ask for less (cpu=, memory=, gpu=), "
                    "or deploy it where there is more.",
                    status=422,
                )

    def revision(self, namespace: str, name: str, workload: str) -> Revision:
        """What the replicas of a workload run that has the traffic."""
        app = self._app(namespace, name)
        found = next((each.revision for each in app.workloads if each.name == workload), None)
        if found is None:
            raise unknown_workload(app, workload)
        return self.world.revisions[found]

    async def rescale(self, namespace: str, name: str, workload: str, asked: Rescale) -> Scaling:
        """Change how a workload is scaled. It is no version, and the next deploy says it anew."""
        await self._commit(lambda: AppDeployed(self.clock.now(), rescaled(self._app(namespace, name), workload, asked)))
        return self.world.workloads[f"{namespace}/{name}/{workload}"].scaling

    async def vary(self, namespace: str, name: str, workload: str, asked: NewVariant, by: str = "") -> VariantRow:
        """Have a workload with these parameters and options; on disk before it is told."""
        key = f"{self._app(namespace, name).key}/{workload}"
        declared = self.world.revisions[self.variants.of(key).revision].entry.parameters
        parameters = of_json(workload, declared, asked.parameters)
        made = self.variants.made(key, Variant(parameters, asked.options))
        if asked.options != NO_OPTIONS:
            alone = App(namespace, name, (made.workload,), made.revisions)
            self._check_fits(alone)
            self._check_secrets(alone)
        put = self.variants.put(made, by) if made.workload.variant != PLAIN else self.world.workloads[key]
        await asyncio.to_thread(self.log.flush)
        return VariantRow(put.name, put.written, put.scaling)

    async def stop_app(self, namespace: str, name: str) -> None:
        self._app(namespace, name)
        await self._commit(lambda: AppStopped(at=self.clock.now(), namespace=namespace, name=name))

    async def _commit(self, make: Callable[[], AppDeployed | AppStopped]) -> App | None:
        """In the world and on disk: what `make` makes of what is there then, which is returned. Whoever asked may
        leave; what has begun is finished."""
        return await asyncio.shield(self._write(make))

    async def _write(self, make: Callable[[], AppDeployed | AppStopped]) -> App | None:
        """Taken in and logged in one turn, so that the log's order is the order of what was decided; then waited for.

        If the disk refuses, it is taken back: what nobody was promised must not stay.
        """
        async with self._writing:
            event = make()
            key = event.app.key if isinstance(event, AppDeployed) else f"{event.namespace}/{event.name}"
            before = self.world.apps.get(key)
            self.take(event)
            try:
                await asyncio.to_thread(self.log.flush)
            except SwellError:
                namespace, _, name = key.partition("/")
                at = self.clock.now()
                self.take(AppStopped(at, namespace, name) if before is None else AppDeployed(at, before))
                raise
            if isinstance(event, AppDeployed):
                self.deployed_at[key] = event.at
                if event.version is not None:
                    self._newest[key] = event.version.number
                return event.app
            self.deployed_at.pop(key, None)
            self._newest.pop(key, None)
            return None

    def _check_name(self, app: App) -> None:
        """What belongs to a program replaces only what belongs to the same one."""
        known = self.world.apps.get(app.key)
        if known is not None and known.owner != app.owner:
            whose = "is deployed" if known.owner is None else "belongs to another program that runs"
            raise SwellError(
                "app_taken",
                f"App {shown(app.key)} {whose}. Give another name (--name), or stop it: "
                f"`swell app stop {shown(app.key)}`.",
                status=409,
            )

    def _check_taken(self, app: App) -> None:
        """What is told apart by its name alone, of all that is deployed."""
        self._check_labels(app)
        self._check_offers(app)
        self._check_models(app)

    def _others(self, app: App) -> list[App]:
        return [other for other in self.world.apps.values() if other.key != app.key]

    def _check_labels(self, app: App) -> None:
        """A web label leads to one app only."""
        wanted = labels(app)
        for other in self._others(app):
            if taken := wanted & labels(other):
                raise SwellError(
                    "label_taken",
                    f"The web label {min(taken)!r} belongs to app {shown(other.key)!r}. Give the endpoint another "
                    f"label=, or stop that app: `swell app stop {shown(other.key)}`.",
                    status=409,
                )

    def _check_offers(self, app: App) -> None:
        """A name that clients of the OpenAI API say leads to one method only."""
        wanted = offers(app)
        for other in self._others(app) if wanted else ():
            if taken := wanted & offers(other):
                api, name = min((offer.api, offer.model) for offer in taken)
                raise SwellError(
                    "model_taken",
                    f"The model {name!r} of {api} belongs to app {shown(other.key)!r}. Give yours another model=, "
                    f"or stop that app: `swell app stop {shown(other.key)}`.",
                    status=409,
                )

    def _check_models(self, app: App) -> None:
        """So does one that clients of the Open Inference Protocol say: it is joined of names that may have dashes."""
        wanted = models(app)
        for name, methods in sorted(wanted.items()):
            if len(methods) > 1:
                both = " and ".join(sorted(methods))
                raise SwellError(
                    "model_taken", f"{both} would both be the model {name!r}: give one another name=.", status=409
                )
        for other in self._others(app) if wanted else ():
            if taken := wanted.keys() & models(other):
                raise SwellError(
                    "model_taken",
                    f"The model {min(taken)!r} belongs to app {shown(other.key)}. Give the app or the function another "
                    f"name, or stop that app: `swell app stop {shown(other.key)}`.",
                    status=409,
                )

    async def bundles(self) -> set[str]:
        """Digests of the source that is needed."""
        return {revision.bundle for revision in await self._needed()}

    async def secrets(self) -> set[tuple[str, str]]:
        """Namespaces and names of the secrets that are needed."""
        return {use.key for revision in await self._needed() for use in revision.secret_uses}

    async def _needed(self) -> list[Revision]:
        """What is wanted, runs, is being deployed, or may be gone back to."""
        kept = await asyncio.to_thread(self.log.versions)
        apps = (*self._deploying, *(version.app for version in kept))
        return [*self.world.revisions.values(), *(revision for app in apps for revision in app.revisions)]

    def owned(self) -> list[App]:
        """Apps that belong to a program and end with it."""
        return [app for app in self.world.apps.values() if app.owner is not None]


def _staged_beside(app: App) -> int:
    """The version that is made ready beside what has the traffic."""
    number = green(app)
    if not number:
        raise SwellError(
            "nothing_staged",
            f"No version of {app.name} is made ready beside v{current(app)}: "
            "`swell deploy --strategy blue-green` does that.",
            status=409,
        )
    return number


def offers(app: App) -> set[Offer]:
    """What an app's methods are to clients of the OpenAI API."""
    methods = (method for revision in app.revisions for method in revision.entry.methods)
    return {method.openai for method in methods if method.openai is not None}
