"""Does a running gateway forward exactly the requests that h11 reads in a client's bytes, and answer each with its own?

The real one, on sockets, with a replica that says what it was asked; what the parser alone makes of such bytes is in
test_framing.py. Behind every connection comes one of somebody else's, who must not notice it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from readings import LENIENT, Said, cut, gateway_reads, h11_reads, inbound_of, singles
from rig import Browser, Exchange, Reader, Replica, Rig, request, until, web
from streams import FOUND, connections, damaged

from swell.gateway.request import Request

OWN_ERRORS = {400, 401, 403, 404, 405, 413, 426, 431, 501, 505}
"""How the gateway may answer by itself; a 502 would be a replica that could not read what it was sent."""


async def mirror(exchange: Exchange, reader: Reader) -> None:
    """Answer with what was asked."""
    body = await exchange.read_body(reader)
    asked = [exchange.method, exchange.target, body.decode("latin-1")]
    await exchange.answer(body=json.dumps(asked).encode())


@dataclass
class Shop:
    """A gateway with one web endpoint."""

    runner: asyncio.Runner
    rig: Rig
    replica: Replica


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """One for all examples: what one of them leaves behind is a later one's trouble, as it would be in earnest."""

    async def start() -> tuple[Rig, Replica]:
        rig = Rig()
        await rig.start()
        replica = await rig.replica(mirror)
        await rig.deploy(replica, methods=(web("shop"),))
        return rig, replica

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rig, replica = runner.run(start())
        yield Shop(runner, rig, replica)
        runner.run(rig.stop())


def path_of(said: Said) -> bytes:
    """Where a request for the shop arrives there: of an absolute target the path, of one by label what is below it."""
    host, target = said.host, said.target
    if not target.startswith(b"/"):
        host, slash, below = target.partition(b"://")[2].partition(b"/")
        target = slash + below
    if not host.lower().startswith(b"shop.localhost"):
        target = re.sub(rb"^/web/shop(?=/|\?|$)", b"", target)
    return target if target.startswith(b"/") else b"/" + target


def sent_with(pieces: list[bytes], end: int) -> list[bytes]:
    """What is behind a last request comes with its end: later it would find the connection closed, and reset it."""
    at = next((at for at, size in enumerate(accumulate(map(len, pieces))) if size >= end), 0)
    return [*pieces[:at], b"".join(pieces[at:])]


def is_for_the_shop(one: Request) -> bool:
    """Does its way lead there, and nothing else in it give a reason to refuse it?"""
    by_label = re.fullmatch(rb"(?i)shop\.localhost(:80)?", one.host) and one.target.startswith(b"/")
    by_path = one.host == b"localhost" and re.match(rb"/web/shop(/|\?|$)", one.target)
    whole = re.match(rb"http://shop\.localhost/", one.target)
    return one.refusal is None and one.timeout in (None, b"3") and bool(by_label or by_path or whole)


async def one_connection(shop: Shop, raw: bytes, pieces: list[bytes]) -> None:
    """Send it, then a request of somebody else, whom all that must not concern."""
    browser = await shop.rig.browser()
    try:
        await said_to(browser, shop, raw, pieces)
    finally:
        browser.close()
        shop.rig.browsers.clear()
    await until(lambda: shop.replica.running == 0, "the end of what was begun")
    other = await shop.rig.browser()
    answer = await other.call("/own?other", b"own", host="shop.localhost")
    assert (answer.status, json.loads(answer.body)) == (200, ["POST", "/own?other", "own"])
    other.close()
    shop.rig.browsers.clear()


async def said_to(browser: Browser, shop: Shop, raw: bytes, pieces: list[bytes]) -> None:
    """Send it; what the replica was sent, and what is answered, must be what h11 reads."""
    rig, replica = shop.rig, shop.replica
    inbound = inbound_of(rig.shared)
    ours, ends, refusal = gateway_reads(inbound, singles(raw))
    theirs, begins, why = h11_reads(raw)
    methods = [request.method for request in ours]
    if refusal is not None:
        # That of a request which was begun, if the refused one was.
        begun = inbound.last is not None and not inbound.last.complete
        methods.append(inbound.last.method if begun and inbound.last is not None else b"POST")

    if ours and not ours[-1].keep_alive:
        pieces = sent_with(pieces, ends[-1])
    replica.seen.clear()
    for piece in pieces:
        browser.send(piece)
        await asyncio.sleep(0)
    mirrored: list[list[str]] = []
    for at, method in enumerate(methods):
        answer = await browser.answer(method.decode())
        if answer.status != 200:
            assert answer.status in OWN_ERRORS, (answer.status, answer.body)
            assert at >= len(ours) or not is_for_the_shop(ours[at]), (answer.status, answer.body, ours[at].target)
            if at < len(ours) and ours[at].expects and answer.headers.get("connection") == "close":
                # Refused before any of its body came: whether that follows nobody knows, so nothing after it is read.
                break
            continue
        # Forwarded: then h11 has read the same, or has a reason not to that is listed.
        assert at < len(ours), "a request that was refused got an answer"
        if at < len(theirs):
            said = theirs[at]
        else:
            # h11 ends each connection of HTTP/1.0; the gateway keeps those that ask for it.
            kept = why == "closed" and not ours[len(theirs) - 1].http11
            assert kept or any(re.match(lenient, raw[begins:]) for lenient in LENIENT), (why, raw[begins:])
            one = ours[at]
            said = Said(one.method, one.target, one.host, [], b"".join(one.body))
        told = [said.method.decode(), path_of(said).decode("latin-1"), said.body.decode("latin-1")]
        mirrored.append(told)
        assert method == b"HEAD" or json.loads(answer.body) == told
    if browser.writer.can_write_eof():
        browser.writer.write_eof()
    # Of a request that never ended there is no answer, or an early refusal.
    rest = await browser.rest()
    assert not rest or int(rest[9:12]) in {100, *OWN_ERRORS}, rest
    await until(lambda: replica.running == 0, "the end of what was begun")
    seen = [[x.method, x.target, x.body.decode("latin-1")] for x in replica.seen]
    assert seen[: len(mirrored)] == mirrored
    # One more may have been begun, and is neither finished nor followed by another.
    assert len(seen) <= len(mirrored) + 1


@pytest.mark.slow
@pytest.mark.parametrize("found", FOUND, ids=lambda found: found.stem)
def test_what_was_found_is_forwarded_as_it_is_read(shop: Shop, found: Path) -> None:
    raw = found.read_bytes()
    for pieces in ([raw], singles(raw), *(cut(raw, [at]) for at in range(1, len(raw)))):
        shop.runner.run(one_connection(shop, raw, pieces))


@given(st.one_of(damaged(), connections.map(b"".join)), st.lists(st.integers(0, 10_000), max_size=6))
def test_what_is_forwarded_is_what_h11_reads(shop: Shop, raw: bytes, places: list[int]) -> None:
    shop.runner.run(one_connection(shop, raw, cut(raw, places)))


@settings(max_examples=max(10, settings.default.max_examples // 4))
@given(damaged())
def test_byte_by_byte_it_is_the_same(shop: Shop, raw: bytes) -> None:
    shop.runner.run(one_connection(shop, raw, singles(raw)))


def test_a_request_that_is_plain_is_forwarded(shop: Shop) -> None:
    raw = request("/a", b"hello", host="shop.localhost")
    shop.runner.run(one_connection(shop, raw, [raw]))
    assert [(x.target, x.body) for x in shop.replica.seen] == [("/a", b"hello"), ("/own?other", b"own")]
