"""What does a program do with what is large: results that stay on the server, and arguments that are too large?"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

import swell
from sdk.test_map_queue import end_of
from swell.sdk import group as group_module
from swell.sdk import mapping
from swell.sdk.bridge import drive
from swell.sdk.protocol import Request
from swell.wire import call_rows, http


def test_a_large_result_stays_on_the_server_until_its_turn() -> None:
    class Server:
        async def result(self, id: str) -> mapping.Answer:
            return mapping.Answer(200, {}, id.encode())

    outcomes = mapping.Outcomes(cast(mapping.Group, Server()))
    large = call_rows.GroupEndRow("fc-1", 1, "done", 413, http.JSON, b"{}", apart=True)
    for end in (end_of(0), large):
        outcomes.put_end(end)
    outcomes.put_page(call_rows.GroupPage((end_of(0), large), 7))
    assert (outcomes.size, outcomes.had()) == (1, 0)
    assert drive(outcomes.pop(1)).body == b"fc-1"
    assert outcomes.had() == 7


@pytest.mark.parametrize("room_s", [60.0, -1.0])
def test_a_map_waits_for_room_that_its_own_large_results_take_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, room_s: float
) -> None:
    monkeypatch.setattr(group_module, "ROOM_S", room_s)
    monkeypatch.setattr(group_module, "FULL_S", 0.0)
    asked = 0

    class Full(group_module.Group):
        async def _answer(self, request: Request, *_: Any, **_named: Any) -> mapping.Answer:
            nonlocal asked
            asked += 1
            if asked < 4:
                return mapping.Answer(507, {}, http.error_body("results_full", "There is no room."))
            return mapping.Answer(202, {}, b'{"accepted": 1}')

    request = Request("POST", "/call/a/f", {"accept": http.PICKLE, "content-type": http.PICKLE}, b"1")
    sending = Full(cast(group_module.Client, None), "fg-1")._send([request], 0, 0.0)
    if room_s > 0:
        assert asyncio.run(sending) == 1
        return
    with pytest.raises(swell.exception.ResourceExhaustedError, match="no room"):
        asyncio.run(sending)
    assert asked == 1
