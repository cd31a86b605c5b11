"""Do requests reach replicas and answers their callers, in every form HTTP/1.1 has?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import h11
from rig import CALL_KEY, KEY, Exchange, Reader, Rig, echo, echo_after, request, stream, until, web

from swell.model.workload import Method

Play = Callable[..., None]


def test_a_call_is_answered(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica)
        browser = await rig.browser()
        answer = await browser.call("/call/app/fn", b'{"x": 1}', content_type="application/json", x_mine="kept")
        assert (answer.status, answer.body) == (200, b'{"x": 1}')
        assert answer.names[0] == "swell-request-id"
        assert answer.headers["swell-request-id"].startswith("g1-")
        assert answer.headers["server-timing"].startswith("held;dur=")
        assert "run;dur=1.50" in answer.headers["server-timing"]
        # 120 µs of a core and 1.5 ms of half a GiB, at the default prices.
        dollars = (120e-6 * 0.0316 + 1.5e-3 * 0.5 * 0.0042) / 3600
        assert abs(float(answer.headers["swell-cost-usd"]) - dollars) < 1e-12
        assert "swell-cpu-us" not in answer.names
        assert "swell-run-us" not in answer.names
        assert "swell-cold" not in answer.names
        seen = replica.seen[0]
        assert (seen.method, seen.target) == ("POST", "/call/fn")
        assert seen.headers["swell-request-id"] == answer.headers["swell-request-id"]
        assert 0 < int(seen.headers["swell-remaining-ms"]) <= 30_000
        assert seen.headers["x-mine"] == "kept"
        assert "swell-trusted" not in seen.headers

    play(scenario)


def test_connections_are_kept_on_both_sides(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica)
        browser = await rig.browser()
        for n in range(20):
            assert (await browser.call("/call/app/fn", b"%d" % n)).body == b"%d" % n
        assert replica.connections == 1
        assert len({exchange.headers["swell-request-id"] for exchange in replica.seen}) == 20

    play(scenario)


def test_bodies_of_any_size_go_through_unchanged_both_ways(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica)
        browser = await rig.browser()
        for size in (1, 65536, 65537, 300_000, 5_000_000):
            body = bytes(range(256)) * (size // 256 + 1)
            answer = await browser.call("/call/app/fn", body[:size])
            assert answer.body == body[:size]
            chunks = [body[at : at + 70_000] for at in range(0, size, 70_000)]
            chunks[-1] = chunks[-1][: size % 70_000 or 70_000]
            browser.send(request("/call/app/fn", method="PUT", transfer_encoding="chunked").replace(b"PUT", b"POST"))
            for piece in chunks:
                browser.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            browser.send(b"0\r\nx-trailer: some\r\n\r\n")
            assert (await browser.answer()).body == b"".join(chunks)
            assert replica.seen[-1].headers["transfer-encoding"] == "chunked"

    play(scenario)


def test_a_stream_arrives_item_by_item_and_ends_with_its_meters(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()

        async def gated(exchange: Exchange, reader: Reader) -> None:
            exchange.send(h11.Response(status_code=200, headers=[]))
            exchange.send(h11.Data(data=b"first"))
            await gate.wait()
            exchange.send(h11.EndOfMessage())

        await rig.deploy(await rig.replica(stream))
        await rig.deploy(await rig.replica(gated), name="gated")
        browser = await rig.browser()
        answer = await browser.call("/call/app/fn")
        assert answer.body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
        assert "run;dur=9.00" in answer.trailers["server-timing"]
        assert float(answer.trailers["swell-cost-usd"]) > 0
        assert answer.trailers["x-sum"] == "3"
        assert "swell-cpu-us" not in answer.trailers
        browser.send(request("/call/app/gated"))
        await browser.head()
        assert bytes((await browser.data()).data) == b"first"
        gate.set()
        assert isinstance(await browser.data(), h11.EndOfMessage)

    play(scenario)


def test_http_1_0_clients_get_no_chunks(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(stream))
        await rig.deploy(await rig.replica(), name="echo")
        browser = await rig.browser()
        browser.send(b"POST /call/app/fn HTTP/1.0\r\n\r\n")
        head, _, body = (await browser.rest()).partition(b"\r\n\r\n")
        assert body == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
        assert b"chunked" not in head
        assert b"connection: close" in head
        kept = await rig.browser()
        for _ in range(2):
            kept.send(b"POST /call/app/echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi")
            answer = await kept.answer()
            assert (answer.body, answer.headers["connection"]) == (b"hi", "keep-alive")

    play(scenario)


def test_an_answer_without_a_length_ends_with_its_connection(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def old(exchange: Exchange, reader: Reader) -> None:
            exchange.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nuntil ")
            await asyncio.sleep(0.02)
            exchange.writer.write(b"the end")

        await rig.deploy(await rig.replica(old, native=False), native=False)
        browser = await rig.browser()
        for _ in range(2):
            answer = await browser.call("/call/app/fn")
            assert (answer.status, answer.body) == (200, b"until the end")

    play(scenario)


def test_head_and_bodiless_answers(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def page(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            if exchange.target == "/none":
                exchange.send(h11.Response(status_code=204, headers=[]))
                exchange.send(h11.EndOfMessage())
            else:
                await exchange.answer(body=b"some page")

        await rig.deploy(await rig.replica(page), methods=(web("page"),))
        browser = await rig.browser()
        for _ in range(2):
            answer = await browser.call("/web/page/", method="HEAD")
            assert (answer.status, answer.headers["content-length"], answer.body) == (200, "9", b"")
            assert (await browser.call("/web/page/none", method="GET")).status == 204
            assert (await browser.call("/web/page/", method="GET")).body == b"some page"

    play(scenario)


def test_headers_about_the_connection_are_not_passed_on(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def hop(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            await exchange.answer(
                connection="x-secret",
                x_secret="hidden",
                keep_alive="timeout=9",
                x_open="shown",
                swell_error="no number",
            )

        replica = await rig.replica(hop)
        await rig.deploy(replica)
        browser = await rig.browser()
        answer = await browser.call(
            "/call/app/fn",
            connection="keep-alive, X-Drop",
            x_drop="1",
            keep_alive="5",
            te="trailers",
            swell_trusted="1",
            swell_remaining_ms="1",
            swell_request_id="mine",
        )
        assert answer.headers.get("x-open") == "shown"
        assert not {"x-secret", "keep-alive", "connection"} & set(answer.names)
        seen = replica.seen[0].headers
        assert not {"x-drop", "keep-alive", "swell-trusted"} & set(seen)
        assert (seen["te"], seen["connection"]) == ("trailers", "TE")
        assert seen["swell-request-id"] != "mine"
        assert int(seen["swell-remaining-ms"]) > 1

    play(scenario)


def test_pipelined_requests_are_answered_in_order(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def moody(exchange: Exchange, reader: Reader) -> None:
            body = await exchange.read_body(reader)
            await asyncio.sleep(0.05 if body.endswith(b"0") else 0.0)
            await exchange.answer(body=body)

        await rig.deploy(await rig.replica(moody), max_inputs=100)
        browser = await rig.browser()
        names = [b"%d" % n for n in range(40)]
        for name in names:
            browser.send(request("/call/app/fn" if name != b"13" else "/call/app/nothing", name))
        for name in names:
            answer = await browser.answer()
            assert answer.status == (404 if name == b"13" else 200)
            if name != b"13":
                assert answer.body == name

    play(scenario)


def test_thousands_of_refusals_in_one_read_do_not_pile_up(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()
        browser.send(request("/x", method="GET") * 3000)
        for _ in range(3000):
            assert (await browser.answer()).status == 404

    play(scenario)


def test_continue_is_said_when_the_replica_takes_the_request(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy()
        browser = await rig.browser()
        browser.send(request("/call/app/fn", expect="100-continue", content_length="5"))
        await until(lambda: (1, 0) in rig.control.levels("default/app/fn@rv-000000000001"))
        assert browser.interim == []
        await rig.endpoints("fn", replica)
        head = asyncio.ensure_future(browser.answer())
        await until(lambda: browser.interim == [100])
        browser.send(b"hello")
        assert (await head).body == b"hello"
        assert "expect" not in replica.seen[0].headers
        # A refusal comes at once, and closes: whether the body follows cannot be known.
        browser.send(request("/call/app/none", expect="100-continue", content_length="5"))
        answer = await browser.answer()
        assert (answer.status, answer.headers["connection"]) == (404, "close")

    play(scenario)


def test_a_half_closed_client_still_gets_its_answer(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def slow(exchange: Exchange, reader: Reader) -> None:
            await exchange.read_body(reader)
            await asyncio.sleep(0.2)
            exchange.send(h11.Response(status_code=200, headers=[]))
            exchange.send(h11.Data(data=b"one "))
            await asyncio.sleep(0.2)
            exchange.send(h11.Data(data=b"two"))
            exchange.send(h11.EndOfMessage())

        await rig.deploy(await rig.replica(slow))
        browser = await rig.browser()
        browser.send(request("/call/app/fn"))
        browser.writer.write_eof()
        assert (await browser.answer()).body == b"one two"
        assert await browser.rest() == b""

    play(scenario)


def test_a_half_closed_client_of_a_quick_answer_is_told_nothing_else(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"quick"))
        browser.writer.write_eof()
        assert (await browser.answer()).body == b"quick"
        assert browser.interim == []

    play(scenario)


def test_an_answer_before_the_body_was_read(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        async def early(exchange: Exchange, reader: Reader) -> None:
            await exchange.answer(413, b"no")

        replica = await rig.replica(early)
        await rig.deploy(replica)
        browser = await rig.browser()
        browser.send(request("/call/app/fn", content_length="1000") + b"x" * 10)
        assert (await browser.answer()).status == 413
        # The short rest of the body is thrown away, and the connection goes on.
        browser.send(b"x" * 990 + request("/call/app/fn", content_length="50000000") + b"x" * 500_000)
        assert (await browser.answer()).status == 413
        # A long one is not worth it.
        assert await browser.rest() == b""

    play(scenario)


def test_a_stalled_reader_stalls_the_replica_and_loses_nothing(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        sent = 0

        async def flood(exchange: Exchange, reader: Reader) -> None:
            nonlocal sent
            await exchange.read_body(reader)
            exchange.send(h11.Response(status_code=200, headers=[]))
            for _ in range(400):
                exchange.send(h11.Data(data=b"x" * 100_000))
                await exchange.writer.drain()
                sent += 100_000
            exchange.send(h11.EndOfMessage())

        await rig.deploy(await rig.replica(flood))
        browser = await rig.browser()
        browser.send(request("/call/app/fn"))
        await browser.head()
        last = -1
        while last != sent:
            last = sent
            await asyncio.sleep(0.2)
        assert sent < 30_000_000
        total = 0
        while isinstance(event := await browser.data(), h11.Data):
            total += len(event.data)
        assert total == 40_000_000
        assert (await browser.call("/healthz", method="GET")).status == 200

    play(scenario)


def test_a_stalled_replica_stalls_the_client(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()

        async def sip(exchange: Exchange, reader: Reader) -> None:
            await gate.wait()
            await exchange.answer(body=b"%d" % len(await exchange.read_body(reader)))

        await rig.deploy(await rig.replica(sip))
        browser = await rig.browser()
        browser.send(request("/call/app/fn", b"y" * 40_000_000))
        last = -1
        while last != (left := browser.writer.transport.get_write_buffer_size()):
            last = left
            await asyncio.sleep(0.2)
        assert left > 10_000_000
        gate.set()
        assert (await browser.answer()).body == b"40000000"

    play(scenario)


def test_web_endpoints_by_path_and_by_host(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica, methods=(web("shop"),))
        browser = await rig.browser()
        assert (await browser.call("/web/shop/a/b%20c?q=1", b"x", method="PUT")).status == 200
        seen = replica.seen[-1]
        assert (seen.method, seen.target) == ("PUT", "/a/b%20c?q=1")
        assert (seen.headers["swell-web"], seen.headers["swell-root-path"]) == ("fn", "/web/shop")
        for host in ("shop.localhost", "Shop.localhost:8470"):
            assert (await browser.call("/call/app/fn", b"", host=host)).status == 200
            seen = replica.seen[-1]
            assert (seen.target, seen.headers["host"]) == ("/call/app/fn", host)
            assert "swell-root-path" not in seen.headers
        browser.send(b"GET http://shop.localhost/there?x HTTP/1.1\r\nHost: elsewhere\r\n\r\n")
        assert (await browser.answer("GET")).status == 200
        assert replica.seen[-1].target == "/there?x"
        assert replica.seen[-1].headers["host"] == "shop.localhost"
        assert (await browser.call("/call/app/fn")).error["code"] == "unknown_function"
        assert "shop" in (await browser.call("/web/shpo/", method="GET")).error["message"]

    play(scenario)


def test_foreign_processes_see_only_the_id(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica(native=False)
        await rig.deploy(replica, methods=(web("svc", kind="server"),), native=False)
        browser = await rig.browser()
        answer = await browser.call("/web/svc/x", b"hi", authorization="Bearer theirs")
        assert answer.body == b"hi"
        assert "swell-cost-usd" not in answer.names
        assert "run;dur=" in answer.headers["server-timing"]
        seen = replica.seen[0].headers
        assert [name for name in seen if name.startswith("swell-")] == ["swell-request-id"]
        assert seen["authorization"] == "Bearer theirs"

    play(scenario)


def test_the_api_is_forwarded_as_it_is(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()
        answer = await browser.call("/api/apps", b"[]")
        assert (answer.status, answer.error["code"]) == (503, "control_down")
        assert answer.headers["retry-after"] == "1"
        api = await rig.replica(echo, native=False, start=False)
        api.path = str(rig.settings.paths.api_socket)
        await api.start()
        assert (await browser.call("/api/apps?all=1", b"[1]", authorization=f"Bearer {KEY}", origin="x")).body == b"[1]"
        assert api.seen[0].target == "/api/apps?all=1"
        assert api.seen[0].headers["authorization"] == f"Bearer {KEY}"
        assert api.seen[0].headers["origin"] == "x"

    play(scenario)


def test_healthz(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        browser = await rig.browser()
        assert (await browser.call("/healthz", method="GET")).status == 200
        assert (await browser.call("/healthz", method="HEAD")).body == b""
        refused = await browser.call("/healthz", method="POST")
        assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")

    play(scenario, control=False)


def test_the_key_on_loopback(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        replica = await rig.replica()
        await rig.deploy(replica, methods=(Method("run"), web("open", "page"), web("shut", "vault", needs_key=True)))
        browser = await rig.browser()
        for key in (KEY, CALL_KEY):
            assert (await browser.call("/call/app/fn.run", authorization=f"Bearer {key}")).status == 200
            assert replica.seen[-1].headers["swell-trusted"] == "1"
            assert "authorization" not in replica.seen[-1].headers
        assert (await browser.call("/call/app/fn.run")).status == 200
        assert "swell-trusted" not in replica.seen[-1].headers
        wrong = await browser.call("/call/app/fn.run", authorization="Bearer nearly")
        assert (wrong.status, wrong.error["code"]) == (401, "bad_key")
        assert (await browser.call("/web/open/", authorization="Basic eA==")).status == 200
        assert replica.seen[-1].headers["authorization"] == "Basic eA=="
        refused = await browser.call("/web/shut/", method="GET")
        assert (refused.status, refused.error["code"]) == (401, "no_key")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert (await browser.call("/web/shut/", authorization=f"bearer {KEY}")).status == 200

    play(scenario)


def test_everything_but_health_needs_the_key_elsewhere(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica(), methods=(Method("run"), web("open", "page")))
        browser = await rig.browser()
        for path in ("/call/app/fn.run", "/web/open/"):
            assert (await browser.call(path)).status == 401
            assert (await browser.call(path, authorization="Bearer nearly")).status == 401
            assert (await browser.call(path, authorization=f"Bearer {CALL_KEY}")).status == 200
        assert (await browser.call("/healthz", method="GET")).status == 200

    play(scenario, host="0.0.0.0")


def test_errors_name_the_way_out(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.deploy(await rig.replica())
        browser = await rig.browser()
        for path, status, code, words in (
            ("/call/ap/fn", 404, "unknown_app", "app"),
            ("/call/app/fm", 404, "unknown_function", "Did you mean fn?"),
            ("/call/app", 404, "unknown_path", "/call/{app}/{function}"),
            ("/nothing", 404, "unknown_path", "/web/{label}/"),
        ):
            answer = await browser.call(path)
            assert (answer.status, answer.error["code"]) == (status, code)
            assert words in answer.error["message"]
            assert answer.error["request"] == answer.headers["swell-request-id"]
        wrong = await browser.call("/call/app/fn", method="GET")
        assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
        late = await browser.call("/call/app/fn", swell_timeout="soon")
        assert (late.status, late.error["code"]) == (400, "bad_request")
        assert json.loads(late.body)["error"]["message"].startswith("Swell-Timeout")

    play(scenario)


def test_the_batch_of_one_replica_is_filled_before_that_of_another(play: Play) -> None:
    async def scenario(rig: Rig) -> None:
        gate = asyncio.Event()
        replicas = [await rig.replica(echo_after(gate)) for _ in range(3)]
        await rig.deploy(*replicas, max_inputs=8, batch_max=4)
        calls = []
        for number in range(1, 13):
            calls.append(asyncio.create_task((await rig.browser()).call("/call/app/fn")))
            await until(lambda number=number: sum(one.running for one in replicas) == number, "it is there")
            assert sum(one.running % 4 != 0 for one in replicas) <= 1
        assert sorted(one.running for one in replicas) in ([4, 4, 4], [0, 4, 8])
        gate.set()
        assert {(await call).status for call in calls} == {200}

    play(scenario)
