"""Functions that are run when an environment is built, in the tests of that."""

from __future__ import annotations

import json

SIZE = 3
KINDS = ("a", "b")


class Pot:
    lid = True


def stir() -> int:
    return SIZE


def cook(times: int = 1) -> str:
    def taste() -> int:
        return stir()

    return json.dumps([KINDS, taste(), Pot.lid, times])


def unrelated() -> None:
    pass


async def simmer() -> None:
    pass


def pieces():
    yield 1
