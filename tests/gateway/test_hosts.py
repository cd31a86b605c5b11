"""Do web endpoints answer only under names that nobody else can make point here, however the name is written?"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rig import CALL_KEY, KEY, Rig, web

from swell.model.hosts import is_host, is_of_this_machine, is_own_page, stays_here
from swell.model.workload import Method

Play = Callable[..., None]
OWN = (
    "127.0.0.1",
    "127.9.9.9:8470",
    "localhost",
    "LocalHost:8470",
    "localhost.",
    "[::1]",
    "[::1]:8470",
    "any.localhost",
)
ADDRESSES = ("192.0.2.7:8470", "[2001:db8::1]")
"""Of a forwarder: no page can have them point here."""
FOREIGN = ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "xlocalhost")

ports = st.sampled_from(["", ":80", ":8470"])
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6), st.ip_addresses(v=4, network="127.0.0.0/8"))


@given(addresses, ports)
def test_an_address_is_of_this_machine_if_it_is_loopback(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: str
) -> None:
    host = f"[{address}]{port}" if address.version == 6 else f"{address}{port}"
    assert is_of_this_machine(host) == address.is_loopback


@given(st.binary(max_size=30))
def test_what_is_of_this_machine_ends_like_it(host: bytes) -> None:
    if is_host(host) and is_of_this_machine(host.decode()):
        name = host.lower().partition(b":")[0].removesuffix(b".")
        assert name.endswith(b"localhost") or name[:1] in b"[0123456789"


def test_pages_of_the_same_host_are_own_ones() -> None:
    assert all(is_own_page("http://" + host, host) for host in OWN)
    assert is_own_page("HTTP://LOCALHOST:1", "localhost:1")
    assert not any(is_own_page("http://" + host, host) for host in (*FOREIGN, *ADDRESSES))
    for origin in ("http://localhost:2", "null", "", "localhost:1", "http://evil.example"):
        assert not is_own_page(origin, "localhost:1")


def test_what_stays_on_this_machine_goes_to_loopback() -> None:
    for url in ("http://127.0.0.1:8470", "http://localhost", "http://[::1]:1/call", "http://[::1%25lo]:1"):
        assert stays_here(url), url
    for url in ("http://192.0.2.7", "https://localhost.evil.example", "http://[::1", "127.0.0.1:8470", ""):
        assert not stays_here(url), url


def test_web_endpoints_answer_under_names_of_this_machine(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica, methods=(web("shop"),))
        browser = await rig.browser()
        for host in (*OWN[:-1], *ADDRESSES, "named.example", "Named.Example:80"):
            assert (await browser.call("/web/shop/", method="GET", host=host)).status == 200, host
        seen = len(replica.seen)
        for host in FOREIGN:
            refused = await browser.call("/web/shop/", method="GET", host=host)
            assert (refused.status, refused.error["code"]) == (403, "bad_host"), host
            assert "allowed_hosts" in refused.error["message"]
        assert len(replica.seen) == seen
        for key in (KEY, CALL_KEY):
            trusted = await browser.call("/web/shop/", method="GET", host=FOREIGN[0], authorization=f"Bearer {key}")
            assert trusted.status == 200
        other = await browser.call("/web/shop/", method="GET", host=FOREIGN[0], authorization="Bearer theirs")
        assert other.status == 403

    play(scenario, allowed_hosts=("named.example",))


def test_with_the_key_any_name_is_good_where_everything_needs_it(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), methods=(web("shop"),))
        browser = await rig.browser()
        asked = {"method": "GET", "host": "public.example"}
        assert (await browser.call("/web/shop/", **asked)).status == 401
        assert (await browser.call("/web/shop/", authorization=f"Bearer {KEY}", **asked)).status == 200

    play(scenario, host="0.0.0.0")


def test_pages_that_may_send_to_a_web_endpoint_are_its_own_business(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica, methods=(web("shop"),))
        browser = await rig.browser()
        assert (await browser.call("/web/shop/", b"{}", origin="http://evil.example")).status == 200
        assert replica.seen[-1].headers["origin"] == "http://evil.example"

    play(scenario)


def test_the_host_of_an_absolute_target_is_looked_at_like_any_other(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica, methods=(web("shop"),))
        for authority, status in (
            (b"shop.localhost", 200),
            (b"SHOP.LOCALHOST:80", 200),
            (b"evil.example", 403),
            (b"127.0.0.1@evil.example", 400),
            (b"evil.example,127.0.0.1", 400),
        ):
            browser = await rig.browser()
            browser.send(b"GET http://%b/web/shop/ HTTP/1.1\r\nHost: localhost\r\n\r\n" % authority)
            assert (await browser.answer("GET")).status == status, authority
        # And the other way round: the Host beside it counts for nothing.
        browser.send(b"GET http://localhost/web/shop/ HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert (await browser.answer("GET")).status == 200
        assert replica.seen[-1].headers["host"] == "localhost"

    play(scenario)


@pytest.mark.parametrize("host", ["shop.localhost", "SHOP.LOCALHOST", "Shop.LocalHost.:80"])
def test_a_label_is_one_however_it_is_written_and_whatever_was_called_before(play: Play, host: str) -> None:
    async def scenario(rig: Rig) -> None:
        function, shop = await rig.replica(), await rig.replica()
        await rig.deploy(function, methods=(Method("fn"),))
        await rig.deploy(shop, name="page", methods=(web("shop", "page"),))
        browser = await rig.browser()
        # Remembered as a call's target…
        assert (await browser.call("/call/app/fn")).status == 200
        # …it is the endpoint's own path on the endpoint's host.
        assert (await browser.call("/call/app/fn", host=host)).status == 200
        assert [exchange.target for exchange in shop.seen] == ["/call/app/fn"]
        assert len(function.seen) == 1

    play(scenario)


def test_a_host_that_no_name_can_be_is_served_and_not_remembered(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        for size in (255, 256):
            assert (await browser.call("/call/app/fn", host="h" * size)).status == 200
        assert list(rig.front.known) == [(b"h" * 255, b"/call/app/fn")]
        assert rig.shared.good_hosts == {b"h" * 255}

    play(scenario)


def test_where_a_web_endpoint_answers_is_told_with_the_port_the_caller_came_to(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), methods=(web("shop"),))
        browser = await rig.browser()
        for host, place in (
            (f"127.0.0.1:{rig.port}", f"http://shop.localhost:{rig.port}."),
            (f"[::1]:{rig.port}", f"http://shop.localhost:{rig.port}."),
            ("[::1]", "http://shop.localhost."),
        ):
            answer = await browser.call("/call/app/fn", host=host)
            assert (answer.status, answer.error["code"]) == (404, "unknown_function")
            assert answer.error["message"].endswith(f"It answers at /web/shop/ and at {place}")
            nowhere = await browser.call("/nowhere", host=host)
            assert place.replace("shop", "{label}") in nowhere.error["message"]

    play(scenario)
