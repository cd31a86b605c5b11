"""Is what was said of the machine's going read as it was said, and is what runs there told of it?"""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.runtime.channel import Channel
from swell.runtime.runner import departure
from swell.sdk.here import stopping
from swell.wire import context
from swell.wire.child import Down, Leaving, Reattach
from swell.wire.frames import pack


@pytest.mark.parametrize(
    ("text", "at"),
    [("1700000000.5\n", 1_700_000_000.5), ("", None), ("soon", None), ("nan", None), ("inf", None), (None, None)],
)
def test_when_the_node_goes_is_what_the_file_says_where_it_says_that(
    tmp_path: Path, text: str | None, at: float | None
) -> None:
    if text is not None:
        (tmp_path / "leaving").write_text(text)
    assert departure.leaving_at(tmp_path / "leaving") == at


class Child:
    """A replica, whose link may break, be made anew, or not carry what is said."""

    def __init__(self) -> None:
        self.keeps = True
        self.warned: object | None = None
        self.breaks = False
        self.attach()

    def attach(self) -> None:
        """It came back by another link. It knows nothing of before."""
        self.link = SimpleNamespace(send=self._hear)
        self.told = False

    def _hear(self, message: Leaving) -> None:
        if self.breaks:
            raise OSError
        assert message.soon != self.told, "nothing is said twice"
        self.told = message.soon


@given(st.lists(st.sampled_from(["leave", "stay", "attach", "break", "mend", "earlier", "tick"])))
def test_a_replica_is_told_as_soon_as_it_can_be_and_once_by_each_link(steps: list[str]) -> None:
    child, leaving = Child(), False
    for step in [*steps, "mend", "tick"]:
        match step:
            case "leave" | "stay":
                leaving = step == "leave"
            case "attach":
                child.attach()
            case "break" | "mend":
                child.breaks = step == "break"
            case "earlier":
                child.keeps = False
        if step == "tick":
            before = child.told
            departure.tell([child], leaving)
            assert child.told == (before if child.breaks or not child.keeps else leaving)


def test_what_works_at_a_replica_sees_that_its_machine_goes_and_that_it_stays() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(ours, "", 1.0, lambda: Reattach("r1-1", 7, True), lambda _reason: None)

        def hears(message: Down) -> bool:
            channel.data_received(pack(message))
            return stopping()

        try:
            assert hears(Leaving(True))
            assert not hears(Leaving(False))
        finally:
            context.leaving.clear()
