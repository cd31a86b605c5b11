"""Which of the programs that something belongs to have ended?

Of one on this machine the system knows. One elsewhere says again and again that it is there (`PUT /api/owners`); it is
taken to have ended when it was silent for so many looks in a row. Looks are counted, not seconds: while control itself
stands still nobody can be heard, and nobody is looked for. After a restart of control all have their whole time anew.
"""

from __future__ import annotations

from collections.abc import Iterable

from swell.model.owner import Owner
from swell.wire.api import Heard
from swell.wire.identity import Identity, machine

OWNER_LOOK_S = 2.0
"""How often it is looked whether the programs that something belongs to still run."""
TELLS = 6
"""So often one elsewhere says that it is there, in the time after which it is given up: several may get lost."""


class Owners:
    """What is known of them."""

    def __init__(self, silent_s: float) -> None:
        """`silent_s`: one on another machine that was not heard of for so long is taken to have ended."""
        self._tells_s = silent_s / TELLS
        self._looks_max = max(round(silent_s / OWNER_LOOK_S), 2)
        self._silent: dict[Owner, int] = {}
        """Those elsewhere that own something → looks since they were heard of."""

    def heard(self, owner: Owner) -> Heard:
        """It is there; returns when it is to say so again."""
        if _is_here(owner):
            return Heard(0.0)
        # Of others nothing is kept: anybody could name any number of them.
        if owner in self._silent:
            self._silent[owner] = 0
        return Heard(self._tells_s)

    def ended(self, owners: Iterable[Owner]) -> set[Owner]:
        """Which of all that own something have ended: a look, once in `OWNER_LOOK_S`."""
        asked = set(owners)
        here = {owner for owner in asked if _is_here(owner)}
        self._silent = {owner: self._silent.get(owner, -1) + 1 for owner in asked - here}
        gone = {owner for owner in here if not Identity(owner.pid, owner.start_ticks).alive}
        return gone | {owner for owner, looks in self._silent.items() if looks >= self._looks_max}


def _is_here(owner: Owner) -> bool:
    return owner.machine in ("", machine())
