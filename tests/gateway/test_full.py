"""What is a client told when the gateway has all the connections it may have?"""

from __future__ import annotations

import math
import resource
from collections.abc import Callable

import pytest
from rig import Rig, request, until

from swell.gateway.app import connections_max
from swell.gateway.client import REFUSED_MAX

Play = Callable[..., None]


def test_more_connections_than_may_be_are_refused_in_words(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        rig.shared.connections_max = 3
        served = [await rig.browser() for _ in range(3)]
        await until(lambda: len(rig.gateway.clients) == 3, "all are accepted")
        for n in range(2):
            # Before it says anything, and after.
            late = await rig.browser()
            if n:
                late.send(request("/call/app/fn", b"x"))
            answer = await late.answer()
            assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "busy", "1")
            assert await late.rest() == b""
            late.close()
            await until(lambda: len(rig.gateway.clients) == 3, "it is gone")
        for browser in served:
            assert (await browser.call("/call/app/fn", b"x")).body == b"x"
        assert caplog.text.count("3 connections are open") == 1
        served.pop().close()
        await until(lambda: len(rig.gateway.clients) == 2, "one left")
        assert (await (await rig.browser()).call("/call/app/fn", b"x")).body == b"x"

    play(scenario)


def test_a_flood_of_connections_is_not_answered(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        rig.shared.connections_max = 1
        await rig.browser()
        flood = [await rig.browser() for _ in range(REFUSED_MAX + 20)]
        await until(lambda: len(rig.gateway.clients) <= REFUSED_MAX + 1, "those beyond are closed")
        told = [await browser.rest() for browser in flood]
        assert sum(b"503" in words for words in told) >= REFUSED_MAX
        assert b"" in told

    play(scenario)


@pytest.mark.parametrize(
    ("descriptors", "most"),
    [(1, 1), (256, 64), (1024, 448), (524_288, 262_080), (resource.RLIM_INFINITY, math.inf)],
)
def test_each_client_may_need_two_descriptors(descriptors: int, most: float) -> None:
    assert connections_max(descriptors) == most
