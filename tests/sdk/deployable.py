"""Functions and classes as users write them, at the top level of a file, for tests to register in apps of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import swell


def plain(x: int = 1) -> int:
    return x


def numbers(n: int = 3) -> Iterator[int]:
    yield from range(n)


async def waits() -> int:
    return 1


def serve() -> None:
    """Would start a process."""


class Model:
    """One of each hook, bases first in time."""

    @swell.enter()
    def ready(self) -> None:
        self.log.append("enter")

    @swell.enter(snap=True)
    def load(self) -> None:
        self.log = ["snap"]

    @swell.method()
    def seen(self, more: str = "") -> list[str]:
        return [*self.log, more]

    @swell.method()
    async def later(self) -> list[str]:
        return self.log

    @swell.exit()
    def done(self) -> None:
        pass

    def helper(self) -> str:
        return "helped"


class Found(swell.Source):
    """Finds nothing."""

    async def events(self) -> AsyncIterator[swell.Event]:
        for each in ():
            yield each


class Sync(Found):
    def ack(self, event: swell.Event) -> None:  # type: ignore[override]
        """It would have to be asynchronous."""


class Given(Found):
    box: str = swell.parameter()


class Child(Model):
    def ready(self) -> None:
        """No longer a hook."""

    @swell.method(is_generator=True)
    def more(self) -> Iterator[int]:
        return iter(range(3))


class Needy:
    def __init__(self, size: int) -> None:
        self.size = size

    @swell.method()
    def get(self) -> int:
        return self.size


def untyped(x):
    return x
