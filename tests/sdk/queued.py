"""What does the server of tests have in its queue? Single calls, and groups of them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from swell.wire import call_rows, http


class Queued:
    """A call in the queue; it runs when it is asked for once it may."""

    def __init__(self, id: str, target: str, key: str, body: bytes) -> None:
        self.id = id
        self.target = target
        self.key = key
        self.body = body
        self.state = "queued"
        self.code = "cancelled"
        """Of the error that it ended in."""
        self.may_run = True

    @property
    def row(self) -> bytes:
        namespace, app, function = (
            self.target.split("/") if self.target.count("/") == 2 else ("default", *self.target.split("/"))
        )
        row = call_rows.CallRow(self.id, self.state, namespace, app, function, 1.0, 1.0, 0)  # type: ignore[arg-type]
        return msgspec.json.encode(row)


class Many:
    """A group of calls; each runs as soon as it is accepted, a few at a time."""

    def __init__(self) -> None:
        self.inputs: dict[int, bytes] = {}
        self.taken: list[int] = []
        """The numbers of all that were accepted."""
        self.ends: list[call_rows.GroupEndRow] = []
        self.problem: http.ErrorBody | None = None
        self.cancelled = False
        self.keep_s = ""
        self.pages = 0
        """So many were told."""
        self.had = 0
        """What ended up to that number was had."""
        self.changed = threading.Condition()
        self.workers = ThreadPoolExecutor(8)

    @property
    def open(self) -> int:
        return len(self.taken) - len(self.ends)

    def page(self, after: int, most: int, wait_s: float) -> call_rows.GroupPage:
        with self.changed:
            self.changed.wait_for(lambda: len(self.ends) > after, wait_s)
            ends = tuple(self.ends[after : after + most])
            self.pages += 1
            last = after + len(ends)
            return call_rows.GroupPage(ends, last) if ends else call_rows.GroupPage((), last, self.open, self.problem)

    def forget(self, had: int) -> None:
        """The numbers of its inputs, too: whoever sent one of these again would have it run again."""
        with self.changed:
            for end in self.ends[self.had : had]:
                self.inputs.pop(end.index, None)
            self.had = max(self.had, had)
            self.changed.notify_all()

    def end(self, index: int, status: int, kind: str, body: bytes) -> None:
        with self.changed:
            state: Any = "done" if status == 200 else "failed"
            self.ends.append(call_rows.GroupEndRow(f"fc-{index}", index, state, status, kind, body))
            self.changed.notify_all()
