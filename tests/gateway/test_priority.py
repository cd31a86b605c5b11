"""Who may have calls in the queue go before those of others?"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from holders import bearer, give, key, said
from rig import CALL_KEY, KEY, Rig
from test_queueing import accepted, send

from swell.wire.calls import Submit

Play = Callable[..., None]


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        (["call:default/app"], False),
        (["call:*/*", "deploy:default/other", "deploy:other/*"], False),
        (["call:default/app", "deploy:default/app"], True),
        (["deploy:default/*"], True),
        (["admin"], True),
    ],
)
def test_a_key_that_goes_before_others_may_deploy(play: Play, scopes: list[str], may: bool) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        await give(rig, key("so222222", *scopes))
        browser = await rig.browser()
        theirs, ours = {"authorization": bearer("so222222")}, {"authorization": f"Bearer {KEY}"}
        code = {"authorization": f"Bearer {CALL_KEY}"}
        for priority, shown in itertools.product((-100, 0, 1, 100), ({}, ours, code, theirs)):
            asks = {"Swell-Priority": str(priority), **shown}
            if may or priority <= 0 or shown is not theirs:
                assert (await accepted(rig, browser, **asks)).priority == priority
                continue
            before = len(rig.control.of(Submit))
            send(browser, **asks)
            answer = await browser.answer()
            assert said(answer) == (403, "no_scope")
            assert "`swell key create NAME --scope deploy:default/app`" in answer.error["message"]
            assert len(rig.control.of(Submit)) == before

    play(scenario)
