"""A program's app, whose program ends before its calls are due."""

from __future__ import annotations

import swell

app = swell.App("brief")


@app.function()
def one() -> int:
    return 1
