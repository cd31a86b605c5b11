"""Is a call that is to be worked on later given to control whole, and answered with its id only once control has it?"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from holders import CI, SLOW, bearer, give, key, said
from rig import CALL_KEY, KEY, Answer, Browser, Rig, request, route, until

from swell.gateway import queueing
from swell.gateway.queueing import is_later
from swell.model.call import Body
from swell.model.errors import SwellError
from swell.model.limits import Limits
from swell.model.traffic import Branch
from swell.model.variant import Parameter, Value
from swell.model.workload import Method, Variant
from swell.wire.calls import NewCall, Submit, Submitted
from swell.wire.http import JSON, PICKLE

Play = Callable[..., None]
LATER = {"Swell-Async": "true"}
ID = "fc-01JD8S6YH0000000000000000A"


async def asked(rig: Rig, count: int = 1) -> list[Submit]:
    """What control was asked to accept, once it was asked so often."""
    await until(lambda: len(rig.control.of(Submit)) >= count, "control is asked")
    found: list[Submit] = rig.control.of(Submit)
    return found


def send(browser: Browser, path: str = "/call/app/fn", body: bytes = b"[1]", **headers: str) -> None:
    browser.send(request(path, body, **{**LATER, **headers}))


async def accepted(rig: Rig, browser: Browser, **headers: str) -> NewCall:
    """Send a call, have control accept it, and return what that was told."""
    before = len(rig.control.of(Submit))
    send(browser, **headers)
    told = (await asked(rig, before + 1))[-1]
    rig.control.say(Submitted(told.ask, ID))
    assert (await browser.answer()).status == 202
    return told.call


def test_a_call_is_answered_with_its_id_once_control_has_it(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica)
        browser = await rig.browser()
        send(browser, body=b'{"x": 1}', **{"Content-Type": JSON, "Accept": "text/html, application/msgpack;q=1"})
        (told,) = await asked(rig)
        assert told.call == NewCall("default/app/fn", "fn", Body(JSON, b'{"x": 1}'), "application/msgpack")
        rig.control.say(Submitted(told.ask, ID))
        answer = await browser.answer()
        assert (answer.status, json.loads(answer.body)) == (202, {"id": ID})
        assert answer.headers["location"] == f"/calls/{ID}"
        assert answer.names[0] == "swell-request-id"
        # The connection goes on, for plain calls too; and no replica had anything of it.
        assert (await browser.call("/call/app/fn", b"plain")).body == b"plain"
        assert len(replica.seen) == 1
        assert not rig.front.queueing._asked
        assert rig.shared.held_bytes == 0

    play(scenario)


def test_what_it_asks_for_is_told(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        plain = await accepted(rig, browser)
        assert (plain.priority, plain.delay_s, plain.idempotency_key, plain.accept) == (0, 0.0, "", "")
        assert plain.input == Body(JSON, b"[1]")
        full = await accepted(
            rig, browser, **{"Swell-Priority": "-7", "Swell-Delay": "1h30m", "Idempotency-Key": "order-17"}
        )
        assert (full.priority, full.delay_s, full.idempotency_key) == (-7, 5400.0, "order-17")
        assert (await accepted(rig, browser, **{"Swell-Delay": "0.5", "Swell-Priority": "+100"})).delay_s == 0.5
        assert (plain.timeout_s, (await accepted(rig, browser, **{"Swell-Timeout": "1.5"})).timeout_s) == (0.0, 1.5)

    play(scenario)


def test_a_body_in_pieces_is_waited_for(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        head = b"POST /call/app/fn HTTP/1.1\r\nhost: x\r\nswell-async: true\r\ntransfer-encoding: chunked\r\n"
        browser.send(head + b"expect: 100-continue\r\n\r\n")
        browser.send(b"%x\r\n%b\r\n" % (70_000, b"a" * 70_000))
        await until(lambda: rig.shared.held_bytes == 70_000, "the first piece")
        assert not rig.control.of(Submit)
        browser.send(b"%x\r\n%b\r\n0\r\n\r\n" % (70_000, b"b" * 70_000))
        (told,) = await asked(rig)
        assert told.call.input.data == b"a" * 70_000 + b"b" * 70_000
        assert rig.shared.held_bytes == 140_000
        rig.control.say(Submitted(told.ask, ID))
        assert (await browser.answer()).status == 202
        assert rig.shared.held_bytes == 0

    play(scenario)


@pytest.mark.parametrize("chunked", [False, True])
def test_more_than_may_wait_is_refused(play: Play, chunked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queueing, "INPUT_MAX", 1000)

    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        if chunked:
            browser.send(
                b"POST /call/app/fn HTTP/1.1\r\nhost: x\r\nswell-async: 1\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            browser.send(b"3e8\r\n%b\r\n" % bytes(1000))
            await until(lambda: rig.shared.held_bytes == 1000, "as much as may be")
            browser.send(b"1\r\nx\r\n0\r\n\r\n")
        else:
            send(browser, body=bytes(1001))
        answer = await browser.answer()
        assert (answer.status, answer.error["code"]) == (413, "body_too_large")
        assert "volume" in answer.error["message"]
        assert not rig.control.of(Submit)
        assert rig.shared.held_bytes == 0

    play(scenario)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Swell-Async": "perhaps"}, "Swell-Async is true or false"),
        ({"Swell-Async": "false", "Swell-Delay": "1"}, "send Swell-Async: true as well"),
        ({"Swell-Priority": "101"}, "from -100 to 100"),
        ({"Swell-Priority": "1.5"}, "whole number"),
        ({"Swell-Priority": ""}, "whole number"),
        ({"Swell-Delay": "-1"}, "30 days at most"),
        ({"Swell-Delay": "31d"}, "30 days at most"),
        ({"Swell-Delay": "nan"}, "30 days at most"),
        ({"Swell-Delay": "soon"}, "10m"),
        ({"Swell-Timeout": "0"}, "seconds above zero"),
        ({"Swell-Timeout": "soon"}, "seconds above zero"),
        ({"Idempotency-Key": ""}, "1 to 255 characters"),
        ({"Idempotency-Key": "a b"}, "without spaces"),
        ({"Idempotency-Key": "x" * 256}, "1 to 255 characters"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(play: Play, headers: dict[str, str], words: str) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        send(browser, **headers)
        answer = await browser.answer()
        assert (answer.status, answer.error["code"]) == (400, "bad_request")
        assert words in answer.error["message"]
        assert not rig.control.of(Submit)

    play(scenario)


def test_compressed_arguments_are_refused_in_words(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        send(browser, **{"Content-Encoding": "gzip"})
        answer = await browser.answer()
        assert (answer.status, answer.error["code"]) == (415, "bad_body")
        assert "compressed ('gzip')" in answer.error["message"]
        assert not rig.control.of(Submit)

    play(scenario)


def test_twice_the_same_header_is_none() -> None:
    assert is_later([(b"swell-async", b"TRUE")])
    assert not is_later([(b"swell-async", b"0")])
    with pytest.raises(SwellError, match="twice"):
        is_later([(b"swell-async", b"true"), (b"swell-async", b"false")])


def test_false_is_a_plain_call(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica)
        browser = await rig.browser()
        answer = await browser.call("/call/app/fn", b"now", **{"Swell-Async": "false"})
        assert (answer.status, answer.body) == (200, b"now")
        assert "Swell-Async".lower() not in {name.lower() for name in replica.seen[0].headers}

    play(scenario)


def test_a_head_that_asks_for_it_is_not_taken_for_one_that_does_not(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        # Heads are remembered byte for byte: each of these twice.
        for _ in range(2):
            assert (await browser.call("/call/app/fn", b"plain")).body == b"plain"
            assert (await accepted(rig, browser)).input.data == b"[1]"

    play(scenario)


def test_parameters_are_part_of_what_is_called(play: Play) -> None:
    import msgspec

    async def scenario(rig: Rig) -> None:
        declared = msgspec.structs.replace(route("Model", Method("go")), parameters=(Parameter("name", "str"),))
        name = "Model" + Variant((Value("name", "str", "x"),)).name
        replica = await rig.replica()
        await rig.deploy(replica, name=name, methods=(Method("go"),))
        rig.control.publish(routes=(declared,))
        await rig.seen()
        browser = await rig.browser()
        send(browser, "/call/app/Model.go?name=x")
        (told,) = await asked(rig)
        assert (told.call.workload, told.call.method) == (f"default/app/{name}", "go")

    play(scenario)


def test_one_version_alone_and_models_of_other_protocols_cannot_wait(play: Play) -> None:
    import msgspec
    from rig import pool_row

    from swell.model.openai import Offer

    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        method = Method("fn", openai=Offer("chat.completions", "m"))
        await rig.deploy(replica, methods=(method,))
        branch = Branch("default/app/fn@rv-000000000002", 2, (method,), tag="next")
        row = msgspec.structs.replace(route("fn", method), branches=(branch,), version=1)
        rig.control.publish(routes=(row,), pools=(pool_row("fn", replica, pool=branch.pool),))
        await rig.seen()
        browser = await rig.browser()
        for path, body in (("/call/app@next/fn", b"[]"), ("/v1/chat/completions", b'{"model": "m"}')):
            send(browser, path, body)
            answer = await browser.answer()
            assert answer.status == 400
            assert "Swell-Async" in answer.error["message"]
        # To whichever version a share of the requests goes, a queued call is for the workload.
        send(browser)
        assert (await asked(rig))[-1].call.workload == "default/app/fn"

    play(scenario)


# -- who may ---------------------------------------------------------------------------------------


def test_pickles_are_of_those_who_may_deploy(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        await give(rig, CI, key("de222222", "deploy:default/app"))
        browser = await rig.browser()
        for headers in ({"Content-Type": f"{PICKLE}; v=5"}, {"Accept": f"text/plain, {PICKLE}"}):
            for who in ({}, {"authorization": bearer(CI.id)}):
                send(browser, **headers, **who)
                answer = await browser.answer()
                assert said(answer) == (401, "no_key")
                assert "deploy" in answer.error["message"]
            for shown, id in ((KEY, ""), (CALL_KEY, ""), (bearer("de222222")[7:], "de222222")):
                call = await accepted(rig, browser, **headers, authorization=f"Bearer {shown}")
                assert call.key == id
        # What comes behind the first type that is known asks for nothing.
        assert (await accepted(rig, browser, Accept=f"{JSON}, {PICKLE}")).accept == JSON

    play(scenario)


def test_who_may_not_call_may_not_have_it_done_later(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        await give(rig, key("ot222222", "call:default/other"))
        browser = await rig.browser()
        for headers, told in (
            ({"authorization": "Bearer wrong"}, (401, "bad_key")),
            ({"authorization": bearer("ot222222")}, (403, "no_scope")),
            ({"origin": "http://elsewhere.example"}, (403, "bad_origin")),
        ):
            send(browser, **headers)
            assert said(await browser.answer()) == told
        send(browser, "/call/app/gone")
        assert (await browser.answer()).status == 404
        browser.send(request("/call/app/fn", method="GET", **LATER))
        assert (await browser.answer("GET")).status == 405
        assert not rig.control.of(Submit)

    play(scenario)


def test_a_rate_counts_it_and_what_is_under_way_does_not_once_it_is_accepted(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), limits=Limits(concurrency=1, burst=3, **SLOW))
        one, other = await rig.browser(), await rig.browser()
        send(one)
        (told,) = await asked(rig)
        send(other)
        assert said(await other.answer()) == (429, "too_many_in_flight")
        rig.control.say(Submitted(told.ask, ID))
        assert (await one.answer()).status == 202
        await accepted(rig, other)
        await accepted(rig, other)
        send(other)
        assert said(await other.answer()) == (429, "rate_limited")

    play(scenario)


# -- control ---------------------------------------------------------------------------------------


def test_what_control_refuses_is_told(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        for number, (status, code) in enumerate(((507, "state_full"), (400, "bad_request"), (503, "busy")), 1):
            send(browser)
            told = (await asked(rig, number))[-1]
            rig.control.say(Submitted(told.ask, "", status, code, "Why not."))
            answer = await browser.answer()
            assert (answer.status, answer.error["code"], answer.error["message"]) == (status, code, "Why not.")
            assert ("retry-after" in answer.headers) == (status == 503)

    play(scenario)


def test_without_control_nothing_is_accepted(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        await rig.control.stop()
        await until(lambda: rig.gateway._link is not None and rig.gateway._link.wire is None, "the link is lost")
        send(browser)
        answer = await browser.answer()
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "control_down", "1")
        assert (await browser.call("/call/app/fn", b"plain")).body == b"plain"
        await rig.control.start()
        await until(lambda: rig.gateway._link is not None and rig.gateway._link.wire is not None, "the link is back")
        await accepted(rig, browser)

    play(scenario)


def test_whoever_control_did_not_answer_is_told_that_nobody_knows(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        send(browser)
        await asked(rig)
        await rig.control.stop()
        answer = await browser.answer()
        assert (answer.status, answer.error["code"]) == (502, "control_down")
        assert "Idempotency-Key" in answer.error["message"]
        assert (rig.front.queueing._asked, rig.front.queueing._numbers) == ({}, {})

    play(scenario)


def test_a_control_that_says_nothing_is_not_waited_for_for_ever(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        one, other = await rig.browser(), await rig.browser()
        send(one)
        # That is for its run, and not for being accepted.
        send(other, **{"Swell-Timeout": "0.01"})
        assert said(await other.answer()) == said(await one.answer()) == (502, "control_down")
        # Its word comes too late, and means nothing.
        for told in await asked(rig, 2):
            rig.control.say(Submitted(told.ask, ID))
        # Both were read once the link is seen to have ended. Nobody was answered a second time.
        await rig.control.stop()
        await until(lambda: rig.gateway._link is not None and rig.gateway._link.wire is None, "the link broke")
        send(one)
        assert said(await one.answer()) == (503, "control_down")

    play(scenario, hold_s=0.3)


def test_of_who_leaves_nothing_is_kept(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        early, late = await rig.browser(), await rig.browser()
        head = b"POST /call/app/fn HTTP/1.1\r\nhost: x\r\nswell-async: true\r\ncontent-length: 9\r\n\r\nhalf"
        early.send(head)
        send(late)
        (told,) = await asked(rig)
        await until(lambda: rig.shared.held_bytes == 7, "both are held")
        early.close()
        late.close()
        await until(lambda: rig.shared.held_bytes == 0, "both are forgotten")
        queue = rig.front.queueing
        assert (queue._news, queue._asked, queue._numbers) == ({}, {}, {})
        rig.control.say(Submitted(told.ask, ID))
        await accepted(rig, await rig.browser())

    play(scenario)


def test_the_bytes_of_all_that_wait_are_bounded(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        one, other = await rig.browser(), await rig.browser()
        send(one, body=bytes(400))
        (told,) = await asked(rig)
        send(other, body=bytes(400))
        assert said(await other.answer()) == (429, "too_many_held")
        rig.control.say(Submitted(told.ask, ID))
        assert (await one.answer()).status == 202
        await accepted(rig, other)

    play(scenario, hold_bytes_max=600)


# -- what became of it -----------------------------------------------------------------------------


async def told_by_control(rig: Rig, browser: Browser, path: str, method: str = "GET", **headers: str) -> Answer:
    return await browser.call(path, b"", method, **headers)


def test_calls_are_asked_for_below_the_api(play: Play) -> None:
    from rig import Replica

    async def scenario(rig: Rig) -> None:
        api = await Replica("api", str(rig.settings.paths.api_socket), native=False).start()
        rig.replicas.append(api)
        browser = await rig.browser()
        for method, path in (
            ("GET", f"/calls/{ID}?wait_s=3"),
            ("GET", f"/calls/{ID}/result?wait_s=3"),
            ("DELETE", f"/calls/{ID}"),
        ):
            # Who needs no key to call needs none for this.
            await browser.call(path, b"", method)
            assert (api.seen[-1].method, api.seen[-1].target) == (method, f"/api{path}")
            assert api.seen[-1].headers["authorization"] == f"Bearer {KEY}"
            await browser.call(path, b"", method, authorization="Bearer mine")
            assert api.seen[-1].headers["authorization"] == "Bearer mine"
        seen = len(api.seen)
        for path in (
            "/calls",
            "/calls/",
            "/calls/keys",
            f"/calls/{ID}/retry",
            f"/calls/{ID}/../../keys",
            "/calls/fc-%2e",
        ):
            assert (await browser.call(path, method="GET")).status == 404
        assert len(api.seen) == seen

    play(scenario)


def test_where_calls_need_a_key_so_do_their_results(play: Play) -> None:
    from rig import Replica

    async def scenario(rig: Rig) -> None:
        api = await Replica("api", str(rig.settings.paths.api_socket), native=False).start()
        rig.replicas.append(api)
        rig.front.door.locked = True
        browser = await rig.browser()
        answer = await browser.call(f"/calls/{ID}", method="GET")
        assert said(answer) == (401, "no_key")
        assert not api.seen

    play(scenario)


def test_what_a_gang_works_on_comes_by_the_queue_alone(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica, gang=True)
        browser = await rig.browser()
        # Known by then, or not.
        for _ in range(2):
            answer = await browser.call("/call/app/fn", b"[1]")
            assert (answer.status, answer.error["code"]) == (400, "is_job")
            assert "Swell-Async: true" in answer.error["message"]
            assert "swell job run" in answer.error["message"]
            await accepted(rig, browser)
        assert not replica.seen

    play(scenario)
