"""Is each caller let in, or told what is missing, at each of the ways in?"""

from __future__ import annotations

import pytest

from swell.decide.access import Caller, Key, key_shown, may_call, may_control, may_scrape, may_visit
from swell.model.errors import SwellError

HERE, NAMED, AWAY = "127.0.0.1:8470", "Named.Example:80", "evil.example"
OWN, FOREIGN = "http://127.0.0.1:8470", "http://evil.example"
NONE, OTHER, OURS = Key.NONE, Key.OTHER, Key.OURS


def code(refused: SwellError | None) -> str:
    """What a caller is told; empty: it is let in."""
    if refused is None:
        return ""
    assert refused.status == (401 if refused.code in ("no_key", "bad_key") else 403)
    return refused.code


@pytest.mark.parametrize(
    ("key", "host", "origin", "on_loopback", "elsewhere"),
    [
        (NONE, HERE, None, "", "no_key"),
        (OTHER, HERE, None, "bad_key", "bad_key"),
        (OURS, HERE, None, "", ""),
        (NONE, AWAY, None, "", "no_key"),
        (NONE, HERE, OWN, "", "no_key"),
        (NONE, HERE, FOREIGN, "bad_origin", "no_key"),
        (NONE, HERE, "null", "bad_origin", "no_key"),
        # Who makes a name point here has a page of the same name.
        (NONE, AWAY, FOREIGN, "bad_origin", "no_key"),
        (OTHER, HERE, FOREIGN, "bad_key", "bad_key"),
        (OURS, AWAY, FOREIGN, "", ""),
    ],
)
def test_a_call(key: Key, host: str, origin: str | None, on_loopback: str, elsewhere: str) -> None:
    caller = Caller(key, host, () if origin is None else (origin,))
    assert code(may_call(caller, key_needed=False)) == on_loopback
    assert code(may_call(caller, key_needed=True)) == elsewhere


@pytest.mark.parametrize(
    ("key", "host", "open_to_all", "shut"),
    [
        (NONE, HERE, "", "no_key"),
        (NONE, "shop.localhost:8470", "", "no_key"),
        (NONE, NAMED, "", "no_key"),
        (NONE, AWAY, "bad_host", "no_key"),
        # It may be for the endpoint itself.
        (OTHER, HERE, "", "bad_key"),
        (OTHER, AWAY, "bad_host", "bad_key"),
        (OURS, AWAY, "", ""),
    ],
)
@pytest.mark.parametrize("origin", [(), (FOREIGN,)])
def test_a_web_endpoint(key: Key, host: str, open_to_all: str, shut: str, origin: tuple[str, ...]) -> None:
    caller = Caller(key, host, origin)
    assert code(may_visit(caller, key_needed=False, allowed_hosts={"named.example"})) == open_to_all
    assert code(may_visit(caller, key_needed=True, allowed_hosts={"named.example"})) == shut


@pytest.mark.parametrize(
    ("key", "host", "open_to_all", "shut"),
    [
        (NONE, HERE, "", "no_key"),
        (NONE, NAMED, "", "no_key"),
        (NONE, AWAY, "bad_host", "no_key"),
        # Of a scraper's, that is a mistake to be told.
        (OTHER, HERE, "bad_key", "bad_key"),
        (OURS, AWAY, "", ""),
    ],
)
def test_a_scraper(key: Key, host: str, open_to_all: str, shut: str) -> None:
    caller = Caller(key, host)
    assert code(may_scrape(caller, key_needed=False, allowed_hosts={"named.example"})) == open_to_all
    assert code(may_scrape(caller, key_needed=True, allowed_hosts={"named.example"})) == shut


@pytest.mark.parametrize(
    ("key", "host", "origins", "expected"),
    [
        (NONE, HERE, (), "no_key"),
        (OTHER, HERE, (), "bad_key"),
        (OURS, HERE, (), ""),
        (OURS, NAMED, (), ""),
        (OURS, AWAY, (), "bad_host"),
        (OURS, "192.0.2.7", (), "bad_host"),
        (OURS, "", (), "bad_host"),
        (OURS, HERE, ("http://console.example",), ""),
        (OURS, HERE, ("HTTP://Console.Example",), ""),
        (OURS, HERE, (OWN,), "bad_origin"),
        (OURS, HERE, ("http://console.example", FOREIGN), "bad_origin"),
        (NONE, AWAY, (FOREIGN,), "no_key"),
    ],
)
def test_the_control_api(key: Key, host: str, origins: tuple[str, ...], expected: str) -> None:
    allowed = {"allowed_hosts": {"named.example"}, "allowed_origins": {"http://console.example"}}
    caller = Caller(key, host, origins)
    assert code(may_control(caller, any_address=False, **allowed)) == expected
    on_all = "" if host == "192.0.2.7" else expected
    assert code(may_control(caller, any_address=True, **allowed)) == on_all


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        (None, NONE),
        (b"", NONE),
        (b"Bearer", NONE),
        (b"Basic one", NONE),
        (b"one", NONE),
        (b"Bearer ", OTHER),
        (b"Bearer on", OTHER),
        (b"Bearer one2", OTHER),
        (b"Bearer one", OURS),
        (b"bearer  two ", OURS),
    ],
)
def test_only_a_bearer_token_is_a_key(header: bytes | None, shown: Key) -> None:
    assert key_shown(header, [b"one", b"two"]) is shown


def test_no_refusal_repeats_a_long_name() -> None:
    caller = Caller(OURS, "h" * 5000, ("http://" + "o" * 5000,))
    for any_address in (False, True):
        refused = may_control(caller, allowed_hosts=(), allowed_origins=(), any_address=any_address)
        assert refused is not None
        assert len(refused.message) < 500
