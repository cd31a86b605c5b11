"""The same class twice, as it is and in a sandbox: what a wake costs more is the sandbox.

A replica goes after a second without work, so that there can be a wake every other second.
"""

import json

import swell

app = swell.App("bench-sandbox")


class Loaded:
    """A service whose templates have something to lose."""

    @swell.enter(snap=True)
    def load(self) -> None:
        """In the template."""
        self.table = json.loads(json.dumps({str(each): each for each in range(100_000)}))

    @swell.method()
    def look(self, key: str) -> int:
        """What is there."""
        return self.table[key]


@app.cls(scaledown_window=1, enable_memory_snapshot=True)
class Plain(Loaded):
    """Forked from a template."""


@app.cls(scaledown_window=1, enable_memory_snapshot=True)
@swell.isolated()
class Walled(Loaded):
    """Forked from a template in a sandbox."""
