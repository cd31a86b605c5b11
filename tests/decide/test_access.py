"""Is each caller let in, or told what is missing, at each of the ways in?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.decide.access import (
    CODE,
    NOBODY,
    SERVER,
    STRANGER,
    Caller,
    Holder,
    Key,
    Need,
    holder_of,
    lacks,
    may_ask,
    may_call,
    may_control,
    may_list,
    may_manage,
    may_scrape,
    may_see,
    may_visit,
)
from swell.model.errors import SwellError
from swell.model.key import ADMIN, ApiKey, Scope, allows, digest_of, scope_of, token

HERE, NAMED, AWAY = "127.0.0.1:8470", "Named.Example:80", "evil.example"
FORWARDED = "192.0.2.7:8470"
"""An address is no name that a page could have: what comes by it came through a forwarder that somebody set up."""
OWN, FOREIGN = "http://127.0.0.1:8470", "http://evil.example"
NONE, OTHER, OURS = NOBODY, STRANGER, SERVER
APP = Scope("call", "default", "a")
NOW = 1000.0


def code(refused: SwellError | None) -> str:
    """What a caller is told; empty: it is let in."""
    if refused is None:
        return ""
    assert refused.status == (401 if refused.code in ("no_key", "bad_key", "key_expired", "key_revoked") else 403)
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
def test_a_call(key: Holder, host: str, origin: str | None, on_loopback: str, elsewhere: str) -> None:
    caller = Caller(key, host, () if origin is None else (origin,))
    assert code(may_call(caller, APP, key_needed=False)) == on_loopback
    assert code(may_call(caller, APP, key_needed=True)) == elsewhere


@pytest.mark.parametrize(
    ("key", "host", "open_to_all", "shut"),
    [
        (NONE, HERE, "", "no_key"),
        (NONE, "shop.localhost:8470", "", "no_key"),
        (NONE, NAMED, "", "no_key"),
        (NONE, FORWARDED, "", "no_key"),
        (NONE, AWAY, "bad_host", "no_key"),
        # It may be for the endpoint itself.
        (OTHER, HERE, "", "bad_key"),
        (OTHER, AWAY, "bad_host", "bad_key"),
        (OURS, AWAY, "", ""),
    ],
)
@pytest.mark.parametrize("origin", [(), (FOREIGN,)])
def test_a_web_endpoint(key: Holder, host: str, open_to_all: str, shut: str, origin: tuple[str, ...]) -> None:
    caller = Caller(key, host, origin)
    assert code(may_visit(caller, APP, key_needed=False, allowed_hosts={"named.example"})) == open_to_all
    assert code(may_visit(caller, APP, key_needed=True, allowed_hosts={"named.example"})) == shut


@pytest.mark.parametrize(
    ("key", "host", "origin", "open_to_all", "shut"),
    [
        (NONE, HERE, (), "", "no_key"),
        (NONE, NAMED, (), "", "no_key"),
        (NONE, FORWARDED, (), "", "no_key"),
        # A browser that only reads does not say whose page asks.
        (NONE, AWAY, (), "bad_host", "no_key"),
        (NONE, HERE, (FOREIGN,), "bad_origin", "no_key"),
        (OTHER, HERE, (), "bad_key", "bad_key"),
        (OURS, AWAY, (FOREIGN,), "", ""),
    ],
)
def test_what_there_is_to_call(key: Holder, host: str, origin: tuple[str, ...], open_to_all: str, shut: str) -> None:
    caller = Caller(key, host, origin)
    assert code(may_list(caller, APP, key_needed=False, allowed_hosts={"named.example"})) == open_to_all
    assert code(may_list(caller, APP, key_needed=True, allowed_hosts={"named.example"})) == shut


@pytest.mark.parametrize(
    ("key", "host", "open_to_all", "shut"),
    [
        (NONE, HERE, "", "no_key"),
        (NONE, NAMED, "", "no_key"),
        (NONE, FORWARDED, "", "no_key"),
        (NONE, AWAY, "bad_host", "no_key"),
        # Of a scraper's, that is a mistake to be told.
        (OTHER, HERE, "bad_key", "bad_key"),
        (OURS, AWAY, "", ""),
    ],
)
def test_a_scraper(key: Holder, host: str, open_to_all: str, shut: str) -> None:
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
        (OURS, FORWARDED, (), "bad_host"),
        (OURS, "", (), "bad_host"),
        (OURS, HERE, ("http://console.example",), ""),
        (OURS, HERE, ("HTTP://Console.Example",), ""),
        (OURS, HERE, (OWN,), "bad_origin"),
        (OURS, HERE, ("http://console.example", FOREIGN), "bad_origin"),
        (NONE, AWAY, (FOREIGN,), "no_key"),
    ],
)
def test_the_control_api(key: Holder, host: str, origins: tuple[str, ...], expected: str) -> None:
    allowed = {"allowed_hosts": {"named.example"}, "allowed_origins": {"http://console.example"}}
    caller = Caller(key, host, origins)
    assert code(may_control(caller, any_address=False, **allowed)) == expected
    on_all = "" if host == FORWARDED else expected
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
def test_only_a_bearer_token_is_a_key(header: bytes | None, shown: Holder) -> None:
    assert holder_of(header, {b"one": SERVER, b"two": SERVER}, {}.get, NOW) is shown


def test_no_refusal_repeats_a_long_name() -> None:
    caller = Caller(OURS, "h" * 5000, ("http://" + "o" * 5000,))
    for any_address in (False, True):
        refused = may_control(caller, allowed_hosts=(), allowed_origins=(), any_address=any_address)
        assert refused is not None
        assert len(refused.message) < 500


# -- API keys -------------------------------------------------------------------------------------

ID, SECRET = "abcd2345", "a" * 32


def api_key(*scopes: str, **more: object) -> ApiKey:
    return ApiKey(ID, "ci", digest_of(SECRET.encode()), tuple(map(scope_of, scopes)), 1.0, **more)  # type: ignore[arg-type]


def holder(*scopes: str) -> Holder:
    return Holder(Key.OURS, tuple(map(scope_of, scopes)), ID)


@pytest.mark.parametrize(
    ("text", "key", "shown"),
    [
        (token(ID, SECRET), {}, Key.OURS),
        (token(ID, SECRET), {"expires_at": NOW + 1}, Key.OURS),
        (token(ID, SECRET), {"expires_at": NOW}, Key.EXPIRED),
        (token(ID, SECRET), {"revoked_at": 5.0}, Key.REVOKED),
        (token(ID, SECRET), {"expires_at": 5.0, "revoked_at": 5.0}, Key.REVOKED),
        (token(ID, "b" + SECRET[1:]), {}, Key.OTHER),
        # Of a wrong secret it is not told whether the key would work.
        (token(ID, "b" + SECRET[1:]), {"revoked_at": 5.0}, Key.OTHER),
        (token("other234", SECRET), {}, Key.OTHER),
        (token(ID, SECRET)[:-1], {}, Key.OTHER),
        (token(ID, SECRET).upper(), {}, Key.OTHER),
        (token(ID, SECRET) + "\n", {}, Key.OURS),
        (ID, {}, Key.OTHER),
    ],
)
def test_an_api_key_is_known_by_its_secret(text: str, key: dict[str, float], shown: Key) -> None:
    known = {ID: api_key("call:default/a", **key)}
    found = holder_of(f"Bearer {text}".encode(), {b"one": SERVER}, known.get, NOW)
    assert found.key is shown
    assert bool(found.scopes) is (shown is Key.OURS)


SCOPES = st.one_of(
    st.just(ADMIN),
    st.builds(Scope, st.sampled_from(["call", "deploy", "admin"]), st.sampled_from(["n", "m"]), st.sampled_from("ab*")),
    st.builds(Scope, st.sampled_from(["call", "deploy", "admin"])),
)
POWERS = ["call", "deploy", "admin"]


@given(SCOPES)
def test_a_scope_is_read_as_it_is_written(scope: Scope) -> None:
    assert scope_of(str(scope)) == scope


@given(st.lists(SCOPES, max_size=4), st.sampled_from(POWERS), st.sampled_from(["n", "m"]), st.sampled_from("ab"))
def test_scopes_allow_what_one_of_them_stands_for(held: list[Scope], power: str, namespace: str, app: str) -> None:
    """By the long way: the apps a scope is over, listed, and the powers one includes."""
    over = {
        (granted, ns, name)
        for scope in held
        for granted in POWERS[: POWERS.index(scope.power) + 1]
        for ns in (["n", "m"] if scope.namespace == "*" else [scope.namespace])
        for name in (["a", "b"] if scope.app == "*" else [scope.app])
    }
    assert allows(held, Scope(power, namespace, app)) == ((power, namespace, app) in over)


@given(SCOPES, SCOPES, SCOPES)
def test_what_is_covered_is_covered_by_whatever_covers_more(a: Scope, b: Scope, c: Scope) -> None:
    assert a.covers(a)
    assert ADMIN.covers(a)
    if a.covers(b) and b.covers(c):
        assert a.covers(c)


@given(st.lists(SCOPES, max_size=3), st.lists(SCOPES, min_size=1, max_size=3))
def test_nobody_makes_a_key_that_may_more_than_who_made_it(held: list[Scope], wanted: list[Scope]) -> None:
    if may_manage(Holder(Key.OURS, tuple(held)), wanted) is None:
        assert all(allows(held, scope) for scope in wanted)


@pytest.mark.parametrize(
    "text",
    ["", "call", "deploy", "read:default/a", "call:default", "call:default/", "call:/a", "call:*/a", "call:de fault/a"],
)
def test_what_is_no_scope_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(SwellError, match="is no scope: ") as raised:
        scope_of(text)
    assert raised.value.code == "bad_scope"


DEPLOYS = Need("deploy", "namespace", "app", somewhere=True)


@pytest.mark.parametrize(
    ("need", "names", "held", "lacking"),
    [
        (Need("admin"), {}, "admin", ""),
        (Need("admin"), {}, "admin:default/*", "admin"),
        (Need("call", somewhere=True), {}, "call:default/a", ""),
        (Need("deploy", somewhere=True), {}, "call:default/a", "deploy:NAMESPACE/APP"),
        (DEPLOYS, {}, "call:default/a", "deploy:NAMESPACE/APP"),
        (DEPLOYS, {"namespace": "n", "app": "b"}, "call:default/a", "deploy:n/b"),
        (DEPLOYS, {"namespace": "n", "app": "b"}, "deploy:default/a", ""),
        (Need("deploy", "namespace", "name"), {"namespace": "n", "name": "a"}, "deploy:n/a", ""),
        (
            Need("deploy", "namespace", "name"),
            {"namespace": "n", "name": "b"},
            "deploy:default/a",
            "deploy:n/b",
        ),
        (Need("call", "namespace", "app"), {"namespace": "default", "app": ""}, "call:default/a", "call:default/*"),
        (Need("call", "namespace", "app"), {"namespace": "default", "app": ""}, "call:default/*", ""),
        (Need("call", "namespace", "app"), {"namespace": "*", "app": ""}, "call:default/*", "call:*/*"),
    ],
)
def test_an_operation_of_the_api_names_the_scope_that_is_lacking(
    need: Need, names: dict[str, str], held: str, lacking: str
) -> None:
    refused = may_ask(holder(held), need, names)
    assert code(refused) == ("no_scope" if lacking else "")
    assert may_ask(SERVER, need, names) is None
    if refused is not None:
        assert f"lacks the scope {lacking}: it has {held}." in refused.message
        assert f"swell key create NAME --scope {lacking}" in refused.message


def test_a_key_opens_what_its_scopes_say_and_nothing_else() -> None:
    calls = holder("call:default/a")
    other = Scope("call", "default", "b")
    for host in (HERE, AWAY):
        caller = Caller(calls, host, (FOREIGN,))
        assert may_call(caller, APP, key_needed=True) is None
        assert code(may_call(caller, other, key_needed=False)) == "no_scope"
        assert may_visit(caller, APP, key_needed=True, allowed_hosts=()) is None
        assert code(may_visit(caller, other, key_needed=False, allowed_hosts=())) == "no_scope"
    assert code(may_scrape(Caller(calls, HERE), key_needed=False, allowed_hosts=())) == "no_scope"
    assert may_scrape(Caller(holder("call:*/*"), AWAY), key_needed=True, allowed_hosts=()) is None
    assert may_see(calls, "default", "a")
    assert not may_see(calls, "default", "b")
    assert lacks(CODE, Scope("deploy", "any", "app")) is None
    assert lacks(CODE, ADMIN) is not None


@pytest.mark.parametrize(("key", "expected"), [(Key.EXPIRED, "key_expired"), (Key.REVOKED, "key_revoked")])
def test_a_key_that_does_not_work_any_more_says_why_at_every_door(key: Key, expected: str) -> None:
    caller = Caller(Holder(key, (), ID), HERE)
    for needed in (False, True):
        assert code(may_call(caller, APP, key_needed=needed)) == expected
        assert code(may_visit(caller, APP, key_needed=needed, allowed_hosts=())) == expected
    assert code(may_control(caller, allowed_hosts=(), allowed_origins=(), any_address=True)) == expected


def test_code_in_replicas_has_of_the_api_what_is_for_it() -> None:
    names = {"namespace": "n"}
    assert code(may_ask(CODE, Need("deploy", "namespace", code=True), names)) == ""
    assert code(may_ask(CODE, Need("deploy", somewhere=True, code=True), {})) == ""
    for need in (Need("deploy", "namespace"), Need("call", somewhere=True), Need("admin")):
        assert code(may_ask(CODE, need, names)) == "no_scope"
        assert code(may_ask(SERVER, need, names)) == ""
