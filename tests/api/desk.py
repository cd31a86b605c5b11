"""What does the API ask of control? One that keeps what it is told in dictionaries, for tests."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable

from swell.control.clock import SystemClock
from swell.control.keys import KeyRing
from swell.control.limits import every, fixed
from swell.control.rescaling import rescaled
from swell.decide.access import Holder, may_see
from swell.model.errors import SwellError
from swell.model.key import ApiKey
from swell.model.owner import Owner
from swell.model.request import KeyCount
from swell.model.traffic import Traffic, check
from swell.model.unknown import UnknownApp, unknown_request, unknown_workload
from swell.model.workload import App, Revision, Scaling, Version
from swell.store.memory import MemoryStore
from swell.wire.api import (
    AppRow,
    DeployLine,
    Heard,
    KeyRow,
    LimitRow,
    MadeKey,
    NewKey,
    NewVariant,
    PoolUsage,
    ReplicaRow,
    RequestRow,
    Rescale,
    Strategy,
    VariantRow,
    VersionRow,
    Why,
)
from swell.wire.nodes import GpuRow, NodeRow
from swell.wire.settings import Settings


class Desk:
    """Control as the API knows it, kept in dictionaries."""

    def __init__(self) -> None:
        self.kept: dict[str, App] = {}
        self.history: dict[str, list[Version]] = defaultdict(list)
        self.ring = KeyRing(MemoryStore().keys, SystemClock(), lambda key: None)
        self.owners: list[Owner] = []
        self.asked_by: list[Holder] = []
        """Of deploys, splits and promotions."""
        self.waiting = threading.Event()
        self.cancelled = threading.Event()

    async def deploy(
        self,
        app: App,
        progress: Callable[[str], None],
        how: str = "deploy",
        tag: str = "",
        strategy: Strategy = "rolling",
        *,
        holder: Holder,
    ) -> DeployLine:
        self.asked_by.append(holder)
        progress("building")
        if app.name == "forever":
            self.waiting.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if app.name == "unimportable":
            raise SwellError("import", "No module named 'nope'.", status=422, detail="Traceback …")
        if app.name == "broken":
            raise RuntimeError("secret words")
        progress("importing")
        self.kept[app.key] = app
        self.history[app.key].append(Version(len(self.history[app.key]) + 1, 1.0, how, tag, app))
        return DeployLine("done", f"{app.name} deployed", urls=(("f", "http://127.0.0.1/call/a/f"),))

    async def stop_app(self, namespace: str, name: str) -> None:
        if self.kept.pop(f"{namespace}/{name}", None) is None:
            raise UnknownApp(name, namespace, self.deployed())

    def revision(self, namespace: str, name: str, workload: str) -> Revision:
        if (known := self.kept.get(f"{namespace}/{name}")) is None:
            raise SwellError("unknown_app", f"There is no app {name!r}.", status=404)
        found = next((each.revision for each in known.workloads if each.name == workload), None)
        if found is None:
            raise unknown_workload(known, workload)
        return next(each for each in known.revisions if each.id == found)

    def heard(self, owner: Owner) -> Heard:
        self.owners.append(owner)
        return Heard(7.0)

    async def rescale(self, namespace: str, name: str, workload: str, asked: Rescale) -> Scaling:
        if (known := self.kept.get(f"{namespace}/{name}")) is None:
            raise SwellError("unknown_app", f"There is no app {name!r}.", status=404)
        app = rescaled(known, workload, asked)
        return next(each.scaling for each in app.workloads if each.name == workload)

    async def vary(self, namespace: str, name: str, workload: str, asked: NewVariant, by: str = "") -> VariantRow:
        self.varied, self.varied_by = asked, by
        return VariantRow(f"{workload}~0123456789ab", f"{namespace}/{name}/{workload}(…)", Scaling())

    async def versions(self, namespace: str, name: str) -> list[VersionRow]:
        kept = self.history[f"{namespace}/{name}"]
        return [VersionRow(v.number, v.at, v.how, v.tag, v.app.source, v is kept[-1], ()) for v in kept[::-1]]

    async def version(self, namespace: str, name: str, number: int) -> Version:
        kept = self.history[f"{namespace}/{name}"]
        if not -1 <= number - 1 < len(kept):
            raise SwellError("unknown_version", f"v{number} is not kept.", status=404)
        return kept[number - 1] if number else kept[-2]

    async def traffic(
        self, namespace: str, name: str, asked: Traffic, progress: Callable[[str], None], *, holder: Holder
    ) -> DeployLine:
        check(asked)
        self.asked_by.append(holder)
        if name == "nowhere":
            raise UnknownApp(name, namespace, self.deployed())
        progress(f"{asked.shares}")
        return DeployLine("done", f"{namespace}/{name}")

    async def promote(
        self, namespace: str, name: str, progress: Callable[[str], None], *, holder: Holder
    ) -> DeployLine:
        self.asked_by.append(holder)
        progress("promoting")
        return DeployLine("done", f"{namespace}/{name}")

    def newer(self, namespace: str, name: str) -> list[int]:
        return [9] if (namespace, name) == ("default", "canary") else []

    async def withdraw(
        self, namespace: str, name: str, progress: Callable[[str], None], *, holder: Holder
    ) -> DeployLine:
        self.asked_by.append(holder)
        progress("withdrawing")
        return DeployLine("done", f"{namespace}/{name} alone")

    def deployed(self) -> list[tuple[str, str]]:
        return [(app.namespace, app.name) for app in self.kept.values()]

    async def apps(self, *, counts: bool) -> list[AppRow]:
        return [AppRow(a.namespace, a.name, 1.0, a.owner is not None, f"{counts=}", ()) for a in self.kept.values()]

    async def replicas(self) -> list[ReplicaRow]:
        return [ReplicaRow("r1-1", "default/a/f", "rv-0", "serving", "ready", "n", 7, 1.5, 0, 12.0, "why", ())]

    async def nodes(self) -> list[NodeRow]:
        return [NodeRow("n", True, 4.0, 60.0, 4096, 4000.0, (GpuRow("GPU-a", "L4", 23034, True),), False, None)]

    async def why(self, request_id: str, holder: Holder) -> Why:
        if request_id == "broken":
            raise RuntimeError("secret words")
        if not may_see(holder, "default", "a"):
            raise unknown_request(request_id, may_come=False)
        return Why(request_id, "default/a/f", "f", 200, "", 1.0, 2.0, False, "r1-1", (), ("because",), 1, 0.0, 0.0, 0.0)

    async def requests(self, namespace: str, app: str, most: int) -> list[RequestRow]:
        row = RequestRow("q", f"{namespace}/{app}/f", "f", float(most), 200, "", 2.0, True, 0.0)
        return [row] if app in ("", "a") else []

    async def usage(self, since_s: float) -> list[PoolUsage]:
        return [PoolUsage("p", 1, 0, 0, since_s, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)]

    async def key_usage(self, since_s: float) -> list[KeyCount]:
        pools = "default/a/f@rv-0", "default/b/f@rv-0"
        return [KeyCount(key.id, pool, since_s, 2, 1, 0.5, 0.25) for key in self.ring.all() for pool in pools]

    def limits(self, holder: Holder) -> list[LimitRow]:
        return every(Settings(home="/"), [fixed("x", 1, "count")], self.kept.values(), self.ring.all(), holder)

    def key(self, id: str) -> ApiKey | None:
        return self.ring.get(id)

    def keys(self, holder: Holder) -> list[KeyRow]:
        return self.ring.rows(holder)

    async def make_key(self, asked: NewKey, holder: Holder) -> MadeKey:
        return await self.ring.make(asked, holder)

    async def revoke_key(self, named: str, holder: Holder) -> KeyRow:
        return await self.ring.revoke(named, holder)

    def health(self) -> dict[str, object]:
        return {"ok": True, "trouble": "", "waiting": {"default/a/f@rv-0": "no room"}}
