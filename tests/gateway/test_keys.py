"""Does the gateway let in whom API keys say, for as long and as often as they say?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
import pytest
from holders import CI, SECRET, SLOW, call, give, key, said
from rig import CALL_KEY, KEY, Rig, echo_after, pool_row, request, route, until, web

from swell.gateway import door
from swell.model.key import scope_of, token
from swell.model.limits import Limits
from swell.model.workload import Method
from swell.wire.link import Requests

Play = Callable[..., None]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_key_opens_its_apps_and_no_other(play: Play, host: str) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica)
        await rig.deploy(replica, name="site", methods=(web("open", "page"), web("shut", "vault", needs_key=True)))
        await give(rig, CI, key("other222", "call:default/other"), key("all22222", "call:default/*"))
        await give(rig, key("deploy22", "deploy:default/app"), key("server22", "admin"))
        browser = await rig.browser()
        for path in ("/call/app/fn", "/web/open/", "/web/shut/"):
            for id in ("ci222222", "all22222", "deploy22", "server22"):
                assert said(await call(browser, id, path)) == (200, ""), (id, path)
                # What runs code is read from those alone who may run code there.
                assert ("swell-trusted" in replica.seen[-1].headers) == (id in ("deploy22", "server22"))
                assert "authorization" not in replica.seen[-1].headers
            refused = await call(browser, "other222", path)
            assert said(refused) == (403, "no_scope")
            assert "lacks the scope call:default/app" in refused.error["message"]
        assert len(replica.seen) == 12

    play(scenario, host=host)


def test_a_key_opens_apps_of_its_namespace_and_not_those_of_the_same_name_elsewhere(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica)
        pool, methods = "team/app/fn@rv-000000000001", (Method("fn"), web("theirs", "page"))
        theirs = msgspec.structs.replace(route("fn", *methods, pool=pool), namespace="team")
        rig.control.publish(routes=(theirs,), pools=(pool_row("fn", replica, pool=pool),))
        await give(rig, CI, key("team2222", "call:team/*"), key("teamapp2", "call:team/app"))
        browser = await rig.browser()
        ours, others = ("/call/app/fn",), ("/call/team/app/fn.fn", "/web/theirs/")
        for id, opened, shut in ((CI.id, ours, others), ("team2222", others, ours), ("teamapp2", others, ours)):
            assert {said(await call(browser, id, path)) for path in opened} == {(200, "")}
            assert {said(await call(browser, id, path)) for path in shut} == {(403, "no_scope")}

    play(scenario)


def test_a_key_that_does_not_work_is_told_why(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica, methods=(Method("fn"), web("open", "page")))
        now = time.time()
        await give(rig, key("late2222", "admin", expires_at=now - 1), key("gone2222", "admin", revoked_at=now), CI)
        browser = await rig.browser()
        for id, code in (("late2222", "key_expired"), ("gone2222", "key_revoked"), ("none2222", "bad_key")):
            refused = await call(browser, id, "/call/app/fn.fn")
            assert said(refused) == (401, code)
            assert refused.headers["www-authenticate"] == "Bearer"
            assert SECRET not in str(refused.body)
        assert said(await call(browser, "ci222222", "/call/app/fn.fn", secret="b" * 32)) == (401, "bad_key")
        # An open endpoint gets what is of no key of ours, and never one that was.
        assert said(await call(browser, "gone2222", "/web/open/")) == (401, "key_revoked")
        assert said(await call(browser, "none2222", "/web/open/")) == (200, "")
        assert replica.seen[-1].headers["authorization"].endswith(SECRET)

    play(scenario)


def test_a_key_is_asked_for_anew_whenever_keys_change_or_it_expires(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        assert said(await call(browser, "ci222222")) == (401, "bad_key")
        later = time.time() + 3600
        await give(rig, msgspec.structs.replace(CI, expires_at=later))
        for _ in range(2):
            assert said(await call(browser, "ci222222")) == (200, "")
        assert len(rig.front.door.remembered) == 1
        monkeypatch.setattr(door.time, "time", lambda: later)
        assert said(await call(browser, "ci222222")) == (401, "key_expired")
        monkeypatch.undo()
        assert said(await call(browser, "ci222222")) == (200, "")
        await give(rig, msgspec.structs.replace(CI, scopes=(scope_of("call:default/other"),)))
        assert said(await call(browser, "ci222222")) == (403, "no_scope")
        await give(rig, msgspec.structs.replace(CI, revoked_at=1.0))
        assert said(await call(browser, "ci222222")) == (401, "key_revoked")

    play(scenario)


def test_what_a_revoked_key_has_begun_may_finish(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        replica = await rig.replica(echo_after(gate))
        await rig.deploy(replica)
        await give(rig, CI)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"begun", authorization=f"Bearer {token(CI.id, SECRET)}"))
        await until(lambda: replica.running, "the call")
        await give(rig, msgspec.structs.replace(CI, revoked_at=1.0))
        assert said(await call(await rig.browser(), CI.id)) == (401, "key_revoked")
        gate.set()
        assert (await browser.answer()).body == b"begun"

    play(scenario)


def test_a_held_request_whose_key_was_revoked_is_not_begun_by_what_is_deployed_then(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy()
        await give(rig, CI)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"held", authorization=f"Bearer {token(CI.id, SECRET)}"))
        await until(lambda: any(pool.held for pool in rig.front.deployed.pools.values()), "the hold")
        await give(rig, msgspec.structs.replace(CI, revoked_at=1.0))
        replica = await rig.replica()
        pool = "default/app/fn@rv-000000000002"
        await rig.deploy(replica, pool=pool)
        assert said(await browser.answer()) == (401, "key_revoked")
        assert not replica.seen

    play(scenario)


def test_keys_are_known_while_control_is_away_and_after(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        await give(rig, CI)
        browser = await rig.browser()
        await rig.control.stop()
        assert said(await call(browser, CI.id)) == (200, "")
        assert said(await call(browser, "other222")) == (401, "bad_key")
        # The next control has no such key: its table is all there is.
        rig.control.table = msgspec.structs.replace(rig.control.table, version=9, keys=())
        await rig.control.start()
        await rig.seen()
        assert said(await call(browser, CI.id)) == (401, "bad_key")

    play(scenario)


def test_what_is_remembered_is_bounded(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "REMEMBERED_MAX", 10)

    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        await give(rig, key("all22222", "call:default/*"))
        browser = await rig.browser()
        for spaces in range(25):
            shown = f"Bearer {' ' * spaces}{token('all22222', SECRET)}"
            assert (await browser.call("/call/app/fn", authorization=shown)).status == 200
            assert (await browser.call("/call/app/fn", authorization=f"Bearer {spaces}")).status == 401
        assert (await browser.call("/call/app/fn", authorization="Bearer" + " " * 900 + KEY)).status == 200
        remembered = rig.front.door.remembered
        assert 0 < len(remembered) <= 10
        assert max(len(shown) for shown, *_ in remembered) < 256

    play(scenario)


def test_the_key_of_a_request_is_in_its_record(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        await give(rig, CI)
        browser = await rig.browser()
        await call(browser, CI.id)
        await browser.call("/call/app/fn", authorization=f"Bearer {CALL_KEY}")
        await browser.call("/call/app/fn")
        await until(lambda: len(rig.control.records()) == 3, "the records")
        assert [record.key for record in rig.control.records()] == [CI.id, "", ""]

    play(scenario)


def test_what_comes_with_a_key_is_counted_by_it(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        pool = await rig.deploy(await rig.replica())
        await give(rig, CI, key("other222", "call:*/*"))
        browser = await rig.browser()
        for _ in range(60):
            assert said(await call(browser, CI.id)) == (200, "")
        await call(browser, "other222")
        await browser.call("/call/app/fn")
        await browser.call("/call/app/fn", authorization=f"Bearer {KEY}")
        await until(lambda: sum(c.requests for m in rig.control.of(Requests) for c in m.counts) == 63, "the counts")
        told = [count for message in rig.control.of(Requests) for count in message.by_key]
        assert {(count.key, count.pool) for count in told} == {(CI.id, pool), ("other222", pool)}
        # Each is counted, those of whose records none is kept, too.
        mine = [count for count in told if count.key == CI.id]
        assert (sum(c.requests for c in mine), sum(c.errors for c in mine)) == (60, 0)
        assert sum(c.cpu_s for c in mine) == pytest.approx(60 * 120e-6)
        assert sum(c.cost_usd for c in mine) > 0

    play(scenario)


# -- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_key", [True, False])
def test_a_rate_lets_in_its_burst_and_tells_when_to_come_again(play: Play, of_key: bool) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        limits = Limits(burst=20, **SLOW)
        await rig.deploy(replica, limits=Limits() if of_key else limits)
        await give(rig, msgspec.structs.replace(CI, limits=limits if of_key else Limits()))
        # All at once, on many connections.
        browsers = [await rig.browser() for _ in range(10)]
        answers = [a for each in range(5) for a in await asyncio.gather(*(call(b, CI.id) for b in browsers))]
        refused = [answer for answer in answers if answer.status != 200]
        assert len(refused) == 30
        assert len(replica.seen) == 20
        for answer in refused:
            assert said(answer) == (429, "rate_limited")
            assert 900 < int(answer.headers["retry-after"]) <= 1000
            who = "the key of ci222222 (ci222222)" if of_key else "app/fn"
            assert f"Requests of {who} come faster than they may: 3.6/h, 20 at once." in answer.error["message"]
        # Without that key, and of another workload, nothing is used up.
        assert (await browsers[0].call("/call/app/fn")).status == (200 if of_key else 429)

    play(scenario)


@pytest.mark.parametrize("of_key", [True, False])
def test_so_many_at_the_same_time_and_no_more(play: Play, of_key: bool) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        replica = await rig.replica(echo_after(gate))
        limits = Limits(concurrency=3)
        await rig.deploy(replica, limits=Limits() if of_key else limits, max_inputs=1)
        await give(rig, msgspec.structs.replace(CI, limits=limits if of_key else Limits()))
        waiting = [await rig.browser() for _ in range(3)]
        for browser in waiting:
            browser.send(request("/call/app/fn", b"x", authorization=f"Bearer {token(CI.id, SECRET)}"))
        # One runs, and those that wait count, too.
        await until(lambda: sum(pool.held_count for pool in rig.front.deployed.pools.values()) == 2, "two that wait")
        more = await rig.browser()
        refused = await call(more, CI.id)
        assert (said(refused), refused.headers["retry-after"]) == ((429, "too_many_in_flight"), "1")
        # Who leaves makes room.
        waiting.pop().close()
        await until(lambda: sum(pool.held_count for pool in rig.front.deployed.pools.values()) == 1, "one that left")
        more.send(request("/call/app/fn", b"y", authorization=f"Bearer {token(CI.id, SECRET)}"))
        await until(lambda: sum(pool.held_count for pool in rig.front.deployed.pools.values()) == 2, "its place")
        gate.set()
        assert [(await each.answer()).status for each in (*waiting, more)] == [200, 200, 200]
        assert said(await call(more, CI.id)) == (200, "")

    play(scenario)


def test_both_limits_hold_and_neither_pays_for_the_other(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), limits=Limits(burst=3, **SLOW))
        await rig.deploy(await rig.replica(), name="free")
        await give(rig, msgspec.structs.replace(CI, limits=Limits(burst=5, **SLOW)))
        browser = await rig.browser()
        assert [(await call(browser, CI.id)).status for _ in range(6)] == [200] * 3 + [429] * 3
        assert [(await call(browser, CI.id, "/call/app/free")).status for _ in range(3)] == [200, 200, 429]

    play(scenario)


def test_a_deploy_and_other_keys_give_nothing_back(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        limits = Limits(burst=2, **SLOW)
        replica = await rig.replica()
        await rig.deploy(replica, limits=limits)
        await give(rig, msgspec.structs.replace(CI, limits=Limits(burst=4, **SLOW)))
        browser = await rig.browser()
        assert [(await call(browser, CI.id)).status for _ in range(3)] == [200, 200, 429]
        await rig.deploy(replica, limits=limits, pool="default/app/fn@rv-000000000002")
        await give(rig, key("other222", "admin"))
        assert (await call(browser, CI.id)).status == 429
        # One that lifts its limit lets in; that of the key holds on.
        await rig.deploy(replica, pool="default/app/fn@rv-000000000003")
        assert [(await call(browser, CI.id)).status for _ in range(3)] == [200, 200, 429]

    play(scenario)


def test_gateways_share_what_may_come(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), limits=Limits(burst=8, **SLOW))
        await rig.control.stop()
        rig.control.table = msgspec.structs.replace(rig.control.table, version=9, gateways=4)
        await rig.control.start()
        await rig.seen()
        browser = await rig.browser()
        # The table told of four after the gateway knew of one: what is left fits the share.
        assert [(await browser.call("/call/app/fn")).status for _ in range(4)] == [200, 200, 429, 429]

    play(scenario)


def test_one_that_moves_with_a_deploy_was_let_in_once(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        limits = Limits(burst=2, concurrency=1, **SLOW)
        await rig.deploy(limits=limits)
        browser, other = await rig.browser(), await rig.browser()
        browser.send(request("/call/app/fn", b"held"))
        await until(lambda: any(pool.held for pool in rig.front.deployed.pools.values()), "the hold")
        await rig.deploy(await rig.replica(), limits=limits, pool="default/app/fn@rv-000000000002")
        assert (await browser.answer()).body == b"held"
        assert [(await other.call("/call/app/fn")).status for _ in range(2)] == [200, 429]

    play(scenario)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_longer_than_a_key_may_send(play: Play, chunked: bool) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), limits=Limits(body_max=2000))
        await give(rig, msgspec.structs.replace(CI, limits=Limits(body_max=1000)))
        browser = await rig.browser()
        bearer = f"Bearer {token(CI.id, SECRET)}"
        if chunked:
            head = request("/call/app/fn", authorization=bearer, transfer_encoding="chunked")
            head = head.replace(b"content-length: 0\r\n", b"")
            browser.send(head + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n")
        else:
            browser.send(request("/call/app/fn", b"x" * 1001, authorization=bearer))
        answer = await browser.answer()
        assert said(answer) == (413, "body_too_large")
        assert answer.error["message"] == "A body may have 1000 bytes (body_max of the key of ci222222 (ci222222))."
        assert (await call(await rig.browser(), CI.id, body=b"x" * 1000)).status == 200
        anyone = await rig.browser()
        assert (await anyone.call("/call/app/fn", b"x" * 2000)).status == 200
        refused = await anyone.call("/call/app/fn", b"x" * 2001)
        assert "A body may have 2000 bytes (body_max of app/fn)" in refused.error["message"]

    play(scenario)


def test_a_key_may_wait_for_so_long(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        await rig.deploy(await rig.replica(echo_after(gate)))
        await give(rig, msgspec.structs.replace(CI, limits=Limits(timeout_s=0.2)))
        browser = await rig.browser()
        late = await call(browser, CI.id)
        assert said(late) == (504, "deadline")
        assert "0.2 s (timeout of the key of ci222222 (ci222222))" in late.error["message"]
        # A shorter wait of the caller's own is the caller's.
        sooner = await call(await rig.browser(), CI.id, swell_timeout="0.1")
        assert "0.1 s (the caller's Swell-Timeout)" in sooner.error["message"]
        gate.set()

    play(scenario)


@pytest.mark.parametrize("path", ["/call/ap/fn.run", "/call/app/ran", "/web/opne/", "/v2/models/zzz", "/v1/models/zzz"])
def test_where_a_key_is_needed_nobody_without_one_is_told_what_there_is(play: Play, path: str) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), methods=(Method("run"), web("open", "page")))
        browser = await rig.browser()
        method = "GET" if path.startswith("/v") else "POST"
        for shown in ({}, {"authorization": "Bearer nearly"}):
            unknown = await browser.call(path, method=method, **shown)
            assert unknown.status == 401
            assert b"fn" not in unknown.body
            assert b"open" not in unknown.body
        assert (await browser.call(path, method=method, authorization=f"Bearer {CALL_KEY}")).status == 404

    play(scenario, host="0.0.0.0")


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS"])
def test_where_a_key_is_needed_a_wrong_method_does_not_tell_that_a_function_is_there(play: Play, method: str) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), methods=(Method("run"),))
        browser = await rig.browser()
        there, nowhere = [said(await browser.call(f"/call/app/{name}", method=method)) for name in ("fn.run", "fn.ran")]
        assert there == nowhere == (401, "no_key")
        wrong = await browser.call("/call/app/fn.run", method=method, authorization=f"Bearer {CALL_KEY}")
        assert said(wrong) == (405, "method_not_allowed")

    play(scenario, host="0.0.0.0")
