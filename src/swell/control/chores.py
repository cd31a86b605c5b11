"""What does control do again and again beside the loop? It sweeps what nobody needs, writes the queue's
rounds, fires what is due, and reads what comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial

from swell.control.calls import CallKeeper
from swell.control.deploying import Deployer
from swell.control.kv import KvKeeper
from swell.control.left_calls import END_LOOK_S, RESTORE_LOOK_S, LeftCalls
from swell.control.owners import OWNER_LOOK_S, Owners
from swell.control.sweeping import KEPT_S, Sweeper
from swell.control.trigger_parts import TriggerParts
from swell.control.volumes import VolumeKeeper
from swell.model.errors import SwellError

log = logging.getLogger("swell")

VARIANTS_LOOK_S = 60.0
"""How often it is looked for variants of workloads that nobody uses."""

CALLS_LOOK_S = 60.0
"""How often it is looked for queued calls that were kept long enough."""


def chores(
    deployer: Deployer,
    sweeper: Sweeper,
    volumes: VolumeKeeper,
    kv: KvKeeper,
    calls: CallKeeper,
    triggers: TriggerParts,
    owners: Owners,
) -> Iterator[Coroutine[None, None, None]]:
    """All of it; none ends by itself."""
    yield calls.run()
    yield from triggers.chores()
    yield every(CALLS_LOOK_S, calls.sweep)
    yield every(CALLS_LOOK_S, partial(sweep_results, calls, sweeper))
    left = LeftCalls(calls, deployer.variants)
    yield every(RESTORE_LOOK_S, left.restore)
    yield every(END_LOOK_S, left.end)
    yield every(OWNER_LOOK_S, partial(end_orphans, owners, deployer, volumes, kv))
    yield every(KEPT_S, sweeper.sweep_blobs)
    yield every(KEPT_S, sweeper.sweep_secrets)
    variants = deployer.variants
    yield every(max(min(VARIANTS_LOOK_S, variants.keep_s / 2), 0.1), variants.sweep)
    yield every(KEPT_S, sweeper.sweep_volumes)


async def sweep_results(calls: CallKeeper, sweeper: Sweeper) -> None:
    """Remove what was large of calls that are forgotten."""
    async with sweeper.held:
        await calls.sweep_results(await sweeper.names_any())


async def every(seconds: float, do: Callable[[], Awaitable[None]]) -> None:
    """Now, and again and again; what goes wrong once is logged and does not end it."""
    while True:
        try:
            await do()
        except SwellError as error:
            log.error("%s", error.message)
        except Exception:
            log.exception("a periodic task failed")
        await asyncio.sleep(seconds)


async def end_orphans(owners: Owners, deployer: Deployer, volumes: VolumeKeeper, kv: KvKeeper) -> None:
    """Stop the apps, and delete what they had, of programs (a `swell run`) that ended without doing so: killed, say."""
    apps, files, shared = deployer.owned(), volumes.owned(), kv.owned()
    whose = (*(each.owner for each in apps), *(each.owner for each in files), *(each.owner for each in shared))
    gone = owners.ended(owner for owner in whose if owner is not None)
    for app in apps:
        if app.owner in gone:
            log.info("%s is stopped: the program it belonged to has ended, or is silent", app.key)
            with suppress(SwellError):
                await deployer.stop_app(app.namespace, app.name)
    for volume in files:
        if volume.owner in gone:
            with suppress(SwellError):
                await volumes.delete(volume.namespace, volume.name, force=True)
    for each in shared:
        if each.owner in gone:
            with suppress(SwellError):
                await kv.delete(*each.key)
