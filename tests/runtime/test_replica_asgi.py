"""Is the answer of an ASGI application held to what its head announces?"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from replica_harness import ReplicaProcess, ready_replica, until

from swell.model.workload import Entry, Method, Web

pytestmark = pytest.mark.slow

ASGI = """
    import asyncio

    async def app(scope, receive, send):
        # As the query says: a number is so many bytes, "w" waits for a while, "text" is no bytes.
        lengths, _, given = scope["query_string"].decode().partition(";")
        headers = [(b"Content-Length", length.encode()) for length in lengths.split(",") if length]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for word in given.split(",") if given else ():
            if word == "w":
                await asyncio.sleep(0.1)
                continue
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


@pytest.mark.parametrize(
    ("query", "words"),
    [("10;3", "gave 3 of the 10"), ("9;3,w,9", "more than the 9 bytes"), (";3,text", "gives bytes, not str")],
)
def test_an_asgi_app_whose_body_is_not_as_announced_is_cut_where_its_head_is_sent(
    checking: ReplicaProcess, query: str, words: str
) -> None:
    before = len(checking.printed(words))
    sock = checking.begin(f"/?{query}", headers="Swell-Web: thing\r\n")
    answer = b""
    while data := sock.recv(1000):
        answer += data
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
