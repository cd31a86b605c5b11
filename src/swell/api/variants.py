"""What can be asked over HTTP about functions and classes with other parameters and options than were deployed?"""

from __future__ import annotations

from swell.api.port import ControlPort
from swell.api.routes import ApiRequest, Route
from swell.api.validate import check_options
from swell.decide.access import Need, lacks, may_use
from swell.model.key import Scope
from swell.model.workload import NO_OPTIONS
from swell.wire.api import NewVariant, VariantRow


class VariantHandlers:
    """Answers, one method per route."""

    def __init__(self, control: ControlPort) -> None:
        self._control = control

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/api/apps/{namespace}/{name}/workloads/{workload}/variants",
                "Have a workload with other parameters and, for a key that may deploy it, other options.",
                self.vary,
                takes=NewVariant,
                gives=VariantRow,
                needs=Need("call", "namespace", "name"),
            )
        ]

    async def vary(self, request: ApiRequest) -> VariantRow:
        at, asked = request.path, request.body
        if asked.options != NO_OPTIONS:
            # They change what may be spent, and what code finds around it; parameters do not.
            refused = lacks(request.holder, Scope("deploy", at["namespace"], at["name"]))
            if refused is not None:
                raise refused
            check_options(asked.options)
            refused = may_use(request.holder, asked.options.secrets or (), at["namespace"])
            if refused is not None:
                raise refused
        return await self._control.vary(at["namespace"], at["name"], at["workload"], asked, request.holder.id)
