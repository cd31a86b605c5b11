"""A server of actors: `python stage.py HOME SETTINGS PARTS` runs the real one with these programs in its places.

SETTINGS and PARTS are JSON; PARTS maps a process's name to the parts its actor plays; a supervisor that `gathers`
hears of what happens at nearly the same time at once, one that is `disturbed` is told to end while it clears away.
Writes "up URL" to stdout once ready; ends with 1 and the message on stderr when it cannot start or stay.
"""

from __future__ import annotations

import json
import os
import selectors
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from swell.model.errors import SwellError
from swell.supervise import clients, supervisor
from swell.supervise.server import run
from swell.wire.paths import Home

ACTOR = str(Path(__file__).with_name("actor.py"))


class Gathering(selectors.DefaultSelector):
    """What happens within a moment is told together, signals first: a child's death before its last words."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if not super().select(timeout):
            return []
        time.sleep(0.05)
        return sorted(super().select(0), key=lambda told: told[0].fd)


def main() -> int:
    home, settings, parts = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])

    def command(name: str, words: Sequence[str]) -> Sequence[str]:
        return [sys.executable, ACTOR, str(home.with_suffix(".notes")), name, *parts.get(name, ()), *words]

    if "gathers" in parts.get("supervisor", ()):
        supervisor.selectors.DefaultSelector = Gathering

    if "disturbed" in parts.get("supervisor", ()):
        forget = clients.forget

        def disturbed(home: Home) -> None:
            for number in supervisor.ENDING:
                os.kill(os.getpid(), number)
            forget(home)

        clients.forget = disturbed

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def up(holder: object) -> None:
        sys.stdout.write(f"up {holder.url}\n")
        sys.stdout.flush()

    try:
        run(
            {
                "home": str(home),
                "host": "127.0.0.1",
                "port": 0,
                "restarts_max": 5,
                "restarts_within_s": 60.0,
                "drain_s": 30.0,
                "policy": {"stop_grace_s": 30.0},
                **settings,
            },
            up,
            say,
            attached=[int(word) for word in sys.argv[4:]],
            command=command,
        )
    except SwellError as error:
        say(f"{error.code}: {error.message}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
