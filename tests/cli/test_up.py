"""Is whoever starts a server told that other machines reach it, and how they are let in?"""

from __future__ import annotations

import pytest

from swell.cli.up import _say_up
from swell.supervise.lock import Holder
from swell.wire.settings import Settings


@pytest.mark.parametrize(
    ("host", "open_to_others"),
    [
        ("127.0.0.1", False),
        ("localhost", False),
        ("::1", False),
        ("0.0.0.0", True),
        ("::", True),
        ("", True),
        ("192.0.2.1", True),
    ],
)
def test_a_server_that_is_open_to_the_network_says_so_and_where_its_key_is(
    host: str, open_to_others: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    _say_up(Holder(1, 1, "ready", host, 8571), Settings("/state"), "Stop it.")
    first, *more = capsys.readouterr().out.splitlines()
    assert first.startswith("Swell is up at http://")
    assert bool(more) == open_to_others
    if open_to_others:
        assert "open to the network" in more[0]
        assert "/state/key" in more[0]
        assert "8571" in more[0]
