"""Do web endpoints of every kind answer, by path and by host, and do their answers come as they are made?"""

from __future__ import annotations

import http.client
import json
import re
import socket
from pathlib import Path

import pytest

from journey.callers import APPS, ask, call, events, key, why
from private_swell import Answer, PrivateSwell, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def pages(own_swell: PrivateSwell) -> PrivateSwell:
    own_swell.run("deploy", str(APPS / "pages.py"))
    return own_swell


def by_both(swell: PrivateSwell, method: str, label: str, below: str = "/", body: bytes | None = None) -> Answer:
    """The same request by path and by host; both have to say the same."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    path = ask(swell, method, f"/web/{label}{below}", body, headers)
    host = ask(swell, method, below, body, {**headers, "Host": f"{label}.localhost:{swell.port}"})
    assert (path.status, path.body) == (host.status, host.body)
    return path


@pytest.mark.shows("fastapi_endpoint", "label")
def test_a_get_endpoint_without_a_framework(pages: PrivateSwell) -> None:
    reply = by_both(pages, "GET", "square", "/?x=7")
    assert (reply.status, reply.value) == (200, {"x": 7, "square": 49, "fastapi": False})
    assert by_both(pages, "GET", "square", "/?x=7&times=2").value["square"] == 98


def test_what_does_not_fit_is_named(pages: PrivateSwell) -> None:
    for below, word in (("/?x=seven", "'x'"), ("/", "'x'")):
        reply = ask(pages, "GET", f"/web/square{below}")
        assert (reply.status, reply.error["code"], word in reply.error["message"]) == (422, "bad_arguments", True)
        assert [each["path"] for each in reply.error["problems"]] == ["$.x"]
    wrong = ask(pages, "POST", "/web/square/", b"{}")
    assert (wrong.status, wrong.error["code"], wrong.headers["allow"]) == (405, "method_not_allowed", "GET")
    assert ask(pages, "GET", "/web/square/below").status == 404


@pytest.mark.shows("fastapi_endpoint", "method")
def test_a_post_endpoint_takes_a_body(pages: PrivateSwell) -> None:
    reply = by_both(pages, "POST", "total", "/", json.dumps({"values": [1, 2.5], "name": "all"}).encode())
    assert (reply.status, reply.value) == (200, {"all": 3.5})


def test_endpoints_of_one_class_share_its_object(pages: PrivateSwell) -> None:
    assert by_both(pages, "GET", "book", "/?number=1").value["title"] == "Emma"
    added = ask(pages, "POST", "/web/add-book/", b'{"number": "2", "title": "Ulysses"}')
    found = ask(pages, "GET", "/web/book/?number=2").value
    assert found == {"title": "Ulysses", "pid": added.value}


def test_an_endpoint_with_fastapi(pages: PrivateSwell) -> None:
    assert by_both(pages, "GET", "square-with-fastapi", "/?x=3").value == {"square": 9, "fastapi": True}
    assert ask(pages, "GET", "/web/square-with-fastapi/?x=three").status == 422


@pytest.mark.shows("fastapi_endpoint", "requires_proxy_auth")
def test_an_endpoint_that_needs_the_key(pages: PrivateSwell) -> None:
    refused = ask(pages, "GET", "/web/locked/")
    assert (refused.status, refused.error["code"]) == (401, "no_key")
    assert ask(pages, "GET", "/web/locked/", headers=key(pages)).value == "inside"


def test_a_web_endpoint_is_not_called(pages: PrivateSwell) -> None:
    reply = call(pages, "pages/square", {"x": 1})
    assert (reply.status, reply.error["code"]) == (404, "unknown_function")
    assert "/web/square/" in reply.error["message"]


def test_a_generator_comes_as_server_sent_events(pages: PrivateSwell) -> None:
    reply = by_both(pages, "GET", "ticks", "/?to=3")
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert events(reply.body) == [("message", 0), ("message", 1), ("message", 2), ("end", None)]


@pytest.mark.shows("asgi_app", "label")
def test_an_asgi_answer_comes_as_it_is_made(pages: PrivateSwell) -> None:
    """Its second line is not made before the first one was read here."""
    connection = http.client.HTTPConnection("127.0.0.1", pages.port, timeout=60)
    connection.request("GET", "/web/halting/any")
    response = connection.getresponse()
    assert (response.status, response.getheader("x-root")) == (200, "/web/halting")
    assert response.readline() == b"before\n"
    assert ask(pages, "GET", "/web/halting/go-on").body == b"before\nafter\n"
    assert response.read() == b"after\n"
    connection.close()


def test_an_asgi_answer_ends_broken_at_its_deadline(pages: PrivateSwell) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", pages.port, timeout=60)
    connection.request("GET", "/", headers={"Host": "raw.localhost"})
    response = connection.getresponse()
    request = response.getheader("Swell-Request-Id")
    assert request is not None
    assert (response.status, response.getheader("x-root")) == (200, "")
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    connection.close()
    record = why(pages, request)
    assert (record["status"], record["error"]) == (504, "deadline")
    assert ask(pages, "GET", "/web/raw/?1").body == b"1\n"


def test_trailers_of_an_asgi_answer_reach_its_client(pages: PrivateSwell) -> None:
    """On a plain socket: Python's own client throws them away. Those of the request do no harm."""
    head = b"POST /web/summed/ HTTP/1.1\r\nHost: localhost\r\nTE: trailers\r\nConnection: close, TE\r\n"
    body = b"%x\r\n%b\r\n0\r\nX-Size: 3\r\n\r\n" % (70_000, b"x" * 70_000)
    with socket.create_connection(("127.0.0.1", pages.port), timeout=60) as browser:
        browser.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        answer = b"".join(iter(lambda: browser.recv(65536), b""))
    told, _, body = answer.partition(b"\r\n\r\n")
    assert b"x-size" in re.search(rb"(?im)^trailer: (.*)$", told)[1]  # type: ignore[index]
    assert body.startswith(b"5\r\ntaken\r\n0\r\n")
    assert b"\r\nx-size: 70000\r\n" in body


@pytest.mark.shows("wsgi_app", "label")
def test_a_wsgi_app(pages: PrivateSwell) -> None:
    by_path = ask(pages, "POST", "/web/flask-site/echo", b"x" * 500_000)
    assert (by_path.status, by_path.body[500_000:]) == (200, b" at /web/flask-site/echo")
    by_host = ask(pages, "POST", "/echo", b"y", {"Host": "flask-site.localhost"})
    assert (by_host.status, by_host.body) == (200, b"y at /echo")
    assert by_both(pages, "GET", "flask-site", "/lines").body == b"0\n1\n2\n"
    assert by_both(pages, "GET", "flask-site", "/none").status == 404
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    refused = ask(pages, "GET", "/web/flask-site/", headers=upgrade | {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
    assert (refused.status, refused.error["code"]) == (501, "no_websocket")


@pytest.mark.shows("web_server", "port", "label")
def test_a_process_that_listens(pages: PrivateSwell) -> None:
    pages.run("deploy", str(EXAMPLES / "listener.py"))
    for headers, path in (({}, "/web/listener/a/b"), ({"Host": "listener.localhost"}, "/a/b")):
        reply = ask(pages, "POST", path, b"12345", headers)
        assert reply.status == 200
        assert re.fullmatch(rb"perl \d+ saw POST \S*/a/b with 5 bytes\n", reply.body)
        assert reply.request
    pages.run("app", "stop", "listener")
    wait_until("it is gone", lambda: not any("perl" in one.command for one in pages.processes()), wait_s=120)
