"""How is a call put into the queue, beside what it is given? In its turn, at once, for as long as its function may."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from swell.model.call import PRIORITY_MAX
from swell.wire import http
from swell.wire.calls import DELAY_MAX_S

if TYPE_CHECKING:
    from swell.sdk.marks import Given

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Queueing(NamedTuple):
    """What `with_queueing()` said of calls."""

    priority: int = 0
    delay_s: float = 0.0
    idempotency_key: str = ""
    """The user's own; empty: each call is another one."""
    timeout_s: float = 0.0
    """What each try may take, of what its function gives; 0: all of that."""

    def over(self, given: Given) -> Queueing:
        """With what was given, which counts over what there is. SwellError where it cannot be."""
        from swell.sdk import quantities

        priority, delay, key = (given.values[name] for name in ("priority", "delay", "idempotency_key"))
        changes: dict[str, Any] = {}
        if priority is not None:
            if type(priority) is not int or not -PRIORITY_MAX <= priority <= PRIORITY_MAX:
                why = f"give a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}"
                raise quantities.bad(given, "priority", why)
            changes["priority"] = priority
        if delay is not None:
            if type(delay) not in (int, float) or not 0 <= delay <= DELAY_MAX_S:
                raise quantities.bad(given, "delay", f"give seconds from 0 to {DELAY_MAX_S:.0f}")
            changes["delay_s"] = float(delay)
        if key is not None:
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                raise quantities.bad(given, "idempotency_key", "give 1 to 255 characters of ASCII, without spaces")
            changes["idempotency_key"] = key
        if given.values["timeout"] is not None:
            changes["timeout_s"] = quantities.seconds(given, "timeout", 0.0)
        return self._replace(**changes)

    @property
    def headers(self) -> dict[str, str]:
        """As the server is told, but for the key."""
        found = {http.PRIORITY: str(self.priority)}
        if self.delay_s:
            found[http.DELAY] = f"{self.delay_s:.3f}"
        if self.timeout_s:
            found[http.TIMEOUT] = f"{max(self.timeout_s, 0.001):.3f}"
        return found


IN_TURN = Queueing()
