"""Is the answer of an ASGI application held to what its head announces?"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from replica_harness import ReplicaProcess, ready_replica, until

from swell.gateway.answers import Answers
from swell.model.workload import Entry, Method, Web
from swell.runtime.heads import HEAD_MAX

pytestmark = pytest.mark.slow

ASGI = """
    import asyncio

    async def app(scope, receive, send):
        # As the query says: a number is so many bytes, "w" waits for a while, "text" is no bytes; "h" and a number
        # is a header of so many bytes, "t" and a number such a trailer.
        lengths, _, given = scope["query_string"].decode().partition(";")
        if lengths == "raises":
            raise ValueError("no model \\ud800")
        if lengths.startswith("h"):
            headers = [(b"x", b"y" * int(lengths[1:]))]
        else:
            headers = [(b"Content-Length", length.encode()) for length in lengths.split(",") if length]
        trailers = "t" in given and "text" not in given
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": trailers})
        for word in given.split(",") if given else ():
            if word == "w":
                await asyncio.sleep(0.1)
                continue
            if trailers and word[0] == "t":
                await send({"type": "http.response.body"})
                more = [(b"x", b"y" * int(word[1:]))]
                await send({"type": "http.response.trailers", "headers": more, "more_trailers": True})
                await send({"type": "http.response.trailers"})
                return
            body = b"x" * int(word) if word.isdigit() else word
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})

    def thing():
        return app
"""
ENTRY = Entry("user_code", "thing", "function", (Method("thing", web=Web("asgi", "label")),))
HEAD = {"Swell-Web": "thing"}


@pytest.fixture(scope="module")
def checking() -> Iterator[ReplicaProcess]:
    with ready_replica(ASGI, ENTRY) as one:
        yield one


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("2;6", "more than the 2 bytes"),
        ("2;2,4", "more than the 2 bytes"),
        ("10;", "gave 0 of the 10 bytes"),
        ("x;2", "one Content-Length at most, in digits"),
        ("-1;2", "one Content-Length at most, in digits"),
        ("2,3;2", "one Content-Length at most, in digits"),
        (f"{'9' * 40};2", "one Content-Length at most, in digits"),
        (";text", "gives bytes, not str"),
        ("4;text", "gives bytes, not str"),
        # Half of a character, as the standard library reads it from JSON, is in no UTF-8.
        ("raises", r"ValueError: no model \ud800"),
    ],
)
def test_an_asgi_app_whose_body_is_not_as_announced_is_told_before_its_head_is_sent(
    checking: ReplicaProcess, query: str, words: str
) -> None:
    status, headers, body = checking.request(f"/?{query}", headers=HEAD)
    error = msgspec.json.decode(body)["error"]
    assert (status, error["code"], headers["swell-error"]) == (500, "exception", "500 exception")
    assert words in error["message"]
    until(lambda: checking.printed(words), "the log line")


def test_a_head_is_as_large_as_the_gateway_takes(checking: ReplicaProcess) -> None:
    room = HEAD_MAX - len(b"x: \r\n")
    for query in (f"h{room};3", f"h{room};3,3", f";3,t{room}"):
        sock = checking.begin(f"/?{query}", headers="Swell-Web: thing\r\nConnection: close\r\n")
        answers = Answers(True, {})
        while data := sock.recv(4096):
            answer = answers.feed(data, False)
        sock.close()
        assert (answer.status, answer.ended) == (200, True)
        assert b"y" * room in (*answer.lines, *answer.trailers)
    for query in (f"h{room + 1};3", f"h{200_000};3"):
        status, _, body = checking.request(f"/?{query}", headers=HEAD)
        error = msgspec.json.decode(body)["error"]
        assert (status, error["code"]) == (500, "exception")
        assert f"have {HEAD_MAX} bytes at most, not" in error["message"]
    until(lambda: checking.printed(f"have {HEAD_MAX} bytes at most, not 2000"), "the log line")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("10;3", "gave 3 of the 10"),
        ("9;3,w,9", "more than the 9 bytes"),
        (";3,text", "gives bytes, not str"),
        (f";3,t{HEAD_MAX}", "bytes at most, not"),
    ],
)
def test_an_asgi_app_whose_body_is_not_as_announced_is_cut_where_its_head_is_sent(
    checking: ReplicaProcess, query: str, words: str
) -> None:
    before = len(checking.printed(words))
    sock = checking.begin(f"/?{query}", headers="Swell-Web: thing\r\n")
    answer = b""
    while data := sock.recv(1000):
        answer += data
    # Its own side alone is closed: so the gateway knows that it lives.
    assert sock.send(b"x" * 100)
    sock.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert not answer.endswith((b"0\r\n\r\n", b"x" * 9))
    until(lambda: len(checking.printed(words)) > before, "the log line")


def test_an_answer_of_the_length_it_announced_is_over_for_its_reader(checking: ReplicaProcess) -> None:
    connection = checking.connect()

    def ask(method: str, query: str) -> tuple[int, str | None, bytes]:
        connection.request(method, f"/?{query}", headers={"Swell-Request-Id": "q1", **HEAD})
        answer = connection.getresponse()
        return answer.status, answer.headers["content-length"], answer.read()

    # What comes next on the connection is never taken for something that came before its turn.
    for query in ("6;6", "6;2,4", "6;2,w,4", "6;6,0,0", "0;", ";2,4", "6;6,w", "6;2,w,4,w,0", "6;6,w,1", "6;3"):
        announced, _, given = query.partition(";")
        length = sum(int(word) for word in given.split(",") if word.isdigit())
        until(lambda: checking.request("/?;", headers=HEAD)[0] == 200, "the slot is free")
        if query not in ("6;6,w,1", "6;3"):
            assert ask("POST", query)[::2] == (200, b"x" * length), query
            assert ask("POST", "6;6")[0] in (200, 503), query
        until(lambda: checking.request("/?;", headers=HEAD)[0] == 200, "the slot is free")
        assert ask("HEAD", query) == (200, announced or None, b""), query
    connection.close()
