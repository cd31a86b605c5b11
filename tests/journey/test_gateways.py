"""Several gateways at one port: one slot is one slot, turns are taken, one may die, and both end with the server?"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from census import left_over, unreconciled

from private_swell import Answer, PrivateSwell, exchange, free_port, unstarted_swell, wait_until
from series import read
from swell.wire.identity import read as read_identity
from swell.wire.paths import Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NAMES = ("gateway", "gateway-1")
WAIT_S = 120.0
BACK_S = 30.0
PROGRAM = """
import fcntl
import pathlib
import time

import swell

app = swell.App("many")
BOOK = pathlib.Path(BOOK_PATH)
LOCK = BOOK.with_suffix(".lock")


def note(word):
    with BOOK.open("a") as book:
        book.write(word + "\\n")


def alone(word, seconds):
    # Fails where another one is at work: there is one slot in all. Who is interrupted lets go, too.
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        note(word)
        time.sleep(seconds)
    return word


@app.function(max_containers=1, scaledown_window=600, timeout=100)
def single(word: str, seconds: float) -> str:
    return alone(word, seconds)


@app.function(max_containers=1, scaledown_window=600, timeout=100)
def upload(body: bytes) -> int:
    alone("upload", 0.01)
    return len(body)


@app.function(max_containers=2, scaledown_window=600, timeout=100)
@swell.concurrent(max_inputs=8)
async def several(word: str, seconds: float) -> str:
    import asyncio
    note(word)
    await asyncio.sleep(seconds)
    return word


@app.function(max_containers=1, scaledown_window=600)
@swell.web_server(WEB_PORT, label="site")
def site():
    import http.server
    import threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            try:
                words, status = alone("site", 0.005), 200
            except BlockingIOError:
                words, status = "two at once", 500
            self.send_response(status)
            self.send_header("Content-Length", str(len(words)))
            self.end_headers()
            self.wfile.write(words.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", WEB_PORT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


@app.function(max_containers=1, scaledown_window=600)
@swell.concurrent(max_inputs=100)
@swell.limit(concurrency=4)
async def limited(seconds: float) -> str:
    import asyncio
    await asyncio.sleep(seconds)
    return "done"
"""


def written(book: Path) -> str:
    return PROGRAM.replace("BOOK_PATH", repr(str(book))).replace("WEB_PORT", str(free_port()))


class Caller:
    """One kept connection, and the gateway that the kernel gave it."""

    def __init__(self, swell: PrivateSwell) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", swell.port, timeout=WAIT_S)
        self.gateway = exchange(self.connection, "GET", "/healthz", None, {}).request.partition("-")[0]

    def call(self, function: str, *arguments: object) -> Answer:
        return exchange(self.connection, "POST", f"/call/many/{function}", json.dumps(arguments).encode(), {})

    def close(self) -> None:
        self.connection.close()


@contextmanager
def callers(swell: PrivateSwell, each: int) -> Iterator[list[list[Caller]]]:
    """So many connections to each of the two gateways."""
    found: dict[str, list[Caller]] = {}
    spare: list[Caller] = []

    def enough() -> bool:
        caller = Caller(swell)
        mine = found.setdefault(caller.gateway, [])
        (mine if len(mine) < each else spare).append(caller)
        return len(found) == 2 and all(len(mine) == each for mine in found.values())

    try:
        wait_until("connections to both", enough, wait_s=WAIT_S, pause_s=0.0)
        yield list(found.values())
    finally:
        for caller in (*spare, *(caller for mine in found.values() for caller in mine)):
            caller.close()


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where inputs are noted as they begin."""
    return tmp_path_factory.mktemp("many") / "book"


@pytest.fixture(scope="module")
def swell(book: Path) -> Iterator[PrivateSwell]:
    with unstarted_swell() as made:
        made.run("up", "-d", "--gateways", "2")
        program = book.with_name("many.py")
        program.write_text(written(book))
        made.run("deploy", str(program))
        yield made


@pytest.fixture(autouse=True)
def empty_book(book: Path) -> None:
    book.write_text("")


def pid(swell: PrivateSwell, name: str) -> int:
    identity = read_identity(Home(swell.home).process_record(name))
    return identity.pid if identity is not None and identity.alive else 0


def held(swell: PrivateSwell, function: str) -> dict[str, float]:
    """How many requests each gateway holds."""
    with swell.connect() as client:
        series = read(client.get("/metrics").body.decode())
    labels = [(dict(found), value) for (name, found), value in series.items() if name == "swell_requests_held"]
    return {one["gateway"]: value for one, value in labels if one.get("function") == function}


def test_one_slot_is_one_slot(swell: PrivateSwell) -> None:
    """Were two at work at once, one of them would fail."""
    with callers(swell, 4) as both, ThreadPoolExecutor(8) as threads:
        everybody = [caller for mine in both for caller in mine]
        words = [[f"{n}-{k}" for k in range(25)] for n in range(len(everybody))]

        def many(caller: Caller, mine: list[str]) -> list[tuple[int, object]]:
            answers = [caller.call("single", word, 0.002) for word in mine]
            return [(answer.status, answer.value) for answer in answers]

        told = list(threads.map(many, everybody, words))
    assert told == [[(200, word) for word in mine] for mine in words]


def test_one_slot_is_one_slot_of_a_process_that_counts_none_too(swell: PrivateSwell) -> None:
    with callers(swell, 4) as both, ThreadPoolExecutor(8) as threads:

        def many(caller: Caller) -> list[tuple[int, bytes]]:
            answers = [exchange(caller.connection, "GET", "/web/site/", None, {}) for _ in range(15)]
            return [(answer.status, answer.body) for answer in answers]

        told = list(threads.map(many, [caller for mine in both for caller in mine]))
    assert told == [[(200, b"site")] * 15] * 8
    wait_until("it agrees with itself", lambda: not unreconciled(swell), wait_s=BACK_S, pause_s=0.2)


def test_what_cannot_be_sent_twice_is_refused_to_nobody(swell: PrivateSwell) -> None:
    body = b"x" * 2_000_000
    octets = {"Content-Type": "application/octet-stream"}
    with callers(swell, 3) as both, ThreadPoolExecutor(6) as threads:

        def many(caller: Caller) -> list[tuple[int, object]]:
            answers = [exchange(caller.connection, "POST", "/call/many/upload", body, octets) for _ in range(4)]
            return [(answer.status, answer.value) for answer in answers]

        told = list(threads.map(many, [caller for mine in both for caller in mine]))
    assert told == [[(200, len(body))] * 4] * 6


def test_one_beside_many_gets_its_turn(swell: PrivateSwell, book: Path) -> None:
    with callers(swell, 30) as ((*many,), (alone, *_)), ThreadPoolExecutor(31) as threads:
        crowd = [threads.submit(caller.call, "single", f"crowd-{n}", 0.2) for n, caller in enumerate(many)]
        wait_until("they wait", lambda: sum(held(swell, "single").values()) >= 20, wait_s=WAIT_S)
        before = len(book.read_text().split())
        answer = alone.call("single", "alone", 0.0)
        assert (answer.status, answer.value) == (200, "alone")
        place = book.read_text().split().index("alone")
        assert {done.result().status for done in crowd} == {200}
    assert place - before <= 14, "it waited behind more than a few of the many"


def test_a_slot_that_the_other_one_frees_is_taken_without_being_tried_for(swell: PrivateSwell) -> None:
    with callers(swell, 1) as ((first,), (second,)), ThreadPoolExecutor(2) as threads:
        running = threads.submit(first.call, "single", "first", 4.0)
        wait_until("it runs", lambda: in_flight(swell, "single") == 1, wait_s=WAIT_S)
        waited = second.call("single", "second", 0.0)
        assert (running.result().status, waited.status) == (200, 200)
    # Refused, asked for, and sent again. To look again and again would have been some thirty times.
    sent = re.search(r"sent (\d+) times", swell.run("why", waited.request))
    assert sent is not None
    assert int(sent[1]) <= 4


def in_flight(swell: PrivateSwell, function: str) -> float:
    with swell.connect() as client:
        series = read(client.get("/metrics").body.decode())
    return sum(
        value
        for (name, labels), value in series.items()
        if name == "swell_requests_in_flight" and dict(labels).get("function") == function
    )


def test_one_scrape_tells_of_both(swell: PrivateSwell) -> None:
    with callers(swell, 1) as both:
        for (caller,) in both:
            assert caller.call("several", "x", 0.0).status == 200
    with swell.connect() as client:
        series = read(client.get("/metrics").body.decode())

    def by_gateway(metric: str, **wanted: str) -> dict[str, float]:
        found = [(dict(labels), value) for (name, labels), value in series.items() if name == metric]
        return {one["gateway"]: v for one, v in found if wanted.items() <= one.items() and "gateway" in one}

    assert by_gateway("swell_up", process="gateway") == {"0": 1, "1": 1}
    assert by_gateway("swell_link_connected", process="gateway") == {"0": 1, "1": 1}
    counted = by_gateway("swell_requests_total", function="several", code="200")
    assert all(counted.get(gateway, 0) >= 1 for gateway in ("0", "1"))
    assert json.loads(swell.run("ps", "--json"))


def test_a_limit_is_shared(swell: PrivateSwell) -> None:
    """Of four at a time each gateway lets in two."""
    with callers(swell, 3) as both, ThreadPoolExecutor(6) as threads:
        assert both[0][0].call("limited", 0.0).status == 200
        sent: list[list[Future[Answer]]] = [[] for _ in both]
        for number, mine in enumerate(both):
            for caller in mine[:2]:
                sent[number].append(threads.submit(caller.call, "limited", 3.0))
        wait_until("four are let in", lambda: in_flight(swell, "limited") == 4, wait_s=WAIT_S, pause_s=0.0)
        over = [mine[2].call("limited", 0.0) for mine in both]
        assert [(answer.status, answer.error["code"]) for answer in over] == [(429, "too_many_in_flight")] * 2
        assert [done.result().status for mine in sent for done in mine] == [200] * 4


@pytest.mark.parametrize("victim", NAMES)
def test_one_of_two_is_killed_under_load(swell: PrivateSwell, victim: str) -> None:
    """Its own connections break, and no other; both are there again, and what is said agrees with what is."""
    stop = threading.Event()
    broken: Counter[str] = Counter()
    wrong: list[object] = []

    def load(caller: Caller) -> int:
        answered = 0
        while not stop.is_set():
            for function in ("single", "several"):
                try:
                    answer = caller.call(function, "x", 0.005)
                except (OSError, http.client.HTTPException):
                    broken[caller.gateway] += 1
                    return answered
                if answer.status != 200:
                    wrong.append(answer)
                answered += 1
        return answered

    with callers(swell, 6) as both, ThreadPoolExecutor(12) as threads:
        wait_until("it runs", lambda: both[0][0].call("single", "x", 0.0).status == 200, wait_s=WAIT_S)
        going = [(caller.gateway, threads.submit(load, caller)) for mine in both for caller in mine]
        wait_until("both are busy", lambda: in_flight(swell, "several") + in_flight(swell, "single") > 2)
        killed = pid(swell, victim)
        os.kill(killed, signal.SIGKILL)
        wait_until("it is back", lambda: pid(swell, victim) not in (0, killed), wait_s=BACK_S)
        wait_until("its connections broke", lambda: sum(broken.values()) == 6, wait_s=BACK_S)
        stop.set()
        answered = Counter[str]()
        for gateway, done in going:
            answered[gateway] += done.result()
    assert wrong == []
    assert len(broken) == 1
    assert len(answered) == 2
    with callers(swell, 2) as again:
        assert {caller.call("single", "x", 0.0).status for mine in again for caller in mine} == {200}
    wait_until("it agrees with itself", lambda: not unreconciled(swell), wait_s=BACK_S, pause_s=0.2)


def test_both_drain_and_nothing_is_left(book: Path) -> None:
    with unstarted_swell() as made:
        made.run("up", "-d", "--gateways", "2")
        assert made.run("ps").strip()
        program = book.with_name("other.py")
        program.write_text(written(book))
        made.run("deploy", str(program))
        with callers(made, 2) as both, ThreadPoolExecutor(4) as threads:
            assert both[0][0].call("several", "warm", 0.0).status == 200
            everybody = [caller for mine in both for caller in mine]
            running = [threads.submit(caller.call, "several", "x", 3.0) for caller in everybody]
            wait_until("all run", lambda: in_flight(made, "several") == 4, wait_s=WAIT_S, pause_s=0.0)
            made.run("down")
            assert [done.result().status for done in running] == [200] * 4
        assert left_over(made) == []
        # One is as good as two: what two had is nobody's trouble.
        made.run("up", "-d")
        with made.connect() as client:
            assert client.call("many/several", ["x", 0.0]).value == "x"
        assert not Home(made.home).process_record("gateway-1").exists()


@pytest.mark.parametrize("number", ["0", "65", "two", "-1"])
def test_a_number_that_cannot_be_is_refused(idle: PrivateSwell, number: str) -> None:
    with pytest.raises(Exception, match="gateways") as refused:
        idle.run("up", "-d", "--gateways", number)
    assert "Traceback" not in str(refused.value)
