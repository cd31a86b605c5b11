"""Web endpoints of a replica: ASGI applications, plain functions, processes that listen by themselves."""

from __future__ import annotations

import os
import socket
import sys
import time

import msgspec
import pytest
from replica_harness import ReplicaProcess, ready_replica, stops_growing, until

from swell.model.workload import Entry, Method, Web
from swell.wire.child import Drain, Failed
from swell.wire.identity import identify

pytestmark = pytest.mark.slow

ASGI = """
    import asyncio
    from urllib.parse import unquote_to_bytes
    counter = open("counter", "ab", buffering=0)

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                print(message["type"])
                if message["type"] == "lifespan.startup":
                    scope["state"]["model"] = "loaded"
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        path = scope["path"].removeprefix(scope["root_path"])
        if path == "/echo":
            await echo(scope, receive, send)
        elif path == "/upper":
            await upper(receive, send)
        elif path == "/forever":
            await forever(send)
        elif path == "/told":
            await told(receive, send)
        elif path == "/raise":
            raise ValueError("no")
        elif path == "/late":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"some", "more_body": True})
            raise ValueError("no")
        elif path == "/background":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"there"})
            await asyncio.sleep(1)
            raise ValueError("after the answer")
        elif path == "/split":
            name, value = scope["query_string"].split(b"=", 1)
            headers = [(unquote_to_bytes(name), unquote_to_bytes(value))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"whole"})
        elif path == "/early":
            await send({"type": "http.response.start", "status": 103, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        elif path == "/trailers":
            assert "http.response.trailers" in scope["extensions"]
            length = [(b"content-length", b"4")] if scope["query_string"] else []
            await send({"type": "http.response.start", "status": 200, "headers": length, "trailers": True})
            await send({"type": "http.response.body", "body": b"body"})
            await send({"type": "http.response.trailers", "headers": [(b"x-one", b"1")], "more_trailers": True})
            await send({"type": "http.response.trailers", "headers": [(b"x-two", b"2")]})
        elif path == "/untrailed":
            await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
            await send({"type": "http.response.body", "body": b"body"})
        elif path == "/nothing":
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

    async def echo(scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        headers = [(b"x-seen", name + b"=" + value) for name, value in scope["headers"] if name.startswith(b"swell-")]
        headers += [(b"x-path", scope["path"].encode()), (b"x-query", scope["query_string"])]
        headers += [(b"x-root", scope["root_path"].encode()), (b"x-state", scope["state"]["model"].encode())]
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def upper(receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"].upper(), "more_body": more})

    async def forever(send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                counter.write(b".")
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                await asyncio.sleep(0.005)
        finally:
            print("cancelled")

    async def told(receive, send):
        await receive()
        counter.write(b".")
        message = await receive()
        print("heard", message["type"])

    def thing():
        return app
"""


def _web(kind: str, name: str = "thing", **web: object) -> Entry:
    return Entry("user_code", name, "function", (Method(name, web=Web(kind, "label", **web)),))  # type: ignore[arg-type]


HEAD = {"Swell-Web": "thing"}


def test_an_asgi_app_gets_its_scope_and_its_lifespan() -> None:
    with ready_replica(ASGI, _web("asgi")) as replica:
        status, headers, body = replica.request(
            "/echo?a=1", b"hello", {**HEAD, "Swell-Root-Path": "/web/label", "Swell-Remaining-Ms": "9000"}
        )
        assert (status, body) == (201, b"hello")
        assert headers["x-path"] == "/web/label/echo"
        assert (headers["x-root"], headers["x-query"], headers["x-state"]) == ("/web/label", "a=1", "loaded")
        assert headers["x-seen"] == "swell-request-id=q1"
        assert int(headers["swell-run-us"]) > 0
        assert replica.request("/nothing", headers=HEAD)[::2] == (204, b"")
        assert replica.request("/echo", method="HEAD", headers=HEAD)[0] == 201
        replica.tell(Drain(reason="test"))
        assert replica.wait() == 0
        assert replica.printed("lifespan.startup")
        assert replica.printed("lifespan.shutdown")


def test_an_asgi_app_sees_the_id_of_each_request_on_one_connection_and_has_its_slot_free_by_then() -> None:
    with ready_replica(ASGI, _web("asgi")) as replica:
        connection = replica.connect()
        for number in range(50):
            own = {"Swell-Request-Id": f"q{number}", "Swell-Remaining-Ms": f"{9000 - number}"}
            connection.request("POST", "/echo", b"hello", {**own, **HEAD})
            answer = connection.getresponse()
            assert (answer.read(), answer.headers["x-seen"]) == (b"hello", f"swell-request-id=q{number}")
        connection.close()


def test_an_asgi_app_that_goes_on_after_its_answer_keeps_its_slot_and_the_caller_has_the_answer() -> None:
    with ready_replica(ASGI, _web("asgi")) as replica:
        assert replica.request("/background", b"hello", headers=HEAD)[::2] == (200, b"there")
        status, _, body = replica.request("/echo", b"hello", headers=HEAD)
        assert (status, msgspec.json.decode(body)["error"]["code"]) == (503, "busy")
        end = time.monotonic() + 20
        while replica.request("/echo", b"hello", headers=HEAD)[0] != 201:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert replica.printed("after the answer")


def test_trailers_of_an_asgi_app_come_behind_its_body() -> None:
    with ready_replica(ASGI, _web("asgi")) as replica:
        for path in ("/trailers", "/trailers?length", "/untrailed"):
            sock = replica.begin(path, headers="Swell-Web: thing\r\nConnection: close\r\n")
            answer = b""
            while data := sock.recv(1000):
                answer += data
            if path == "/trailers":
                assert b"\r\n4\r\nbody\r\n0\r\nx-one: 1\r\nx-two: 2\r\nSwell-Cpu-Us: " in answer
                assert answer.endswith(b"\r\n\r\n")
            elif path == "/untrailed":
                assert answer.endswith(b"\r\n4\r\nbody\r\n")
            else:
                assert answer.endswith(b"\r\n\r\nbody")
                assert b"x-one" not in answer


def test_an_asgi_app_streams_both_ways_at_once() -> None:
    with ready_replica(ASGI, _web("asgi")) as replica:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(20)
        sock.connect(replica.path)
        sock.sendall(b"POST /upper HTTP/1.1\r\nHost: x\r\nSwell-Web: thing\r\nTransfer-Encoding: chunked\r\n\r\n")
        seen = b""
        for word in (b"one", b"two"):
            sock.sendall(b"%x\r\n%s\r\n" % (len(word), word))
            while word.upper() not in seen:
                seen += sock.recv(4096)
        sock.sendall(b"0\r\n\r\n")
        while not seen.endswith(b"\r\n\r\n") or b"0\r\nSwell-Cpu-Us" not in seen:
            seen += sock.recv(4096)
        sock.close()
        big = os.urandom(3_000_000)
        assert replica.request("/echo", big, HEAD)[2] == big


def test_a_caller_that_leaves_an_asgi_app_is_told_to_it_and_then_ends_it() -> None:
    with ready_replica(ASGI, _web("asgi")) as replica:
        counter = replica.folder / "counter"
        sock = replica.begin("/forever", headers="Swell-Web: thing\r\n", method="GET")
        until(lambda: counter.stat().st_size > 3, "it streams")
        sock.close()
        until(lambda: replica.request("/echo", headers=HEAD)[0] == 201, "the slot is free")
        assert stops_growing(counter)
        assert replica.printed("cancelled")
        before = counter.stat().st_size
        sock = replica.begin("/told", headers="Swell-Web: thing\r\n", method="GET")
        until(lambda: counter.stat().st_size > before, "it waits")
        sock.close()
        until(lambda: replica.printed("heard http.disconnect"), "the message")


def test_a_header_that_would_split_the_answer_is_an_error_of_the_app() -> None:
    with ready_replica(ASGI, _web("asgi")) as replica:
        status, headers, body = replica.request("/split?x-user=caf%E9%09ok", headers=HEAD)
        assert (status, headers["x-user"], body) == (200, "caf\xe9\tok", b"whole")
        for bad in (
            "x-user=a%0D%0AX-Evil:%201",
            "x-user=a%0D%0A%0D%0AHTTP/1.1%20200",
            "x-user=a%0A",
            "x%0D%0Ay=1",
            "x:y=1",
            "=1",
        ):
            status, headers, body = replica.request(f"/split?{bad}", headers=HEAD)
            assert (status, "x-evil" in headers) == (500, False), bad
            assert "header" in msgspec.json.decode(body)["error"]["message"]
        status, _, body = replica.request("/early", headers=HEAD)
        assert (status, b"from 200 to 599" in body) == (500, True)


def test_errors_of_an_asgi_app() -> None:
    with ready_replica(ASGI, _web("asgi")) as replica:
        status, _, body = replica.request("/raise", headers=HEAD)
        assert status == 500
        assert msgspec.json.decode(body)["error"]["message"] == "ValueError: no"
        sock = replica.begin("/late", headers="Swell-Web: thing\r\n")
        seen = b""
        while data := sock.recv(4096):
            seen += data
        assert seen.startswith(b"HTTP/1.1 200")
        assert b"\r\n0\r\n" not in seen
        sock.close()
        assert replica.request("/unanswered", headers=HEAD)[0] == 500
        assert replica.request("/echo", headers={"Swell-Web": "other"})[0] == 404
        assert replica.request("/forever", headers={**HEAD, "Swell-Remaining-Ms": "0"})[0] == 504


def test_an_asgi_app_whose_start_up_fails_or_that_is_none() -> None:
    source = """
        async def app(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})
        def thing():
            return app
        def wrong():
            return 5
    """
    with ReplicaProcess(source, _web("asgi")) as replica:
        assert "no database" in replica.failed().detail
    with ReplicaProcess(source, _web("asgi", "wrong")) as replica:
        failed = replica.failed()
        assert failed.reason == "bad_entry"
        assert "int" in failed.detail


def test_an_app_without_lifespan_of_a_starlette_kind() -> None:
    source = """
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse
        from starlette.routing import Route
        async def home(request):
            return JSONResponse({"q": request.query_params["q"], "url": str(request.url_for("home").path)})
        async def thing():
            return Starlette(routes=[Route("/home", home)])
    """
    with ready_replica(source, _web("asgi")) as replica:
        _, _, body = replica.request("/home?q=5", method="GET", headers={**HEAD, "Swell-Root-Path": "/web/label"})
        assert msgspec.json.decode(body) == {"q": "5", "url": "/web/label/home"}


ENDPOINT = """
    import sys
    sys.modules["fastapi"] = None  # as where it is not installed
    from dataclasses import dataclass
    @dataclass
    class Item:
        name: str
        price: float = 1.0
    def thing(n: int, tags: list[str] = [], loud: bool = False):
        return {"n": n, "tags": tags, "loud": loud}
    def item(item: Item, times: int = 1):
        return {"name": item.name * times, "price": item.price}
    def items(n: int):
        yield from range(n)
    async def hello():
        return "hello"
"""


def test_a_plain_function_takes_its_arguments_from_the_query_and_from_json() -> None:
    with ready_replica(ENDPOINT, _web("endpoint")) as replica:
        _, headers, body = replica.request("/?n=3&tags=a&tags=b&loud=true&utm_source=x", method="GET", headers=HEAD)
        assert msgspec.json.decode(body) == {"n": 3, "tags": ["a", "b"], "loud": True}
        assert headers["content-type"] == "application/json"
        status, _, body = replica.request("/?n=three", method="GET", headers=HEAD)
        assert status == 422
        assert b"'n'" in body
        assert replica.request("/", method="GET", headers=HEAD)[0] == 422
        status, headers, _ = replica.request("/?n=3", headers=HEAD)
        assert (status, headers["allow"]) == (405, "GET")
        assert replica.request("/other?n=3", method="GET", headers=HEAD)[0] == 404
    with ready_replica(ENDPOINT, _web("endpoint", "item", http_method="POST")) as replica:
        head = {"Swell-Web": "item"}
        _, _, body = replica.request("/?times=2", b'{"name": "tea"}', head)
        assert msgspec.json.decode(body) == {"name": "teatea", "price": 1.0}
        assert replica.request("/", b"[1]", head)[0] == 400
    with ready_replica(ENDPOINT, _web("endpoint", "items")) as replica:
        _, _, body = replica.request("/?n=2", method="GET", headers={"Swell-Web": "items"})
        assert body == b"data: 0\n\ndata: 1\n\nevent: end\ndata:\n\n"
    with ready_replica(ENDPOINT, _web("endpoint", "hello")) as replica:
        assert replica.request("/", method="GET", headers={"Swell-Web": "hello"})[2] == b'"hello"'


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


SERVER = """
    import subprocess, sys
    SERVE = '''
    import http.server, os, signal, sys
    signal.alarm(60)
    print("server pid", os.getpid(), flush=True)
    http.server.test(http.server.SimpleHTTPRequestHandler, port=%d, bind="127.0.0.1")
    '''.replace("\\n    ", "\\n")
    def thing():
        subprocess.Popen([{python!r}, "-c", SERVE % {port}])
    def blocking():
        subprocess.run([{python!r}, "-c", SERVE % {port}])
    def absent():
        pass
    def failing():
        subprocess.Popen([{python!r}, "-c", "import sys; sys.exit('no weights')"])
    def helped():
        import http.server, os, threading, time
        helper = subprocess.Popen([{python!r}, "-c", "import sys; sys.exit('no helper')"])
        def serve():
            # Nobody has waited for it yet: the start can see how it ended, and has the time to.
            os.waitid(os.P_PID, helper.pid, os.WEXITED | os.WNOWAIT)
            time.sleep(0.5)
            http.server.HTTPServer(("127.0.0.1", {port}), http.server.SimpleHTTPRequestHandler).serve_forever()
        threading.Thread(target=serve, daemon=True).start()
    def background():
        subprocess.Popen([{python!r}, "-c", "import os; os.fork() and os._exit(0)\\n" + SERVE % {port}])
    def broken():
        raise OSError("no such program")
"""


@pytest.mark.parametrize("name", ["thing", "blocking"])
def test_a_process_that_listens_is_ready_when_it_does_and_ends_with_the_replica(name: str) -> None:
    port = _free_port()
    source = SERVER.format(python=sys.executable, port=port)
    with ready_replica(source, _web("server", name, port=port), listen=False) as replica:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        until(lambda: replica.printed("server pid"), "its pid")
        pid = int(replica.printed("server pid")[0][2].split()[-1])
        replica.tell(Drain(reason="test"))
        assert replica.wait() == 0
        until(lambda: identify(pid) is None, "the server is gone")


def test_a_process_that_ends_takes_the_replica_with_it() -> None:
    port = _free_port()
    source = SERVER.format(python=sys.executable, port=port)
    with ready_replica(source, _web("server", port=port), listen=False) as replica:
        until(lambda: replica.printed("server pid"), "its pid")
        os.kill(int(replica.printed("server pid")[0][2].split()[-1]), 15)
        told = replica.hear()
        assert isinstance(told, Failed)
        assert told.reason == "not_listening"
        assert replica.wait() == 0


def test_a_program_that_goes_on_in_the_background_is_waited_for() -> None:
    port = _free_port()
    source = SERVER.format(python=sys.executable, port=port)
    with ready_replica(source, _web("server", "background", port=port), listen=False) as replica:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        until(lambda: replica.printed("server pid"), "its pid")
        assert len(replica.printed("server pid")) == 1
        # Where there is a runner it sees to that: it adopts what has no parent any more.
        os.kill(int(replica.printed("server pid")[0][2].split()[-1]), 9)


def test_a_thread_that_listens_is_waited_for_whatever_became_of_a_helper() -> None:
    port = _free_port()
    source = SERVER.format(python=sys.executable, port=port)
    with ready_replica(source, _web("server", "helped", port=port), listen=False) as replica:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        until(lambda: replica.printed("no helper"), "the helper's last words")
        assert replica.process.poll() is None


@pytest.mark.parametrize(
    ("name", "startup_timeout_s", "reason", "says"),
    [
        ("failing", 1000.0, "not_listening", "The process that failing started ended (exit code 1)"),
        ("absent", 0.3, "not_listening", "startup_timeout"),
        ("broken", 1000.0, "enter_error", "no such program"),
    ],
)
def test_what_does_not_listen_is_a_failed_start(name: str, startup_timeout_s: float, reason: str, says: str) -> None:
    port = _free_port()
    source = SERVER.format(python=sys.executable, port=port)
    web = _web("server", name, port=port, startup_timeout_s=startup_timeout_s)
    with ReplicaProcess(source, web, listen=False) as replica:
        failed = replica.failed()
        assert (failed.reason, says in failed.detail) == (reason, True), failed.detail
        assert replica.wait() == 0


def test_a_port_that_is_taken_is_a_failed_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        source = SERVER.format(python=sys.executable, port=port)
        with ReplicaProcess(source, _web("server", port=port), listen=False) as replica:
            assert "already taken" in replica.failed().detail


def test_a_plain_function_goes_through_fastapi_where_there_is_one() -> None:
    source = """
        import threading
        from fastapi import HTTPException, Request
        from swell.wire.context import current
        def thing(n: int, request: Request):
            if n > 5:
                raise HTTPException(418, "too many")
            if n < 0:
                raise SystemExit("not even one")
            return [n, current.get().request, threading.current_thread().name, request.url.path]
    """
    with ready_replica(source, _web("endpoint", docs=True)) as replica:
        _, _, body = replica.request("/?n=3", method="GET", headers={**HEAD, "Swell-Root-Path": "/web/label"})
        assert msgspec.json.decode(body) == [3, "q1", "swell-worker-0", "/web/label/"]
        assert replica.request("/?n=6", method="GET", headers=HEAD)[0] == 418
        assert replica.request("/?n=-1", method="GET", headers=HEAD)[0] == 500
        until(lambda: replica.printed("SystemExit: not even one"), "its traceback")
        assert replica.request("/?n=x", method="GET", headers=HEAD)[0] == 422
        assert replica.request("/", method="POST", headers=HEAD)[0] == 405
        assert replica.request("/docs", method="GET", headers=HEAD)[0] == 200


def test_methods_go_through_fastapi_each_as_it_is_exposed() -> None:
    source = """
        from fastapi.responses import StreamingResponse
        from pydantic import BaseModel
        counter = open("counter", "ab", buffering=0)
        class Item(BaseModel):
            name: str
        class Thing:
            def item(self, item: Item):
                return item
            async def stream(self):
                return StreamingResponse(iter(["a", "b"]), media_type="text/plain")
            def loop(self):
                while True: counter.write(b".")
            def call(self, item: Item) -> Item:
                return item
    """
    web = {"item": Web("endpoint", "item", http_method="POST"), "stream": Web("endpoint", "stream")}
    web["loop"] = Web("endpoint", "loop")
    methods = (*(Method(name, web=how) for name, how in web.items()), Method("call"))
    with ready_replica(source, Entry("user_code", "Thing", "cls", methods)) as replica:
        head = {"Swell-Web": "item", "Content-Type": "application/json"}
        assert replica.request("/", b'{"name": "tea"}', head)[2] == b'{"name":"tea"}'
        assert replica.request("/docs", method="GET", headers={"Swell-Web": "item"})[0] == 404
        assert replica.request("/", method="GET", headers={"Swell-Web": "stream"})[2] == b"ab"
        assert replica.call("call", {"item": {"name": "tea"}}) == {"name": "tea"}
        assert replica.request("/call/call", b'{"item": {"name": 5}}')[0] == 422
        sock = replica.begin("/", headers="Swell-Web: loop\r\n", method="GET")
        until(lambda: (replica.folder / "counter").stat().st_size > 0, "it runs")
        sock.close()
        until(lambda: replica.request("/none", method="GET", headers={"Swell-Web": "loop"})[0] == 404, "a free slot")
        assert stops_growing(replica.folder / "counter")
