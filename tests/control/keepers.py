"""What is around a keeper of secrets or volumes: a clock that stands still, and apps that use what it keeps."""

from __future__ import annotations

from typing import Any

from swell.model.environment import Environment
from swell.model.workload import App, Entry, Method, Revision, Workload


class Clock:
    at = 100.0

    def now(self) -> float:
        return self.at


def user(name: str, **uses: Any) -> App:
    """An app whose one function has these `secrets` or `volumes`."""
    entry = Entry("m", "f", "function", (Method("f"),))
    revision = Revision(Environment("/usr/bin/python3", "3.11"), "sha256-0", entry, **uses)
    return App("default", name, (Workload("default", name, "f", revision.id),), (revision,))
