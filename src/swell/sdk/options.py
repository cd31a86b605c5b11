"""How does a user have a deployed function or class run with other options, without a deploy?"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

from swell.model.errors import SwellError
from swell.model.limits import BATCH_SIZE_MAX, BATCH_WAIT_MS_MAX, COUNT_MAX
from swell.model.workload import Batch, Options
from swell.sdk import quantities
from swell.sdk.chosen import Chosen
from swell.sdk.handle import Handle
from swell.sdk.image_words import variables
from swell.sdk.marks import Given
from swell.sdk.refusal import refuse
from swell.sdk.retries import Retries, retrying
from swell.sdk.secret import Secret, given_secrets
from swell.sdk.signatures import public


class Optional(Handle):
    """What can be had with other options. Each set of them has replicas of its own."""

    @abstractmethod
    def _with(self, chosen: Chosen) -> Self:
        """The same, so."""

    @public
    def with_options(
        self,
        *,
        cpu: float | tuple[float, float] | None = None,
        memory: int | tuple[int, int] | None = None,
        gpu: str | list[str] | None = None,
        env: Mapping[str, str | None] | None = None,
        secrets: Collection[Secret] | None = None,
        volumes: Mapping[Any, Any] = {},
        retries: int | Retries | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
        timeout: int | None = None,
        region: str | Sequence[str] | None = None,
        cloud: str | None = None,
        timeout_max: int | None = None,
    ) -> Self:
        """The same with other options. What is not given is as it was deployed, or as with_options() said before."""
        given = Given(f"{type(self).__name__}.with_options", {k: v for k, v in locals().items() if k != "self"})
        self._own_replicas(given)
        refuse(given)
        needs = quantities.needs(given, ())
        sizes = quantities.sizes(given)
        options = Options(
            cpu=None if cpu is None else needs.cpu,
            cpu_limit=needs.cpu_limit,
            memory_mib=None if memory is None else needs.memory_mib,
            memory_limit_mib=needs.memory_limit_mib,
            gpu=None if gpu is None else needs.gpu,
            variables=variables(f"{given.callable}(env=…)", env or {}),
            retrying=None if retries is None else retrying(retries),
            max_replicas=sizes.max_replicas,
            buffer_replicas=sizes.buffer_replicas,
            idle_s=sizes.idle_s,
            timeout_s=None if timeout is None else quantities.seconds(given, "timeout", 0.0),
            timeout_max_s=None if timeout_max is None else quantities.seconds(given, "timeout_max", 0.0),
        )
        return self._with(self._chosen.over(options, None if secrets is None else given_secrets(given)))

    @public
    def with_concurrency(self, *, max_inputs: int, target_inputs: int | None = None) -> Self:
        """The same with so many inputs at a time in each replica; scaling aims at `target_inputs`."""
        given = Given(f"{type(self).__name__}.with_concurrency", {k: v for k, v in locals().items() if k != "self"})
        self._own_replicas(given)
        most = _whole(given, "max_inputs", 1, COUNT_MAX)
        target = None if target_inputs is None else _whole(given, "target_inputs", 1, most)
        return self._with(self._chosen.over(Options(max_inputs=most, target_inputs=target)))

    @public
    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> Self:
        """The same with single calls given to the code together, as lists, as @swell.batched() does."""
        given = Given(f"{type(self).__name__}.with_batching", {k: v for k, v in locals().items() if k != "self"})
        self._own_replicas(given)
        size = _whole(given, "max_batch_size", 1, BATCH_SIZE_MAX)
        return self._with(self._chosen.over(Options(batch=Batch(size, _whole(given, "wait_ms", 0, BATCH_WAIT_MS_MAX)))))

    def _own_replicas(self, given: Given) -> None:
        if "." in self.name:
            cls, _, method = self.name.partition(".")
            how = given.callable.partition(".")[2]
            words = f"{self.name} has no replicas of its own: write {cls}.{how}(…)().{method}."
            raise SwellError("bad_call", words)


def _whole(given: Given, name: str, least: int, most: int) -> int:
    value = given.values[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise quantities.bad(given, name, f"give a whole number from {least} to {most}")
    return value
