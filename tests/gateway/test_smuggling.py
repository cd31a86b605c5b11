"""Does every known way to smuggle a request end in a refusal, or in one reading of it, on real sockets?"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from rig import KEY, Browser, Exchange, Reader, Replica, Rig, request, until, web

Play = Callable[..., None]
PlayAtShop = Callable[[Callable[[Rig, Replica, Browser], Awaitable[None]]], None]

HOST = b"Host: shop.localhost"
ADMIN = b"GET /admin HTTP/1.1\r\n" + HOST + b"\r\nX: "
"""What an attacker would have the replica see: a request whose head swallows the beginning of the next one."""
LAST = b"0\r\n\r\n"


@pytest.fixture
def play_at_shop(play: Play) -> PlayAtShop:
    """Run a scenario against a fresh gateway with one web endpoint, `shop`: its replica, and a caller of it."""

    def run(scenario: Callable[[Rig, Replica, Browser], Awaitable[None]]) -> None:
        async def deployed(rig: Rig) -> None:
            replica = await rig.replica()
            await rig.deploy(replica, methods=(web("shop"),))
            await scenario(rig, replica, await rig.browser())

        play(deployed)

    return run


@dataclass
class Way:
    """What is sent, and the bodies that the replica has to see."""

    raw: bytes
    seen: tuple[bytes, ...] = ()
    headers: tuple[str, ...] = ()
    """Names of headers that the replica must not see."""


def post(*lines: bytes, body: bytes = b"", target: bytes = b"/x", host: bytes = HOST) -> bytes:
    return b"\r\n".join((b"POST " + target + b" HTTP/1.1", host, *lines, b"", body))


def chunks(*lines: bytes, body: bytes = LAST) -> bytes:
    return post(b"Transfer-Encoding: chunked", *lines, body=body)


def length(of: bytes, *lines: bytes) -> bytes:
    return post(b"Content-Length: %d" % len(of), *lines, body=of)


OBSCURED = {
    "a tab before": b"Transfer-Encoding:\tchunked",
    "upper case": b"TRANSFER-ENCODING: CHUNKED",
}
"""Other ways to write the one coding: taken, and passed on in the usual one."""
NO_CODINGS = {
    "a name with a space": (b"Transfer-Encoding : chunked", 400),
    "a name with a tab": (b"Transfer-Encoding\t: chunked", 400),
    "a space before the name": (b" Transfer-Encoding: chunked", 400),
    "a vertical tab": (b"Transfer-Encoding: \x0bchunked", 400),
    "a form feed": (b"Transfer-Encoding: \x0cchunked", 400),
    "a NUL": (b"Transfer-Encoding: chunked\x00", 400),
    "a folded value": (b"Transfer-Encoding:\r\n chunked", 400),
    "a bare line feed": (b"X: y\nTransfer-Encoding: chunked", 400),
    "a bare carriage return": (b"X: y\rTransfer-Encoding: chunked", 400),
    "a prefix": (b"Transfer-Encoding: xchunked", 501),
    "a suffix": (b"Transfer-Encoding: chunkedx", 501),
    "quotes": (b'Transfer-Encoding: "chunked"', 501),
    "a parameter": (b"Transfer-Encoding: chunked;q=1", 501),
    "a comma in front": (b"Transfer-Encoding: ,chunked", 501),
    "identity": (b"Transfer-Encoding: identity", 501),
    "chunked, then identity": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 400),
    "identity, then chunked": (b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", 501),
    "gzip, then chunked": (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 501),
    "chunked twice": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
    "nothing": (b"Transfer-Encoding:", 400),
}
SIZES = {
    "a sign": b"+5\r\nhello\r\n",
    "a negative one": b"-1\r\nhello\r\n",
    "a prefix": b"0x5\r\nhello\r\n",
    "an underscore": b"0_5\r\nhello\r\n",
    "a space in front": b" 5\r\nhello\r\n",
    "a space behind": b"5 \r\nhello\r\n",
    "too large": b"F" * 17 + b"\r\nhello\r\n",
    "too large by a wrap": b"10000000000000005\r\nhello\r\n",
    "a bare line feed": b"5\nhello\r\n",
    "a bare carriage return": b"5\rhello\r\n",
    "an extension with a line feed": b"5;\nhello\r\n",
    "an extension with a carriage return": b"5;a\rb\r\nhello\r\n",
    "an extension that quotes the end": b'5;a="\r\nhello"\r\n',
    "no end of the data": b"5\r\nhello!\r\n",
    "data that ends in a line feed": b"5\r\nhello\n",
    "none": b"\r\nhello\r\n",
    "data that ends in two bytes that are no line end": b"5\r\nhelloXY",
    "data that ends in a carriage return and more": b"5\r\nhello\rX",
    "data that ends in two line feeds": b"5\r\nhello\n\n",
    "data with an end too many": b"5\r\nhello\r\n\r\n",
    "an extension that hides a chunk": b"5;\n5\r\nhello\r\n",
    "a last chunk's bare line feed": b"0\n\r\n",
    "a last chunk's bare carriage return": b"0\r\r\n",
}
TRAILERS = {
    "a length": (b"Content-Length: 40\r\n", 400),
    "a coding": (b"Transfer-Encoding: chunked\r\n", 400),
    "a folded line": (b"X: a\r\n b\r\n", 400),
    "no colon": (b"X\r\n", 400),
    "a bare line feed": (b"X: a\n\r\n", 400),
}
HOSTS = {
    "an encoded line break": b"Host: shop.localhost%0d%0aX:y",
    "user info": b"Host: a@shop.localhost",
    "a path": b"Host: shop.localhost/a",
    "a list": b"Host: shop.localhost, other",
    "a space": b"Host: shop.localhost other",
    "no ASCII": b"Host: shop.localhost\xc2\x85",
    "a port that is none": b"Host: shop.localhost:80:90",
    "two": HOST + b"\r\n" + HOST,
    "a name with a space": b"Host : shop.localhost",
    "a line break": b"Host: shop.localhost\rX: y",
}
TARGETS = {
    "a space": (b"http://shop.localhost/a b", 400),
    "a tab": (b"http://shop.localhost/\tHTTP/1.1", 400),
    "a line feed": (b"http://shop.localhost/\nX: y", 505),
    "a carriage return": (b"http://shop.localhost/\rX: y", 400),
    "a line break": (b"http://shop.localhost/\r\nX: y", 505),
    "a fragment": (b"/x#/../admin", 400),
    "a byte beyond ASCII": (b"/\xa0", 400),
}
MISDIRECTED = {
    "an encoded line break in the host": b"http://shop.localhost%0d%0aX:y/",
    "user info": b"http://a@shop.localhost/",
    "a query in place of a path": b"http://shop.localhost?/",
    "no host": b"http:///x",
    "another scheme": b"ftp://shop.localhost/",
    "no path": b"*",
}
"""Targets of requests whose end is beyond doubt: refused, and the next request is the next request."""
FORGED = (b"Swell-Trusted: 1", b"swell-web: other", b"SWELL-ROOT-PATH: /", b"Swell-Remaining-Ms: 9", b"Swell-X: y")

REFUSED: dict[str, tuple[bytes, int]] = {
    "CL.TE": (post(b"Content-Length: 6", b"Transfer-Encoding: chunked", body=LAST + b"G"), 400),
    "TE.CL": (post(b"Transfer-Encoding: chunked", b"Content-Length: 3", body=b"1\r\nG\r\n" + LAST), 400),
    "CL.CL": (post(b"Content-Length: 0", b"Content-Length: 44", body=ADMIN), 400),
    "CL.CL in a list": (post(b"Content-Length: 0, 44", body=ADMIN), 400),
    "0.CL by a sign": (post(b"Content-Length: -0", body=ADMIN), 400),
    "0.CL by a name with a space": (post(b"Content-Length : 44", body=ADMIN), 400),
    "0.CL by an early line feed": (b"POST /x HTTP/1.1\r\n" + HOST + b"\n\nContent-Length: 44\r\n\r\n" + ADMIN, 400),
    "CL.0 by an offer of nothing": (length(ADMIN, b"Connection: upgrade", b"Upgrade:"), 501),
    "CL.0 by an offer, then nothing": (length(ADMIN, b"Connection: upgrade", b"Upgrade: h2c", b"Upgrade:"), 501),
    "TE.0 by an offer of nothing": (chunks(b"Connection: upgrade", b"Upgrade:"), 501),
    "chunks in HTTP/1.0": (chunks().replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
    **{f"TE.TE by {name}": (post(line, body=LAST), status) for name, (line, status) in NO_CODINGS.items()},
    **{f"a chunk's size: {name}": (chunks(body=size + LAST), 400) for name, size in SIZES.items()},
    **{
        f"a trailer: {name}": (chunks(body=b"0\r\n" + line + b"\r\n"), status)
        for name, (line, status) in TRAILERS.items()
    },
    **{f"a host: {name}": (post(host=line), 400) for name, line in HOSTS.items()},
    **{f"a target: {name}": (post(target=target), status) for name, (target, status) in TARGETS.items()},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused(play_at_shop: PlayAtShop, name: str) -> None:
    raw, status = REFUSED[name]

    async def scenario(rig: Rig, replica: Replica, browser: Browser) -> None:
        browser.send(raw + request("/after", host="shop.localhost"))
        answer = await browser.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close"), answer.body
        assert await browser.rest() == b""
        # At most a request that was never finished was begun on: nothing in it, and nothing behind it, was one.
        assert all(exchange.target == "/x" for exchange in replica.seen)
        await until(lambda: replica.running == 0, "the end of what was begun")
        assert (await (await rig.browser()).call("/after", host="shop.localhost")).status == 200

    play_at_shop(scenario)


EXPECTS = (b"100-continue", b"y 100-continue", b"100-continue, 100-continue", b"100-continue\r\nExpect: y", b"")


@pytest.mark.parametrize("expects", EXPECTS)
@pytest.mark.parametrize("pause", [False, True])
def test_what_is_expected_does_not_end_a_body_early(play_at_shop: PlayAtShop, expects: bytes, pause: bool) -> None:
    head, end, body = length(ADMIN, b"Expect: " + expects).partition(b"\r\n\r\n")

    async def scenario(rig: Rig, replica: Replica, browser: Browser) -> None:
        browser.send(head + end)
        if pause:
            await until(lambda: replica.seen, "the head")
        browser.send(body + request("/after", b"own", host="shop.localhost"))
        assert [(await browser.answer()).body for _ in range(2)] == [ADMIN, b"own"]
        assert [(x.target, "expect" in x.headers) for x in replica.seen] == [("/x", False), ("/after", False)]

    play_at_shop(scenario)


EARLY = {
    "an unknown path": (b"POST /nothing", (), 404),
    "an unknown function": (b"POST /call/app/none", (), 404),
    "a method": (b"GET /call/app/plain", (), 405),
    "the health": (b"POST /healthz", (), 405),
    "a page of elsewhere": (b"POST /call/app/plain", (b"Origin: http://evil.example",), 403),
    "a timeout": (b"POST /call/app/plain", (b"Swell-Timeout: never",), 400),
}


@pytest.mark.parametrize("name", EARLY)
@pytest.mark.parametrize("pause", [False, True])
def test_a_body_is_one_though_its_request_was_refused_early(play_at_shop: PlayAtShop, name: str, pause: bool) -> None:
    start, lines, status = EARLY[name]
    raw = length(ADMIN, *lines).replace(b"POST /x", start, 1).replace(HOST, b"Host: 127.0.0.1", 1)
    head, end, body = raw.partition(b"\r\n\r\n")

    async def scenario(rig: Rig, replica: Replica, browser: Browser) -> None:
        await rig.deploy(replica, name="plain")
        after = request("/after", b"own", host="shop.localhost")
        browser.send(head + end if pause else raw + after)
        assert (await browser.answer()).status == status
        if pause:
            browser.send(body + after)
        assert (await browser.answer()).body == b"own"
        assert [exchange.target for exchange in replica.seen] == ["/after"]

    play_at_shop(scenario)


def test_a_pause_ends_the_connection_and_not_the_body(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica, methods=(web("shop"),))
        browser = await rig.browser()
        head, end, body = length(ADMIN).partition(b"\r\n\r\n")
        browser.send(head + end)
        answer = await browser.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        browser.send(body + request("/after", host="shop.localhost"))
        assert await browser.rest() == b""
        await until(lambda: replica.open == 0, "the cancel")
        assert [(exchange.target, exchange.body) for exchange in replica.seen] == [("/x", b"")]

    play(scenario, body_timeout_s=0.2)


@pytest.mark.parametrize("name", MISDIRECTED)
def test_a_target_that_names_no_place_is_refused_alone(play_at_shop: PlayAtShop, name: str) -> None:
    async def scenario(_rig: Rig, replica: Replica, browser: Browser) -> None:
        browser.send(length(ADMIN).replace(b"/x", MISDIRECTED[name], 1))
        answer = await browser.answer()
        assert (answer.status, answer.error["code"]) == (400, "bad_request")
        assert (await browser.call("/after", b"own", host="shop.localhost")).body == b"own"
        assert [exchange.target for exchange in replica.seen] == ["/after"]

    play_at_shop(scenario)


def test_nothing_is_read_after_a_trailer_that_ends_the_connection(play_at_shop: PlayAtShop) -> None:
    async def scenario(_rig: Rig, replica: Replica, browser: Browser) -> None:
        browser.send(chunks(body=b"0\r\nConnection: close\r\n\r\n") + request("/after", host="shop.localhost"))
        assert [(await browser.answer()).status for _ in range(2)] == [200, 400]
        assert await browser.rest() == b""
        assert [exchange.target for exchange in replica.seen] == ["/x"]

    play_at_shop(scenario)


LAST_ONES = {
    "said so": length(b"own", b"Connection: close"),
    "said so among others": length(b"own", b"Connection: x, Close"),
    "of HTTP/1.0": length(b"own").replace(b"HTTP/1.1", b"HTTP/1.0"),
}


@pytest.mark.parametrize("name", LAST_ONES)
@pytest.mark.parametrize("again", [1, 2])
def test_nothing_is_read_after_a_request_that_ends_the_connection(
    play_at_shop: PlayAtShop, name: str, again: int
) -> None:
    """The second time its head is one that was seen before."""

    async def scenario(rig: Rig, replica: Replica, browser: Browser) -> None:
        for _ in range(again):
            browser = await rig.browser()
            browser.send(LAST_ONES[name] + request("/after", host="shop.localhost"))
            answer = await browser.answer()
            assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"own", "close")
            assert await browser.rest() == b""
        assert [exchange.target for exchange in replica.seen] == ["/x"] * again

    play_at_shop(scenario)


ONE_READING: dict[str, Way] = {
    "CL.0": Way(length(ADMIN), seen=(ADMIN,)),
    "CL.0 of a GET": Way(length(ADMIN).replace(b"POST", b"GET", 1), seen=(ADMIN,)),
    "CL.0 of a HEAD": Way(length(ADMIN).replace(b"POST", b"HEAD", 1), seen=(ADMIN,)),
    "CL.0 of an OPTIONS": Way(length(ADMIN).replace(b"POST", b"OPTIONS", 1), seen=(ADMIN,)),
    "CL.0 by Connection": Way(length(ADMIN, b"Connection: content-length"), seen=(ADMIN,)),
    "TE.0 by Connection": Way(chunks(b"Connection: transfer-encoding", body=b"2\r\nok\r\n" + LAST), seen=(b"ok",)),
    "a length with zeros in front": Way(post(b"Content-Length: 0000005", body=b"hello"), seen=(b"hello",)),
    "a length with spaces around": Way(post(b"Content-Length:\t 5 \t", body=b"hello"), seen=(b"hello",)),
    "a length of another name": Way(post(b"Content_Length: 44", b"X-Content-Length: 44"), seen=(b"",)),
    "no length": Way(post(), seen=(b"",)),
    "a chunk that looks like a request": Way(chunks(body=b"%x\r\n%b\r\n" % (len(ADMIN), ADMIN) + LAST), seen=(ADMIN,)),
    "extensions": Way(chunks(body=b'5;a=b;c="d e"\r\nhello\r\n0;f\r\n\r\n'), seen=(b"hello",)),
    "zeros before a size": Way(chunks(body=b"000005\r\nhello\r\n000\r\n\r\n"), seen=(b"hello",)),
    "no host left by Connection": Way(post(b"Connection: host, close-not"), seen=(b"",)),
    "trust by Connection": Way(post(b"Connection: swell-trusted, swell-request-id, swell-web"), seen=(b"",)),
    "no key asked by Connection": Way(post(b"Connection: authorization", b"Authorization: Basic x"), seen=(b"",)),
    "forged headers": Way(post(*FORGED), seen=(b"",), headers=("swell-trusted", "swell-x")),
    "forged trailers": Way(
        chunks(body=b"0\r\n" + b"\r\n".join(FORGED) + b"\r\nHost: x\r\nAuthorization: Bearer y\r\n\r\n"),
        seen=(b"",),
        headers=("swell-trusted", "swell-x", "authorization"),
    ),
    "a target with a host": Way(post(target=b"http://shop.localhost/x", host=b"Host: other"), seen=(b"",)),
    "an offer without a body": Way(post(b"Connection: upgrade", b"Upgrade: h2c"), seen=(b"",), headers=("upgrade",)),
    **{f"TE by {name}": Way(post(line, body=b"2\r\nok\r\n" + LAST), seen=(b"ok",)) for name, line in OBSCURED.items()},
}


@pytest.mark.parametrize("name", ONE_READING)
def test_what_is_passed_on_has_one_reading(play_at_shop: PlayAtShop, name: str) -> None:
    way = ONE_READING[name]

    async def scenario(_rig: Rig, replica: Replica, browser: Browser) -> None:
        browser.send(way.raw)
        first = await browser.answer(way.raw.partition(b" ")[0].decode())
        assert first.status == 200, first.body
        assert (await browser.call("/after", b"own", host="shop.localhost")).body == b"own"
        assert [exchange.target for exchange in replica.seen] == ["/x"] * len(way.seen) + ["/after"]
        assert tuple(exchange.body for exchange in replica.seen[:-1]) == way.seen
        told = replica.seen[0].headers
        assert not {"connection", *way.headers} & set(told)
        # However its client wrote it: of zeros in front others might make something else.
        assert told.get("content-length") in (None, str(len(way.seen[0])))
        assert (told["host"], told["swell-web"]) == ("shop.localhost", "fn")
        assert told["swell-request-id"] == first.headers["swell-request-id"]
        assert int(told["swell-remaining-ms"]) > 9

    play_at_shop(scenario)


def test_a_key_is_asked_for_whatever_the_connection_names(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica, methods=(web("shop", needs_key=True),))
        browser = await rig.browser()
        asked = {"host": "shop.localhost", "connection": "authorization, swell-trusted", "swell_trusted": "1"}
        assert (await browser.call("/x", **asked)).status == 401
        assert (await browser.call("/x", authorization="Bearer nearly", **asked)).status == 401
        assert (await browser.call("/x", authorization=f"Bearer {KEY}", **asked)).status == 200
        assert [exchange.headers["swell-trusted"] for exchange in replica.seen] == ["1"]

    play(scenario)


def test_a_page_of_elsewhere_is_one_whatever_the_connection_names(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        answer = await (await rig.browser()).call("/call/app/fn", origin="http://evil.example", connection="origin")
        assert (answer.status, answer.error["code"]) == (403, "bad_origin")

    play(scenario)


SPLIT = {
    "a whole answer behind it": b"HTTP/1.1 200 OK\r\nX-User: a\r\nContent-Length: 0\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 4\r\n\r\nevil",
    "a head behind it": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nX-Evil: 1\r\n\r\n",
    "half a head behind it": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nX-Evil:",
    "bytes behind it": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nevil",
    "chunks, and an answer behind it": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 4\r\n\r\nevil",
}


@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.parametrize("native", [True, False])
def test_an_answer_that_was_split_in_two_is_one_to_its_caller_and_none_to_the_next(
    play: Play, name: str, native: bool
) -> None:
    async def scenario(rig: Rig) -> None:
        async def split(exchange: Exchange, reader: Reader) -> None:
            body = await exchange.read_body(reader)
            if body == b"attack":
                exchange.writer.write(SPLIT[name])
                await exchange.writer.drain()
                await asyncio.sleep(0.01)
            else:
                await exchange.answer(body=body)

        replica = await rig.replica(split, native=native)
        await rig.deploy(replica, native=native)
        attacker, other = await rig.browser(), await rig.browser()
        answer = await attacker.call("/call/app/fn", b"attack")
        assert (answer.status, answer.body, "x-evil" in answer.names) == (200, b"", False)
        for browser in (other, attacker):
            assert (await browser.call("/call/app/fn", b"own")).body == b"own"
        assert replica.connections == 2

    play(scenario)


DOUBTFUL = {
    "both framings": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
    "a coding with a space behind it": b"Transfer-Encoding: chunked \r\n\r\n0\r\n\r\n",
    "a folded header": b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "a bare line feed": b"X: a\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
    "a bare carriage return": b"X: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
    "a NUL": b"X: a\x00b\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_an_answer_that_could_be_read_in_two_ways_is_not_passed_on(play: Play, name: str) -> None:
    async def scenario(rig: Rig) -> None:
        async def doubtful(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            exchange.writer.write(b"HTTP/1.1 200 OK\r\n" + DOUBTFUL[name])

        await rig.deploy(await rig.replica(doubtful))
        answer = await (await rig.browser()).call("/call/app/fn")
        assert (answer.status, answer.error["code"]) == (502, "replica_died")
        assert not re.search(b"cookie|hello", answer.body)

    play(scenario)
