"""How is a function or class called with other parameters and options than it was deployed with?

Parameters stand in the query of each call. Options are told the server once, which answers the name to call then.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from swell.model.errors import SwellError
from swell.model.secret import SecretUse
from swell.model.variant import KINDS, Plain, Value, bad_parameter, chosen, text_of, values_problem, written
from swell.model.workload import NO_OPTIONS, Options
from swell.sdk import protocol
from swell.sdk.secret import Secret, values
from swell.wire import context
from swell.wire.api import NewVariant, VariantRow

if TYPE_CHECKING:
    from swell.sdk.binding import Deployed

HEARD_S = 5.0
"""What the server has just made, its gateway knows a moment later; this much later something is wrong."""
KEPT_MAX = 1000
"""Answers that are remembered; the oldest give way. Whoever needs one again asks again."""
_TOGETHER = {"cpu": "cpu_limit", "memory_mib": "memory_limit_mib", "max_inputs": "target_inputs"}
"""Option → the one that is said anew with it."""


@dataclass(frozen=True)
class Chosen:
    """Parameters of an object, and options over those of its class."""

    parameters: tuple[Value, ...] = ()
    options: Options = NO_OPTIONS
    secrets: tuple[Secret, ...] | None = None

    @property
    def optional(self) -> bool:
        """Are there options?"""
        return self.options != NO_OPTIONS or self.secrets is not None

    def with_parameters(self, given: dict[str, Any]) -> Chosen:
        """For an object with these. SwellError where one is of a type that none can have, or they are too large."""
        if not given:
            return self
        found = replace(self, parameters=tuple(_value(name, value) for name, value in sorted(given.items())))
        problem = values_problem(found.parameters)
        if problem is not None:
            raise bad_parameter(problem)
        return found

    def over(self, options: Options, secrets: tuple[Secret, ...] | None = None) -> Chosen:
        """With further options, which count over those there are."""
        changes = {name: getattr(options, name) for name in options.__struct_fields__}
        given = {name: value for name, value in changes.items() if value not in (None, ())}
        for name, with_it in _TOGETHER.items():
            if name in given:
                given[with_it] = changes[with_it]
        if options.variables:
            given["variables"] = tuple(sorted({**dict(self.options.variables), **dict(options.variables)}.items()))
        merged = msgspec.structs.replace(self.options, **given)
        return replace(self, options=merged, secrets=self.secrets if secrets is None else secrets)

    def written(self, name: str) -> str:
        """As people write it."""
        return f"{name}({written(self.parameters)})"

    @property
    def query(self) -> str:
        """The parameters, as they stand behind a path; empty where there are none."""
        texts = {value.name: value.text for value in self.parameters}
        return f"?{urlencode(texts)}" if texts else ""

    # -- on a server -----------------------------------------------------------------------------

    async def target(self, at: Deployed, name: str, sure: bool = False) -> str:
        """Where a function, or a method, is called with all this. `sure`: the server may have forgotten it since."""
        if not self.optional:
            return at.target(name) + self.query
        workload, dot, method = name.partition(".")
        row = await self.row(at, workload, sure)
        return at.target(f"{row.name}{dot}{method}")

    async def row(self, at: Deployed, workload: str, sure: bool = False) -> VariantRow:
        """What the server has made of it, or makes of it now."""
        key = (at.namespace, at.app, workload, self)
        known = at.client.variants.get(key)
        if known is not None and (not sure or await self._heard(at, known)):
            return known
        if context.inside:
            raise SwellError(
                "no_scope",
                f"{workload}.with_options() needs a key that may deploy, and code in a replica has none: deploy "
                "another function or class with these options, and call that.",
                status=403,
            )
        values = await self._read(at, workload) if self.parameters else ()
        made = NewVariant({value.name: _of_json(value) for value in values}, await self._told(at))
        row: VariantRow = await at.client.vary.start(at.app, workload, made, at.namespace)
        until = time.monotonic() + HEARD_S
        while not await self._heard(at, row) and time.monotonic() < until:
            await at.client.transport.pause(0.02)
        kept = at.client.variants
        kept[key] = row
        while len(kept) > KEPT_MAX:
            # Others may do the same.
            kept.pop(next(iter(kept)), None)
        return row

    async def _read(self, at: Deployed, workload: str) -> tuple[Value, ...]:
        """The parameters, as the class that is deployed declares them: who finds it by its name does not know."""
        revision = await at.client.revision.start(at.app, workload, at.namespace)
        return chosen(workload, revision.entry.parameters, ((each.name, each.text) for each in self.parameters))

    async def _told(self, at: Deployed) -> Options:
        """The options, with secrets by the names that the server has for them."""
        if self.secrets is None:
            return self.options
        uses = []
        for each in self.secrets:
            name = each.name
            if not name:
                name = await at.client.keep_secret.start(at.app, values(each), at.namespace)
            uses.append(SecretUse(each.namespace or at.namespace, name, each.required))
        return msgspec.structs.replace(self.options, secrets=tuple(uses))

    async def _heard(self, at: Deployed, row: VariantRow) -> bool:
        """Does the gateway know it? It says so of whatever else is wrong with a request that calls nothing."""
        answer = await at.client.transport.send(protocol.Request("GET", f"/call/{at.target(row.name)}"))
        return not protocol.forgotten(answer)


NOTHING = Chosen()


def _value(name: str, value: object) -> Value:
    kind = KINDS.get(type(value))
    if kind is None:
        raise bad_parameter(f"{name} is of type {type(value).__name__}: parameters are str, int, bool or bytes")
    return Value(name, kind, text_of(name, kind, value))


def _of_json(value: Value) -> str | int | bool:
    plain: Plain = value.plain
    return value.text if isinstance(plain, bytes) else plain
