"""Is a WSGI application served as PEP 3333 says, by the standard library's own checker, and stopped like a call?"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator

import msgspec
import pytest
from replica_harness import ReplicaProcess, ready_replica, stops_growing, until

from swell.model.workload import Entry, Method, Web

pytestmark = pytest.mark.slow

ENTRY = Entry("user_code", "thing", "function", (Method("thing", web=Web("wsgi", "label")),))
HEAD = {"Swell-Web": "thing", "Swell-Root-Path": "/web/label", "Swell-Remaining-Ms": "60000"}

SOURCE = """
    import hashlib, json, sys, threading, time
    from wsgiref.validate import validator

    from swell.wire.context import InputCancellation

    counter = open("counter", "ab", buffering=0)

    def app(environ, start_response):
        return globals()[environ["PATH_INFO"].split("/")[1]](environ, start_response)

    def seen(environ, start_response):
        shown = {k: v for k, v in environ.items() if isinstance(v, (str, bool, tuple)) and not k.startswith("LC")}
        body = json.dumps(shown).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    def echo(environ, start_response):
        start_response("201 Created", [("Content-Type", "text/plain")])
        return [environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))]

    def lines(environ, start_response):
        found = list(environ["wsgi.input"])
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps([len(found), found[0].decode(), found[-1].decode()]).encode()]

    def digest(environ, start_response):
        made, size = hashlib.sha256(), 0
        while piece := environ["wsgi.input"].read(100_000):
            made.update(piece)
            size += len(piece)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{size} {made.hexdigest()}".encode()]

    class Closing:
        def __init__(self, items, fail=False):
            self.items = iter(items)
            self.fail = fail
        def __iter__(self):
            return self
        def __next__(self):
            return next(self.items)
        def close(self):
            print("closed", flush=True)

    def streaming(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Closing([b"", b"one\\n", b"two\\n", b"three\\n"])

    def announced(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
        return Closing([b"one", b"two"])

    def writing(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"written ")
        write(b"and ")
        return [b"returned"]

    def empty(environ, start_response):
        start_response("204 No Content", [])
        return []

    def nothing(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return []

    def replaced(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise ValueError("found out in time")
        except ValueError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"an error page"]

    def too_late(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"x" * 10)
        try:
            raise ValueError("too late")
        except ValueError:
            start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"never"]

    def raising_half(environ, start_response):
        raise ValueError("no model \\ud800")

    def raising(environ, start_response):
        raise ValueError("no")

    def giving_up(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        raise InputCancellation

    def giving_up_late(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"some"
        raise InputCancellation

    def breaking(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"some"
        raise ValueError("in the middle")

    def short(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "9")])
        return [b"four"]

    def long(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"four"]

    def text(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return ["text"]

    def early(environ, start_response):
        return [b"body"]

    def split(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("X", "a\\r\\nb")])
        return [b"body"]

    def working(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            while True:
                counter.write(b".")
                time.sleep(0.005)
                if "stream" in environ["QUERY_STRING"]:
                    yield b"x" * 1000
        finally:
            print("stopped", flush=True)

    def reading(environ, start_response):
        print("begins to read", flush=True)
        try:
            environ["wsgi.input"].read()
        finally:
            print("stopped reading", flush=True)

    def after(environ, start_response):
        class Slow(Closing):
            def close(self):
                time.sleep(1)
                print("done after", flush=True)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return Slow([b"there"])

    def met(environ, start_response, together=threading.Barrier(3)):
        together.wait(30)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"met"]

    UNCHECKED = ("text", "early", "split", "short", "long", "reading", "writing", "breaking", "lines", "after")
    checked = validator(app)

    def thing():
        return lambda environ, start: (app if environ["PATH_INFO"][1:] in UNCHECKED else checked)(environ, start)
"""


@pytest.fixture(scope="module")
def replica() -> Iterator[ReplicaProcess]:
    with ready_replica(SOURCE, ENTRY, max_inputs=10, cancel_grace_s=1.0) as one:
        yield one


def test_what_it_is_told_of_a_request(replica: ReplicaProcess) -> None:
    more = {
        "X-Own": "ä".encode().decode("latin-1"),
        "Cookie": "a=b",
        "Host": "h.localhost:81",
        "X_Own": "no",
        "Proxy": "no",
    }
    status, headers, body = replica.request(
        "/seen/a%20b/%C3%A4?c=%20d", b"hello", {**HEAD, **more, "Content-Type": "text/x"}
    )
    seen = msgspec.json.decode(body)
    assert (status, headers["content-length"]) == (200, str(len(body)))
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/web/label", "/seen/a b/\u00c3\u00a4")
    assert (seen["QUERY_STRING"], seen["REQUEST_METHOD"]) == ("c=%20d", "POST")
    assert (seen["CONTENT_TYPE"], seen["CONTENT_LENGTH"]) == ("text/x", "5")
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"], seen["wsgi.url_scheme"]) == ("h.localhost", "81", "http")
    assert (seen["HTTP_X_OWN"], seen["HTTP_COOKIE"]) == ("\u00c3\u00a4", "a=b")
    assert (seen["wsgi.multithread"], seen["wsgi.run_once"]) == (True, False)
    assert seen["HTTP_SWELL_REQUEST_ID"] == "q1"
    assert not {"HTTP_CONTENT_TYPE", "HTTP_PROXY", "HTTP_SWELL_WEB"} & set(seen)
    assert int(headers["swell-cpu-us"]) >= 0
    assert int(headers["swell-run-us"]) > 0


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/echo", 201, b"hello"),
        ("/streaming", 200, b"one\ntwo\nthree\n"),
        ("/announced", 200, b"onetwo"),
        ("/writing", 200, b"written and returned"),
        ("/empty", 204, b""),
        ("/nothing", 200, b""),
        ("/replaced", 500, b"an error page"),
    ],
)
def test_answers_of_all_kinds(replica: ReplicaProcess, path: str, status: int, body: bytes) -> None:
    for _ in range(2):
        assert replica.request(path, b"hello", HEAD)[::2] == (status, body)


def test_a_head_has_no_body(replica: ReplicaProcess) -> None:
    for path in ("/seen", "/nothing", "/streaming"):
        assert replica.request(path, headers=HEAD, method="HEAD")[::2] == (200, b"")


def test_a_stream_is_closed_at_its_end(replica: ReplicaProcess) -> None:
    before = len(replica.printed("closed"))
    assert replica.request("/streaming", headers=HEAD)[0] == 200
    until(lambda: len(replica.printed("closed")) > before)
    assert replica.printed("closed")[-1][1] == "q1"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/raising", "ValueError: no"),
        ("/raising_half", r"ValueError: no model \ud800"),
        ("/text", "gives bytes, not str"),
        ("/early", "before it called start_response"),
        ("/split", "line break"),
        ("/short", "gave 4 of the 9 bytes"),
        ("/long", "more than the 2 bytes"),
        ("/giving_up", "the code stopped itself"),
    ],
)
def test_errors_of_an_application(replica: ReplicaProcess, path: str, words: str) -> None:
    status, headers, body = replica.request(path, headers=HEAD)
    error = msgspec.json.decode(body)["error"]
    assert (status, error["code"], headers["swell-error"]) == (500, "exception", "500 exception")
    assert words in error["message"]


@pytest.mark.parametrize(
    ("path", "printed"),
    [("/breaking", "in the middle"), ("/too_late", "ValueError: too late"), ("/giving_up_late", "")],
)
def test_an_answer_that_was_begun_is_broken_off(replica: ReplicaProcess, path: str, printed: str) -> None:
    sock = replica.begin(path, headers="Swell-Web: thing\r\n")
    answer = b""
    while data := sock.recv(1000):
        answer += data
    # Its own side alone is closed: so the gateway knows that it lives.
    assert sock.send(b"x" * 100)
    sock.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert not answer.endswith(b"0\r\n\r\n")
    until(lambda: not printed or replica.printed(printed))


def test_a_long_body_is_read_as_it_comes(replica: ReplicaProcess) -> None:
    body = bytes(range(256)) * 40_000
    assert replica.request("/digest", body, HEAD)[2].decode() == f"{len(body)} {hashlib.sha256(body).hexdigest()}"
    lines = b"".join(b"line %d\n" % number for number in range(100_000))
    assert replica.request("/lines", lines, HEAD)[2] == b'[100000, "line 0\\n", "line 99999\\n"]'


def test_a_body_in_chunks_has_an_end(replica: ReplicaProcess) -> None:
    connection = replica.connect()
    pieces = iter([b"a" * 300_000, b"b" * 10])
    connection.request("POST", "/digest", pieces, {"Swell-Request-Id": "q2", **HEAD}, encode_chunked=True)
    whole = b"a" * 300_000 + b"b" * 10
    assert connection.getresponse().read().decode() == f"{len(whole)} {hashlib.sha256(whole).hexdigest()}"
    connection.close()


def test_requests_run_side_by_side(replica: ReplicaProcess) -> None:
    socks = [replica.begin("/met", headers="Swell-Web: thing\r\nConnection: close\r\n") for _ in range(3)]
    for sock in socks:
        answer = b""
        while data := sock.recv(1000):
            answer += data
        assert b"\r\nmet\r\n" in answer


@pytest.mark.parametrize("query", ["", "?stream"])
def test_work_whose_caller_leaves_is_stopped(replica: ReplicaProcess, query: str) -> None:
    before = len(replica.printed("stopped"))
    sock = replica.begin(f"/working{query}", headers="Swell-Web: thing\r\n")
    counter = replica.folder / "counter"
    size = counter.stat().st_size
    until(lambda: counter.stat().st_size > size)
    sock.close()
    until(lambda: len(replica.printed("stopped")) > before)
    assert stops_growing(counter)


def test_one_that_waits_for_a_body_is_stopped_when_that_will_not_come(replica: ReplicaProcess) -> None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(replica.path)
    head = b"POST /reading HTTP/1.1\r\nHost: x\r\nSwell-Web: thing\r\nContent-Length: 600000\r\n\r\n"
    sock.sendall(head + bytes(400_000))
    until(lambda: replica.printed("begins to read"))
    sock.close()
    until(lambda: replica.printed("stopped reading"))
    assert replica.request("/nothing", headers=HEAD)[0] == 200


def test_the_deadline_ends_it_with_what_it_used(replica: ReplicaProcess) -> None:
    status, headers, body = replica.request("/working", headers={**HEAD, "Swell-Remaining-Ms": "300"})
    assert (status, msgspec.json.decode(body)["error"]["code"]) == (504, "deadline")
    assert int(headers["swell-run-us"]) >= 200_000
    sock = replica.begin("/working?stream", headers="Swell-Web: thing\r\nSwell-Remaining-Ms: 300\r\n")
    answer = b""
    while data := sock.recv(100_000):
        answer += data
    assert not answer.endswith(b"0\r\n\r\n")


def test_what_goes_on_after_its_answer_keeps_its_slot_and_the_caller_has_the_answer(replica: ReplicaProcess) -> None:
    assert replica.request("/after", headers=HEAD)[::2] == (200, b"there")
    assert not replica.printed("done after")
    until(lambda: replica.printed("done after"))


def test_what_is_no_application_is_a_failed_start() -> None:
    with ReplicaProcess("def thing():\n    return 3\n", ENTRY) as replica:
        assert "no WSGI app" in replica.failed().detail


FLASK = """
    from flask import Flask, Response, request, stream_with_context

    site = Flask(__name__)

    @site.post("/form")
    def form():
        return {"fields": request.form.to_dict(), "file": len(request.files["f"].read()), "url": request.url}

    @site.get("/stream")
    def stream():
        def lines():
            for number in range(3):
                yield f"{number} {request.path}\\n"
        return Response(stream_with_context(lines()), mimetype="text/plain")

    @site.get("/fails")
    def fails():
        raise ValueError("no")

    def thing():
        return site
"""


def test_a_flask_app() -> None:
    with ready_replica(FLASK, ENTRY, max_inputs=3) as replica:
        part = b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
        body = part % (b"a", b"", b"1") + part % (b"f", b'; filename="x"', bytes(700_000)) + b"--b--\r\n"
        kind = {"Content-Type": "multipart/form-data; boundary=b", "Host": "label.localhost:8470"}

        def form() -> tuple[int, dict[str, str], bytes]:
            return replica.request("/form", body, {**HEAD, **kind})

        status, headers, answer = form()
        assert (status, headers["content-type"]) == (200, "application/json")
        url = "http://label.localhost:8470/web/label/form"
        assert msgspec.json.decode(answer) == {"fields": {"a": "1"}, "file": 700_000, "url": url}
        # Where the application returns within a moment of its answer: so the next one, if not this one.
        until(lambda: "swell-cpu-us" in form()[1])
        assert replica.request("/stream", headers=HEAD, method="GET")[2] == b"0 /stream\n1 /stream\n2 /stream\n"
        assert replica.request("/fails", headers=HEAD, method="GET")[0] == 500
        assert replica.request("/none", headers=HEAD, method="GET")[0] == 404
        until(lambda: replica.printed("ValueError: no"))
