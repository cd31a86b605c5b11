"""Is a body that says which model it is for gathered whole, within bounds, and sent to the right one?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from rig import KEY, PATIENCE_S, Rig, echo_after, request, until

from swell.gateway import openai as gathering
from swell.model.openai import Offer
from swell.model.workload import Method

Play = Callable[..., None]
PATH = "/v1/chat/completions"


def model(name: str) -> tuple[Method, ...]:
    return (Method("fn" if name == "m" else name, openai=Offer("chat.completions", name)),)


def body(model: str = "m", size: int = 0) -> bytes:
    return json.dumps({"messages": "x" * size, "model": model}).encode()


def test_a_model_gets_its_requests_with_their_bodies(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        one, other = await rig.replica(), await rig.replica()
        await rig.deploy(one, methods=model("m"))
        await rig.deploy(other, name="other", methods=model("other"))
        browser = await rig.browser()
        for _ in range(2):
            for name, replica in (("m", one), ("other", other)):
                answer = await browser.call(PATH, body(name))
                assert (answer.status, answer.body) == (200, body(name))
                seen = replica.seen[-1]
                assert seen.target == f"/v1/{'fn' if name == 'm' else name}"
        assert (await browser.call(PATH, body("none"))).error["code"] == "model_not_found"
        assert (await browser.call("/v1/models", method="GET")).status == 200
        zipped = await browser.call(PATH, b"\x1f\x8b", **{"Content-Encoding": "gzip"})
        assert (zipped.status, zipped.error["code"]) == (415, "bad_body")
        assert "compressed ('gzip')" in zipped.error["message"]

    play(scenario)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_in_pieces_is_waited_for(play: Play, chunked: bool) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica, methods=model("m"))
        browser = await rig.browser()
        whole = body("m", 300_000)
        length = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % len(whole)
        browser.send(b"POST %b HTTP/1.1\r\nhost: x\r\n%b\r\n\r\n" % (PATH.encode(), length))
        for at in range(0, len(whole), 100_000):
            piece = whole[at : at + 100_000]
            browser.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if at < 300_000:
                await until(lambda: rig.shared.held_bytes > 0, "the first pieces")
                assert not replica.seen
        if chunked:
            browser.send(b"0\r\n\r\n")
        answer = await browser.answer()
        assert (answer.status, answer.body) == (200, whole)
        assert rig.shared.held_bytes == 0
        assert (await browser.call(PATH, body())).status == 200

    play(scenario)


def test_who_asks_whether_to_send_is_told_to(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), methods=model("m"))
        browser = await rig.browser()
        whole = body()
        browser.send(request(PATH, b"", expect="100-continue", content_length=str(len(whole))))
        async with asyncio.timeout(PATIENCE_S):
            assert await browser.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        browser.send(whole)
        assert (await browser.answer()).body == whole

    play(scenario)


def test_a_body_has_bounds_and_so_have_all(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "BODY_MAX", 1000)

    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica, methods=model("m"))
        for more in ({}, {"transfer_encoding": "chunked"}):
            browser = await rig.browser()
            if more:
                browser.send(b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % PATH.encode())
                browser.send(b"7d0\r\n" + b"x" * 2000 + b"\r\n")
                answer = await browser.answer()
            else:
                answer = await browser.call(PATH, body("m", 5000))
            assert (answer.status, answer.error["code"]) == (413, "body_too_large")
        first = await rig.browser()
        first.send(request(PATH, b"", content_length="900") + b"x" * 400)
        await until(lambda: rig.shared.held_bytes == 400, "the first's bytes")
        second = await rig.browser()
        second.send(request(PATH, b"", content_length="900") + b"x" * 400)
        refused = await second.answer()
        assert (refused.status, refused.error["code"]) == (429, "too_many_held")
        assert refused.headers["retry-after"] == "1"
        first.close()
        await until(lambda: rig.shared.held_bytes == 0, "its end")
        assert not replica.seen

    play(scenario, hold_bytes_max=600)


def test_a_body_that_does_not_come_is_given_up(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), methods=model("m"))
        browser = await rig.browser()
        browser.send(request(PATH, b"", content_length="900") + b"x" * 40)
        answer = await browser.answer()
        assert (answer.status, answer.error["code"], rig.shared.held_bytes) == (408, "slow_client", 0)

    play(scenario, body_timeout_s=0.2)


def test_one_that_waits_follows_its_model_to_a_new_revision(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        before = await rig.deploy(methods=model("m"))
        browser = await rig.browser()
        browser.send(request(PATH, body()))
        await until(lambda: rig.front.deployed.pools[before].held_count, "the request's wait")
        replica = await rig.replica()
        await rig.deploy(replica, methods=model("m"), pool="default/app/fn@rv-000000000002")
        assert (await browser.answer()).body == body()
        assert len(replica.seen) == 1

    play(scenario)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_any_key_will_do_where_none_is_needed(play: Play, host: str) -> None:
    """Clients always send one. Where one is needed it is asked for before a byte of the body is kept."""

    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), methods=model("m"))
        browser = await rig.browser()
        for path, method in ((PATH, "POST"), ("/v1/models", "GET"), ("/v1/models/m", "GET")):
            sent: Any = body() if method == "POST" else b""
            other = await browser.call(path, sent, method, authorization="Bearer none")
            assert other.status == (200 if host == "127.0.0.1" else 401), path
            assert (await browser.call(path, sent, method, authorization=f"Bearer {KEY}")).status == 200
        foreign = await browser.call(PATH, body(), authorization="Bearer none", origin="http://evil.example")
        assert foreign.status == (403 if host == "127.0.0.1" else 401)
        if host == "0.0.0.0":
            late = await rig.browser()
            late.send(request(PATH, b"", content_length="900", authorization="Bearer none") + b"x")
            refused = await late.answer()
            assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
            assert rig.shared.held_bytes == 0

    play(scenario, host=host)


def test_a_stream_is_cut_when_its_reader_leaves(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        replica = await rig.replica(echo_after(gate))
        pool = await rig.deploy(replica, methods=model("m"))
        browser = await rig.browser()
        browser.send(request(PATH, body()))
        await until(lambda: replica.running, "the request at its replica")
        browser.close()
        await until(lambda: not rig.front.deployed.pools[pool].in_flight, "its slot's return")
        await until(rig.control.records, "its record")
        assert [record.error for record in rig.control.records()] == ["client_left"]

    play(scenario)
