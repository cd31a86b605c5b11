"""What becomes of requests whose parameters nobody gave before: control is asked, once, and they come in anew."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from holders import CI, bearer, give
from rig import KEY, Browser, Rig, pool_row, request, route, until, web
from sockets import HANDSHAKE

from swell.model.limits import UNLIMITED, Limits
from swell.model.variant import Parameter, Value
from swell.model.workload import Method, Variant
from swell.wire.link import AskVariant, NoVariant

Play = Callable[..., None]
DECLARED = (Parameter("name", "str"), Parameter("size", "int", "1"))
METHOD = Method("go")
BASE = "default/app/Model"


def name_of(text: str) -> str:
    return "Model" + Variant((Value("name", "str", text),)).name


def deploy(rig: Rig, limits: Limits = UNLIMITED) -> None:
    """The class, without any set of parameters."""
    row = msgspec.structs.replace(route("Model", METHOD, limits=limits), parameters=DECLARED)
    rig.control.publish(routes=(row,), pools=(pool_row("Model"),))


async def make(rig: Rig, text: str, limits: Limits = UNLIMITED) -> None:
    """As control does it: a row and a pool."""
    name = name_of(text)
    pools = (pool_row(name, await rig.replica()),)
    rig.control.publish(routes=(route(name, METHOD, limits=limits),), pools=pools)


async def ask(rig: Rig, body: bytes = b"") -> Browser:
    """The class, and the first request for a set of parameters; control has been asked for it."""
    deploy(rig)
    await rig.seen()
    browser = await rig.browser()
    browser.send(request("/call/app/Model.go?name=x", body))
    await until(lambda: rig.control.of(AskVariant), "control is asked")
    return browser


def test_control_is_asked_once_and_all_who_waited_are_served(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        deploy(rig)
        await rig.seen()
        for number in range(3):
            browser = await rig.browser()
            browser.send(request("/call/app/Model.go?name=x", b"%d" % number))
        await until(lambda: rig.control.of(AskVariant), "control is asked")
        await make(rig, "x")
        assert [(await browser.answer()).body for browser in rig.browsers] == [b"0", b"1", b"2"]
        assert rig.control.of(AskVariant) == [AskVariant(BASE, (Value("name", "str", "x"),))]
        # Now it is known, and stays so.
        rig.browsers[0].send(request("/call/app/Model.go?size=1&name=y", b"again"))
        await until(lambda: len(rig.control.of(AskVariant)) == 2, "another is asked for")
        rig.browsers[1].send(request("/call/app/Model.go?name=%78", b"known"))
        assert (await rig.browsers[1].answer()).body == b"known"
        assert len(rig.control.of(AskVariant)) == 2

    play(scenario)


def test_who_cannot_have_it_is_told_why(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await ask(rig)
        rig.control.say(NoVariant(f"default/app/{name_of('x')}", 429, "too_many_variants", "All are in use."))
        answer = await browser.answer()
        assert (answer.status, answer.error["code"]) == (429, "too_many_variants")
        assert answer.headers["retry-after"] == "1"
        # The next one asks again.
        browser.send(request("/call/app/Model.go?name=x", b"later"))
        await until(lambda: len(rig.control.of(AskVariant)) == 2, "control is asked again")
        await make(rig, "x")
        assert (await browser.answer()).body == b"later"

    play(scenario)


def test_nothing_is_kept_of_what_nobody_waits_for(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await ask(rig)
        browser.close()
        await until(lambda: not rig.gateway._front.deployed.wanting.wants, "it is forgotten")
        # The next one asks again.
        (await rig.browser()).send(request("/call/app/Model.go?name=x", b"later"))
        await until(lambda: len(rig.control.of(AskVariant)) == 2, "control is asked again")
        await make(rig, "x")
        assert (await rig.browsers[1].answer()).body == b"later"

    play(scenario)


def test_of_who_may_not_wait_nothing_is_kept_either(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        deploy(rig)
        await rig.seen()
        (await rig.browser()).send(request("/call/app/Model.go?name=x", bytes(400)))
        await until(lambda: rig.shared.held_bytes == 400, "the first waits")
        refused = await (await rig.browser()).call("/call/app/Model.go?name=y", bytes(400))
        assert (refused.status, refused.error["code"]) == (429, "too_many_held")
        assert [*rig.gateway._front.deployed.wanting.wants] == [f"default/app/{name_of('x')}"]

    play(scenario, hold_bytes_max=600)


def test_what_is_wrong_is_answered_without_control(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        deploy(rig)
        await rig.seen()
        browser = await rig.browser()
        for query, status, code in (
            ("", 422, "missing_parameter"),
            ("?name=x&size=big", 422, "bad_parameter"),
            ("?nme=x", 422, "unknown_parameter"),
        ):
            browser.send(request(f"/call/app/Model.go{query}", b""))
            answer = await browser.answer()
            assert (answer.status, answer.error["code"]) == (status, code)
            assert "allow" not in answer.headers
        for query in ("?name=x", "", "?name=x&size=big", "?nme=x"):
            browser.send(f"GET /call/app/Model.go{query} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
            answer = await browser.answer()
            assert (answer.status, answer.headers.get("allow")) == (405, "POST")
        browser.send(request("/call/app/Model.go?name=x", b"", Authorization="Bearer not-ours"))
        assert (await browser.answer()).error["code"] == "bad_key"
        assert rig.control.of(AskVariant) == []

    play(scenario)


def test_a_websocket_of_what_takes_none_makes_nothing(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        row = msgspec.structs.replace(route("Model", web("page", kind="endpoint")), parameters=DECLARED)
        rig.control.publish(routes=(row,), pools=(pool_row("Model"),))
        await rig.seen()
        browser = await rig.browser()
        browser.send(HANDSHAKE.replace(b"/web/chat/x", b"/web/page/?name=x"))
        answer = await browser.answer()
        assert (answer.status, answer.error["code"]) == (501, "no_websocket")
        assert not rig.control.of(AskVariant)

    play(scenario)


def test_while_control_is_away_what_is_known_goes_on_and_what_is_new_is_told_so(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        deploy(rig)
        await make(rig, "known")
        await rig.seen()
        known, new = await rig.browser(), await rig.browser()
        new.send(request("/call/app/Model.go?name=asked", b"asked"))
        await until(lambda: rig.control.of(AskVariant), "control is asked")
        await rig.control.stop()
        known.send(request("/call/app/Model.go?name=known", b"on"))
        assert (await known.answer()).body == b"on"
        await until(lambda: rig.gateway._link.wire is None, "the gateway has noticed")
        known.send(request("/call/app/Model.go?name=other", b""))
        answer = await known.answer()
        assert (answer.status, answer.error["code"], answer.headers["retry-after"]) == (503, "control_down", "1")
        # Who had asked before asks the next control.
        await rig.control.start()
        await until(lambda: len(rig.control.of(AskVariant)) == 2, "the next one is asked")
        await make(rig, "asked")
        assert (await new.answer()).body == b"asked"

    play(scenario)


def test_control_is_told_whose_key_asks_first(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        deploy(rig)
        await give(rig, CI)
        browser = await rig.browser()
        browser.send(request("/call/app/Model.go?name=x", b"", authorization=bearer(CI.id)))
        await until(lambda: rig.control.of(AskVariant), "control is asked")
        assert rig.control.of(AskVariant) == [AskVariant(BASE, (Value("name", "str", "x"),), CI.id)]
        await make(rig, "x")
        assert (await browser.answer()).status == 200

    play(scenario)


def test_limits_are_of_all_sets_of_parameters_together(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        limits = Limits(rate_per_s=0.001, burst=2)
        deploy(rig, limits)
        for text in "ab":
            await make(rig, text, limits)
        await rig.seen()
        browser = await rig.browser()
        for text, status in (("a", 200), ("b", 200), ("a", 429), ("new", 429)):
            browser.send(request(f"/call/app/Model.go?name={text}", b"", Authorization=f"Bearer {KEY}"))
            assert (await browser.answer()).status == status
        assert rig.control.of(AskVariant) == []

    play(scenario)


def test_who_leaves_while_control_is_asked_is_forgotten(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await ask(rig, b"x" * 1000)
        assert rig.shared.held_bytes == 1000
        browser.close()
        await until(lambda: rig.shared.held_bytes == 0, "its bytes are given back")
        await make(rig, "x")
        await rig.seen()
        assert rig.front.deployed.wanting.wants == {}

    play(scenario)
