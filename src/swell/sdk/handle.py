"""What do functions and classes have in common? A name in an app, by which they can be found."""

from __future__ import annotations

from typing import Self

from swell.model.errors import SwellError
from swell.sdk import quantities
from swell.sdk.binding import Binding, Named
from swell.sdk.bridge import operation
from swell.sdk.chosen import NOTHING, Chosen
from swell.sdk.marks import Given
from swell.sdk.refusal import refuse
from swell.sdk.signatures import public


class Handle:
    """A function or class that lives in replicas."""

    def __init__(self, name: str, binding: Binding | Named, chosen: Chosen = NOTHING) -> None:
        self.name = name
        """ "function", "Class" or "Class.method"."""
        self._binding = binding
        self._chosen = chosen

    def __repr__(self) -> str:
        return f"<swell.{type(self).__name__} {self.name}>"

    @classmethod
    @public
    def from_name(
        cls,
        app_name: str,
        name: str,
        *,
        version: int | None = None,
        environment_name: str | None = None,
        client: None = None,
    ) -> Self:
        """One of a deployed app; a single method is "Class.method". With `version` calls are for that one alone.

        Nothing is asked before its first call. Then the server tells, once, what streams and which `retries=` its
        author asked for; where it cannot (without the API key, as in a replica), calls are not tried again.
        """
        given = {k: v for k, v in locals().items() if k != "cls"}
        refuse(Given(f"{cls.__name__}.from_name", given))
        if version is not None and (type(version) is not int or version < 1):
            raise SwellError("bad_argument", f"{cls.__name__}.from_name(version={version!r}): give v3 as version=3.")
        return cls(name, Named(app_name, environment_name, version or 0))

    @operation
    async def update_autoscaler(
        self,
        *,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: int | None = None,
    ) -> None:
        """Change how it is scaled, at once and until the next deploy of its app. What is not given stays."""
        given = Given(f"{type(self).__name__}.update_autoscaler", {k: v for k, v in locals().items() if k != "self"})
        asked = quantities.rescale(given)
        if "." in self.name:
            cls = self.name.partition(".")[0]
            words = f"{self.name} has no replicas of its own: {cls}().update_autoscaler(…) is for all methods."
            raise SwellError("bad_call", words)
        at = self._binding.resolve(self.name)
        name = self.name if self._chosen == NOTHING else (await self._chosen.row(at, self.name, sure=True)).name
        await at.client.rescale.start(at.app, name, asked, at.namespace)
