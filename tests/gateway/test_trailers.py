"""Which headers pass behind a body, both ways, and which never do?"""

from __future__ import annotations

from collections.abc import Callable

import h11
import pytest
from rig import Exchange, Reader, Rig, request, web

Play = Callable[..., None]

NEVER = (
    *("Content-Encoding: gzip", "Content-Type: x/y", "Host: other", "Authorization: Bearer x", "Cookie: a=b"),
    *("Set-Cookie: a=b", "TE: gzip", "Trailer: x", "Swell-Trusted: 1", "Swell-Cpu-Us: 5", "Cache-Control: no-store"),
    *("Connection: close", "Keep-Alive: 5", "Expect: 100-continue", "Location: /", "WWW-Authenticate: Basic"),
)


def headers(*lines: str) -> list[tuple[str, str]]:
    return [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]


@pytest.mark.parametrize("native", [True, False])
def test_trailers_of_a_request_pass(play: Play, native: bool) -> None:
    behind: list[list[tuple[bytes, bytes]]] = []

    async def scenario(rig: Rig) -> None:
        async def take(exchange: Exchange, reader: Reader) -> None:
            while not isinstance(event := await reader.event(), h11.EndOfMessage):
                pass
            behind.append(list(event.headers))
            await exchange.answer()

        replica = await rig.replica(take, native)
        await rig.deploy(replica, methods=(web("shop"),), native=native)
        browser = await rig.browser()
        head = request("/web/shop/x", transfer_encoding="chunked", trailer="X-Sum, Authorization", connection="x-mine")
        head = head.replace(b"content-length: 0\r\n", b"")
        for pieces in (1, 2):
            lines = b"x-sum: 3\r\nX-Mine: hop\r\n" + "".join(f"{line}\r\n" for line in NEVER if line[0] != "C").encode()
            sent = b"5\r\nhello\r\n0\r\n" + lines + b"X-Last:  y \r\n\r\n"
            browser.send(head + (sent if pieces == 1 else sent[:20]))
            if pieces == 2:
                await browser.writer.drain()
                browser.send(sent[20:])
            assert (await browser.answer()).status == 200
        assert behind == [[(b"x-sum", b"3"), (b"x-last", b"y")]] * 2
        assert replica.seen[0].headers["trailer"] == "x-sum"

    play(scenario)


@pytest.mark.parametrize("native", [True, False])
def test_trailers_of_an_answer_pass(play: Play, native: bool) -> None:
    async def scenario(rig: Rig) -> None:
        async def give(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            head = headers(
                "Trailer: X-Sum, Set-Cookie, Swell-Cpu-Us", "Connection: x-mine", "Transfer-Encoding: chunked"
            )
            exchange.send(h11.Response(status_code=200, headers=head))
            exchange.send(h11.Data(data=b"hello"))
            exchange.send(h11.EndOfMessage(headers=headers("X-Sum: 3", "X-Mine: hop", *NEVER)))

        await rig.deploy(await rig.replica(give, native), methods=(web("shop"),), native=native)
        browser = await rig.browser()
        answer = await browser.call("/web/shop/x")
        assert answer.body == b"hello"
        assert answer.headers["trailer"] == "Server-Timing, Swell-Cost-Usd, x-sum"
        assert set(answer.trailers) <= {"x-sum", "server-timing", "swell-cost-usd"}
        assert answer.trailers["x-sum"] == "3"
        # Where there is no room behind the body they are dropped.
        browser.send(b"POST /web/shop/x HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        assert (await browser.rest()).endswith(b"\r\n\r\nhello")

    play(scenario)


def test_who_wants_trailers_is_told_to_the_replica(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica)
        browser = await rig.browser()
        for te, told in (("gzip, trailers", "trailers"), ("gzip;q=0.5", None), ("x-trailers", None)):
            assert (await browser.call("/call/app/fn", te=te, connection="TE")).status == 200
            assert replica.seen[-1].headers.get("te") == told

    play(scenario)
