"""Which secrets are there, and who is told their values? Sealed in the store, opened only to be sent to a runner.

A revision names secrets; each start is preceded by their newest values, and so is every change told to the runners.
Neither the world nor its log ever has a value.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress

import msgspec

from swell.control.named import Key, check_name, unknown
from swell.model import secret as model
from swell.model.errors import SwellError
from swell.model.events import Event, ReplicaSeen, SecretChanged
from swell.model.ports import Clock, Sealer, Secrets
from swell.model.replica import Phase
from swell.model.secret import Revealed, SecretUse, SecretVersion
from swell.model.workload import App, shown
from swell.model.world import World
from swell.wire.api import SecretRow

log = logging.getLogger("swell.control")
_TOLD_MAX = 5
"""Names that an error lists."""


class SecretKeeper:
    """The secrets of one server."""

    def __init__(
        self, rows: Secrets, sealer: Sealer, world: World, clock: Clock, take: Callable[[Event], None]
    ) -> None:
        """`take` brings an event into the world and the log."""
        self._rows = rows
        self._sealer = sealer
        self._world = world
        self._clock = clock
        self._take = take
        self.publish: Callable[[tuple[Revealed, ...]], None] = lambda _changed: None
        """Tells every runner."""
        self._writing = asyncio.Lock()
        self._kept: dict[Key, list[SecretVersion]] = {}
        for version in rows.versions():
            self._kept.setdefault((version.namespace, version.name), []).append(version)

    # -- for runners -------------------------------------------------------------------------

    def reveal(self, uses: Iterable[SecretUse]) -> tuple[Revealed, ...]:
        """Their newest values; one that is gone is told as such."""
        return tuple(self._revealed(key) for key in dict.fromkeys(use.key for use in uses))

    def all_used(self) -> tuple[Revealed, ...]:
        """Those of all that is deployed or still runs."""
        return self.reveal(use for revision in self._world.revisions.values() for use in revision.secret_uses)

    def _revealed(self, key: Key) -> Revealed:
        versions = self._kept.get(key, [])
        if not versions:
            return Revealed(*key)
        try:
            newest = tuple(self._values(versions[-1]).items())
        except SwellError as error:
            log.error("%s", error.message)
            return Revealed(*key, problem=error.message)
        former: dict[tuple[str, str], None] = {}
        for version in versions[:-1]:
            # One that cannot be opened has been told to nobody of late.
            with suppress(SwellError):
                former |= dict.fromkeys(self._values(version).items())
        return Revealed(*key, versions[-1].number, newest, tuple(pair for pair in former if pair not in newest))

    def _values(self, version: SecretVersion) -> dict[str, str]:
        return msgspec.msgpack.decode(self._sealer.open(version.sealed, version.about), type=dict[str, str])

    # -- for deploys -------------------------------------------------------------------------

    def check(self, app: App) -> None:
        """Refuse an app whose secrets are not there, cannot be opened, or lack variables that it requires."""
        for use in _uses(app):
            if use.key not in self._kept:
                raise self._unknown(use.key)
            lacking = sorted(set(use.required) - set(self._kept[use.key][-1].keys))
            if lacking:
                words = " ".join(f"{key}=…" for key in lacking)
                raise SwellError(
                    "secret_lacks",
                    f"The secret {use.name!r} has no {' and no '.join(lacking)}, which required_keys asks for: "
                    f"`swell secret rotate {use.name} {words}` adds it.",
                    status=422,
                )
            # Nothing that starts could have it.
            self._values(self._kept[use.key][-1])
        for subscription in (each.subscription for each in app.workloads if each.subscription is not None):
            if subscription.secret is not None:
                self.value(subscription.secret)

    def value(self, use: SecretUse) -> str:
        """The newest of the one variable that is used of it: the one that is required, or its only one."""
        if use.key not in self._kept:
            raise self._unknown(use.key)
        values = self._values(self._kept[use.key][-1])
        names = use.required or tuple(values)
        if len(names) != 1 or names[0] not in values:
            words = f"Of the secret {use.name!r} one variable is used, and it has {', '.join(sorted(values))}"
            raise SwellError("secret_lacks", f"{words}: required_keys=[…] says which.", status=422)
        return values[names[0]]

    def _unknown(self, key: Key) -> SwellError:
        name = key[1]
        if name.startswith(model.APP_OWNED):
            return SwellError(
                "unknown_secret",
                "The values that this version of the app was deployed with are gone: deploy it from its files.",
                status=404,
            )
        there = (each for each in self._kept if not each[1].startswith(model.APP_OWNED))
        return unknown("secret", key, there, f"`swell secret create {name} KEY=VALUE` makes it")

    # -- for people --------------------------------------------------------------------------

    def rows(self, namespace: str) -> list[SecretRow]:
        """The secrets of a namespace that have a name of their own. No value is told."""
        named = sorted(key for key in self._kept if key[0] == namespace and not key[1].startswith(model.APP_OWNED))
        return [self._row(key) for key in named]

    def _row(self, key: Key) -> SecretRow:
        versions = self._kept[key]
        newest = versions[-1]
        return SecretRow(
            *key,
            newest.number,
            newest.at,
            newest.keys,
            tuple(each.number for each in versions),
            tuple(self._users(key)),
        )

    def _users(self, key: Key) -> list[str]:
        return sorted(app.key for app in self._world.apps.values() if any(use.key == key for use in _uses(app)))

    async def create(self, namespace: str, name: str, values: Mapping[str, str]) -> SecretRow:
        """A new secret, its first version."""
        check_name("secret", namespace, name)
        async with self._writing:
            if (namespace, name) in self._kept:
                raise SwellError(
                    "secret_exists",
                    f"There is a secret {name!r} already: `swell secret rotate {name} …` gives it new values.",
                    status=409,
                )
            await asyncio.to_thread(self._check_opened, namespace)
            return await self._add((namespace, name), dict(values))

    async def rotate(
        self, namespace: str, name: str, values: Mapping[str, str], unset: Iterable[str] = ()
    ) -> SecretRow:
        """A new version: these variables have new values, those in `unset` are gone, all others are as they were."""
        key = (namespace, name)
        async with self._writing:
            if key not in self._kept:
                raise self._unknown(key)
            unset = set(unset)
            self._check_unset(key, unset)
            before = self._values(self._kept[key][-1])
            after = {k: v for k, v in {**before, **values}.items() if k not in unset}
            self._check_one(key, after)
            return await self._add(key, after)

    def _check_unset(self, key: Key, unset: set[str]) -> None:
        unknown = sorted(unset - set(self._kept[key][-1].keys))
        if unknown:
            raise SwellError("invalid", f"The secret {key[1]!r} has no {' and no '.join(unknown)}.", status=422)
        for app in self._world.apps.values():
            for use in (use for use in _uses(app) if use.key == key):
                required = sorted(unset & set(use.required))
                if required:
                    raise SwellError(
                        "secret_in_use",
                        f"{shown(app.key)} requires {required[0]} of the secret {key[1]!r}: deploy it without first.",
                        status=409,
                    )

    def _check_one(self, key: Key, values: Mapping[str, str]) -> None:
        """Refuse to have more than one variable, or none, where an app uses the only one there is: what comes for it
        could not be read, or checked, any more."""
        if len(values) == 1:
            return
        for app in self._world.apps.values():
            if any(use.key == key and not use.required for use in _of_events(app)):
                raise SwellError(
                    "secret_in_use",
                    f"{shown(app.key)} uses the only variable of the secret {key[1]!r} for its events, and it would "
                    f"have {len(values)}: deploy it with required_keys=[…] first, which says which is used.",
                    status=409,
                )

    async def keep_for_app(self, namespace: str, app: str, values: Mapping[str, str]) -> str:
        """Values that a program brings along, for one app; returns their name here: equal for equal values."""
        check_name("app", namespace, app)
        content = msgspec.msgpack.encode((namespace, app, sorted(values.items())))
        async with self._writing:
            await asyncio.to_thread(self._check_opened, namespace)
            name = f"{model.APP_OWNED}{app}:{self._sealer.digest(content)}"
            # Anew each time: how old it is tells whether a deploy may still be about to name it.
            await self._add((namespace, name), dict(values), number=1)
        return name

    async def delete(self, namespace: str, name: str, number: int = 0, force: bool = False) -> None:
        """Forget a version, or (0) the secret. One that deployed apps use only with `force`: what has it is then
        drained, and what is to start fails and says why."""
        key = (namespace, name)
        async with self._writing:
            versions = self._kept.get(key, [])
            if not versions or name.startswith(model.APP_OWNED):
                raise self._unknown(key)
            left = [version for version in versions if number and version.number != number]
            if len(left) == len(versions):
                there = ", ".join(f"v{version.number}" for version in versions)
                raise SwellError(
                    "unknown_version", f"The secret {name!r} has no v{number}. There are: {there}.", status=404
                )
            users = self._users(key)
            if users and not force and (not left or left[-1] != versions[-1]):
                raise SwellError(
                    "secret_in_use",
                    f"The secret {name!r} is used by {', '.join(map(shown, users))}: deploy without it, or give it new "
                    f"values with `swell secret rotate {name}`. With --force it is deleted all the same.",
                    status=409,
                )
            await asyncio.shield(self._remove(key, number, left))

    async def forget_unused(self, wanted: set[Key], before: float) -> int:
        """Remove what deploys brought along before then and no app, nor a version of one, names; returns how many."""
        async with self._writing:
            old = [
                key
                for key, versions in self._kept.items()
                if key[1].startswith(model.APP_OWNED) and key not in wanted and versions[-1].at < before
            ]
            for key in old:
                await self._remove(key, 0, [])
            return len(old)

    def _check_opened(self, namespace: str) -> None:
        """Refuse to seal anything while there are secrets that the master key does not open: once the former one is
        back, what another sealed meanwhile could not be opened.

        What deploys brought along does not count: nobody can delete it, and the next deploy brings it anew.
        """
        closed: list[Key] = []
        for key in (key for key in list(self._kept) if not key[1].startswith(model.APP_OWNED)):
            try:
                self._values(self._kept[key][-1])
            except SwellError as error:
                if error.code != "secret_sealed":
                    raise
                closed.append(key)
        if closed:
            raise _closed(namespace, closed)

    # -- writing -----------------------------------------------------------------------------

    async def _add(self, key: Key, values: dict[str, str], number: int = 0) -> SecretRow:
        wrong = model.problems(values)
        if wrong:
            name = "from_dict" if key[1].startswith(model.APP_OWNED) else key[1]
            raise SwellError("invalid", f"The secret {name!r} cannot be kept: {'; '.join(wrong)}.", status=422)
        before = self._kept.get(key, [])
        number = number or (before[-1].number + 1 if before else 1)
        version = SecretVersion(*key, number, self._clock.now(), tuple(sorted(values)), b"")
        sealed = await asyncio.to_thread(self._sealer.seal, msgspec.msgpack.encode(values), version.about)
        version = msgspec.structs.replace(version, sealed=sealed)
        await asyncio.shield(self._write(key, version))
        return self._row(key)

    async def _write(self, key: Key, version: SecretVersion) -> None:
        await asyncio.to_thread(self._rows.put, version, model.VERSIONS_KEPT)
        others = (each for each in self._kept.get(key, []) if each.number != version.number)
        self._kept[key] = [each for each in others if each.number > version.number - model.VERSIONS_KEPT] + [version]
        self._tell(key)

    async def _remove(self, key: Key, number: int, left: list[SecretVersion]) -> None:
        await asyncio.to_thread(self._rows.remove, *key, number)
        if left:
            self._kept[key] = left
        else:
            del self._kept[key]
        self._tell(key)
        if not left:
            self._drain(key)

    def _tell(self, key: Key) -> None:
        """To runners, where something that is deployed or still runs uses it; then what failed to start is tried."""
        if any(use.key == key for revision in self._world.revisions.values() for use in revision.secret_uses):
            self.publish((self._revealed(key),))
            if key in self._kept:
                self._take(SecretChanged(self._clock.now(), *key))

    def _drain(self, key: Key) -> None:
        """What has the values of a secret that is gone finishes what it works on, and ends."""
        for replica in list(self._world.replicas.values()):
            revision = self._world.revision(replica.pool)
            if revision is not None and any(use.key == key for use in revision.secrets):
                drained = ReplicaSeen(
                    at=self._clock.now(),
                    replica=replica.id,
                    phase=Phase.DRAINING,
                    pool=replica.pool,
                    role=replica.role,
                    node=replica.node,
                    reason="secret_gone",
                    detail=f"the secret {key[1]!r} was deleted",
                )
                self._take(drained)


def _uses(app: App) -> Iterator[SecretUse]:
    """All that an app names: of its revisions, and of what calls its functions."""
    for revision in app.revisions:
        yield from revision.secret_uses
    yield from _of_events(app)


def _of_events(app: App) -> Iterator[SecretUse]:
    """What calls its functions, also those that are served still, while others wait to take over."""
    for workload in (*app.workloads, *app.previous):
        if workload.subscription is not None and workload.subscription.secret is not None:
            yield workload.subscription.secret


def _closed(namespace: str, closed: list[Key]) -> SwellError:
    """Only names of one's own namespace are told."""
    own = sorted(name for space, name in closed if space == namespace)
    more = len(closed) - len(own[:_TOLD_MAX])
    named = ", ".join([*own[:_TOLD_MAX], *([f"{more} {'more' if own else 'of other namespaces'}"] if more else [])])
    first = own[0] if own else "NAME"
    return SwellError(
        "secret_sealed",
        f"There are secrets that the server's master key does not open ({named}): put the former `master.key` back "
        "into the state directory and restart, since it would not open what is sealed now. Or delete them: "
        f"`swell secret delete {first}`, with --force where apps use it.",
        status=500,
    )
