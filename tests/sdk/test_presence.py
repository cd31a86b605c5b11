"""Is every line of a log passed on, and once, however often it is read from its start again?"""

from __future__ import annotations

from concurrent.futures import CancelledError
from random import Random

import pytest

from sdk.server import KEY, serving
from swell.sdk import transport
from swell.sdk.client import Client
from swell.sdk.presence import Once, me
from swell.wire.api import LogRow


@pytest.mark.parametrize("last", [200, 404])
def test_a_program_says_that_it_is_there_as_often_as_the_server_wants_to_hear_it(
    last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after control was away for a moment; never again to one that sees for itself, or is older than that."""
    monkeypatch.setattr(transport, "REPEAT_S", 1.0)
    with serving({}) as server:
        server.owner_answers = [(503, 0.0), (200, 0.01), (502, 0.0), (200, 0.01), (last, 0.0)]
        client = Client(server.url, KEY)
        done = client.present(me())
        assert done.result(120) is None
        heard = [server.owners.get_nowait() for _ in range(server.owners.qsize())]
        # An answer that took too long was asked for once more.
        assert len(heard) >= 5
        assert set(heard) == {me()}
        assert server.owner_answers == []
    # Nobody is there: it goes on trying, until it is told not to.
    trying = client.present(me())
    assert not trying.done()
    trying.cancel()
    with pytest.raises(CancelledError):
        trying.result(60)


@pytest.mark.parametrize("seed", range(200))
def test_each_line_is_passed_on_once(seed: int) -> None:
    draw = Random(seed)
    at, lines = 100.0, []
    for number in range(draw.randrange(40)):
        # Several may have the same time.
        at += draw.choice((0.0, 0.0, 0.5))
        lines.append(LogRow(at, "default/app/f@rv-1", "r1-1", "", "out", str(number)))
    heard: list[LogRow] = []
    once = Once(heard.append)
    there = 0
    while len(heard) < len(lines):
        once.begin()
        # What was written meanwhile is there, too; it breaks off anywhere.
        there = draw.randint(there, len(lines))
        for line in lines[: draw.randint(0, there)]:
            once(line)
    assert heard == lines


def test_a_line_that_is_late_is_passed_on_while_nothing_broke() -> None:
    heard: list[LogRow] = []
    once = Once(heard.append)
    once.begin()
    rows = [LogRow(at, "default/app/f@rv-1", "r1-1", "", "out", "") for at in (2.0, 1.0, 3.0)]
    for row in rows:
        once(row)
    assert heard == rows
