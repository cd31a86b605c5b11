"""Are many inputs that come in one request given to control together, each of them whole, as many as limits let in?"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest
from holders import SLOW, said
from hypothesis import given
from hypothesis import strategies as st
from rig import Rig
from test_queueing import ID, asked, send

from swell.gateway.queueing import inputs_of
from swell.model.call import Body
from swell.model.errors import SwellError
from swell.model.limits import Limits
from swell.wire.calls import GROUP_BODY_MAX, Many, Submit, Submitted
from swell.wire.http import FRAMES, JSON, MSGPACK, PICKLE

Play = Callable[..., None]


def framed(*inputs: bytes) -> bytes:
    return b"".join((len(each) + 1).to_bytes(4, "big") + b"i" + each for each in inputs)


OF_GROUP = {"Swell-Group": "fg-01JD8S6YH0000000000000000A", "Content-Type": FRAMES}


def test_many_inputs_come_in_one_request_and_are_accepted_together(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        headers = {**OF_GROUP, "Swell-First": "40", "Swell-Item-Type": MSGPACK, "Swell-Keep": "1h"}
        send(browser, body=framed(b"1", b"", b"333"), **headers)
        (told,) = await asked(rig)
        assert told.call.group == OF_GROUP["Swell-Group"]
        assert told.call.many == Many(40, (b"1", b"", b"333"))
        assert (told.call.input, told.call.keep_s) == (Body(MSGPACK), 3600.0)
        rig.control.say(Submitted(told.ask, ids=(ID, "fc-2", "fc-3")))
        answer = await browser.answer()
        expected = {"group": OF_GROUP["Swell-Group"], "accepted": 3, "ids": [ID, "fc-2", "fc-3"]}
        assert (answer.status, json.loads(answer.body)) == (202, expected)
        assert answer.headers["location"] == f"/calls/groups/{OF_GROUP['Swell-Group']}"
        assert not rig.front.queueing._groups
        assert rig.shared.held_bytes == 0

    play(scenario)


def test_as_many_inputs_are_accepted_as_the_rate_lets_in(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), limits=Limits(burst=3, **SLOW))
        browser = await rig.browser()
        send(browser, body=framed(*[b"1"] * 5), **OF_GROUP)
        (told,) = await asked(rig)
        assert told.call.many == Many(0, (b"1",) * 3)
        rig.control.say(Submitted(told.ask, ids=(ID, "fc-2", "fc-3")))
        assert json.loads((await browser.answer()).body)["accepted"] == 3
        send(browser, body=framed(b"1"), **OF_GROUP)
        assert said(await browser.answer()) == (429, "rate_limited")

    play(scenario)


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({"Swell-Group": "mine"}, framed(b"1"), "bad_request"),
        ({"Swell-Group": ""}, framed(b"1"), "bad_request"),
        ({"Swell-First": "-1"}, framed(b"1"), "bad_request"),
        ({"Swell-Keep": "1s"}, framed(b"1"), "bad_request"),
        ({"Idempotency-Key": "k"}, framed(b"1"), "bad_request"),
        ({"Content-Type": JSON}, b"[]", "bad_request"),
        ({"Swell-Item-Type": PICKLE}, framed(b"1"), "no_key"),
        ({}, b"", "bad_body"),
        ({}, framed(b"1")[:-1], "bad_body"),
        ({}, framed(b"1") + b"\0", "bad_body"),
        ({}, framed(b"1").replace(b"i", b"z"), "bad_body"),
        ({}, framed(*[b""] * 1001), "bad_body"),
    ],
)
def test_what_is_no_group_is_refused(play: Play, headers: dict[str, str], body: bytes, code: str) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        send(browser, body=body, **{**OF_GROUP, **headers})
        assert said(await browser.answer())[1] == code
        assert not rig.control.of(Submit)
        assert not rig.front.queueing._groups
        assert rig.shared.held_bytes == 0

    play(scenario)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=30), st.data())
def test_inputs_are_cut_where_they_were_put_together(inputs: list[bytes], data: st.DataObject) -> None:
    body = framed(*inputs)
    assert inputs_of(body) == tuple(inputs)
    cut = data.draw(st.integers(0, len(body) - 1))
    ends = {0, *itertools.accumulate(len(each) + 5 for each in inputs)}
    if cut in ends - {0}:
        assert inputs_of(body[:cut]) == tuple(inputs[: sorted(ends).index(cut)])
    else:
        with pytest.raises(SwellError):
            inputs_of(body[:cut])


def test_more_than_a_group_may_bring_is_told_with_the_bounds_that_hold_for_it(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        send(browser, body=bytes(GROUP_BODY_MAX + 1), **OF_GROUP)
        answer = await browser.answer()
        assert said(answer) == (413, "body_too_large")
        assert f"{GROUP_BODY_MAX} bytes together" in answer.error["message"]
        assert not rig.control.of(Submit)
        assert rig.shared.held_bytes == 0

    play(scenario)
