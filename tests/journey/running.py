"""How does a test have one small thing deployed for a while, with arguments of its choice?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import swell
from journey.apps import subject


@contextmanager
def running(kind: str, app: swell.App | None = None, **given: Any) -> Iterator[swell.Function]:
    """What takes `subject.do`'s arguments, deployed as a function or as a method of a class."""
    app = app or swell.App("subject")
    do = app.function(**given)(subject.do) if kind == "function" else app.cls(**given)(subject.Subject)().do
    with app.run():
        yield do
