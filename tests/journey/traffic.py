"""What becomes of every request while processes die? Many callers at once, each request with an id of its own.

The id is made here, goes inside the payload, is written down by the replica when it begins and comes back in the
answer: so a wrong, a lost and a repeated answer all show.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from private_swell import Answer, Failed, PrivateSwell, wait_until

PROGRAM = """
import asyncio, os, time
import swell

app = swell.App("fire")
busy = False

def begun(id: str, book: str) -> None:
    file = os.open(book, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{id}\\n".encode())
    os.close(file)

@app.function(min_containers=1, max_containers=2, scaledown_window=600)
@swell.concurrent(max_inputs=100)
async def steady(id: str, pause_s: float, book: str) -> list:
    begun(id, book)
    await asyncio.sleep(pause_s)
    return [id, os.getpid()]

@app.function(min_containers=2, max_containers=4, scaledown_window=600)
def single(id: str, pause_s: float, book: str) -> list:
    global busy
    if busy:
        raise RuntimeError("two at once")
    busy = True
    try:
        begun(id, book)
        time.sleep(pause_s)
        return [id, os.getpid()]
    finally:
        busy = False

@app.function(single_use_containers=True)
def once(id: str, pause_s: float, book: str) -> list:
    begun(id, book)
    return [id, os.getpid()]

@app.function(scaledown_window=2)
@swell.concurrent(max_inputs=2)
def waking(id: str, pause_s: float, book: str) -> list:
    begun(id, book)
    time.sleep(pause_s)
    return [id, os.getpid()]
"""

STEADY, SINGLE, ONCE, WAKING = "steady", "single", "once", "waking"
TIMEOUT_S = 20.0
"""What every request asks for as its deadline."""
SLACK_S = 60.0
"""How long after its deadline a request may end: a slow machine answers late, and what hangs never does."""
RESTS_S = {WAKING: 5.0, ONCE: 0.5}
"""Longest pause between two requests of a caller: pools that come from zero and go there again."""
WAIT_S = 60.0
DRY_S = 0.05
"""Pause after a connection that could not be opened."""


@dataclass(frozen=True)
class Outcome:
    """How one request ended."""

    id: str
    function: str
    begun: float
    """`time.monotonic()`"""
    ended: float
    status: int = 0
    """0: the connection broke, or could not be opened."""
    request: str = ""
    """Swell-Request-Id."""
    body: bytes = b""
    cold: bool = False
    """The gateway knew of no replica when it came."""
    closes: bool = False
    """The answer said that its connection ends with it."""
    trouble: str = ""

    @property
    def answered(self) -> bool:
        """With the id that was sent."""
        return self.status == 200 and json.loads(self.body)[0] == self.id

    @property
    def refused(self) -> bool:
        """With words and an id to ask about."""
        return self.status >= 500 and bool(self.request) and self.code not in ("exception", "")

    @property
    def broken(self) -> bool:
        return self.status == 0

    @property
    def code(self) -> str:
        """The error's code; empty when the body is no error of Swell's."""
        try:
            return str(json.loads(self.body)["error"]["code"])
        except (ValueError, KeyError, TypeError):
            return ""

    @property
    def took_s(self) -> float:
        return self.ended - self.begun

    def __str__(self) -> str:
        words = self.trouble or f"{self.status} {self.code} {self.request}"
        return f"{self.function} {self.id}: {words} after {self.took_s:.2f} s"


class Traffic:
    """Callers on a loop in a thread, each with one request at a time, until told to stop."""

    def __init__(self, port: int, book: Path, chance: random.Random, callers: Sequence[str]) -> None:
        """`callers`: the function each of them calls. `book`: where replicas write down what they begin."""
        self.outcomes: list[Outcome] = []
        self.in_flight: dict[str, float] = {}
        """Id → when it was sent. Changed by the callers' thread alone."""
        self._port = port
        self._book = book
        self._chances = [(function, random.Random(chance.random())) for function in callers]
        self._over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))

    def start(self) -> None:
        self._book.touch()
        self._thread.start()

    def stop(self) -> None:
        """Begin no more, and wait for the end of what was begun."""
        self._over = True
        self._thread.join(TIMEOUT_S + SLACK_S + 10)
        assert not self._thread.is_alive(), f"requests hang: {list(self.in_flight)}"

    async def _all(self) -> None:
        await asyncio.gather(*(self._caller(function, chance) for function, chance in self._chances))

    async def _caller(self, function: str, chance: random.Random) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._over:
            await self._rest(chance.uniform(0.0, RESTS_S.get(function, 0.0)))
            id, begun = uuid.uuid4().hex, time.monotonic()
            pause_s = chance.uniform(0.05, 0.4)
            fields: dict[str, Any] = {}
            self.in_flight[id] = begun
            try:
                async with asyncio.timeout(TIMEOUT_S + SLACK_S):
                    if connection is None:
                        connection = await asyncio.open_connection("127.0.0.1", self._port)
                    fields = await self._exchange(*connection, function, id, pause_s)
            except TimeoutError:
                fields["trouble"] = "hangs past its deadline"
            except (OSError, asyncio.IncompleteReadError) as error:
                fields["trouble"] = repr(error)
            del self.in_flight[id]
            outcome = Outcome(id, function, begun, time.monotonic(), **fields)
            self.outcomes.append(outcome)
            if connection is not None and (outcome.trouble or outcome.closes):
                connection[1].close()
                connection = None
            if outcome.trouble:
                await asyncio.sleep(DRY_S)
        if connection is not None:
            connection[1].close()

    async def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._over:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, function: str, id: str, pause_s: float
    ) -> dict[str, Any]:
        body = json.dumps({"id": id, "pause_s": pause_s, "book": str(self._book)}).encode()
        head = f"POST /call/fire/{function} HTTP/1.1\r\nHost: localhost\r\nSwell-Timeout: {TIMEOUT_S:g}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = await reader.readexactly(int(headers["content-length"]))
        return {
            "status": int(start.split()[1]),
            "request": headers.get("swell-request-id", ""),
            "body": content,
            "cold": headers.get("swell-cold") == "1",
            "closes": headers.get("connection", "") == "close",
        }


@contextmanager
def traffic(port: int, book: Path, chance: random.Random, callers: Sequence[str]) -> Iterator[Traffic]:
    """Callers at work; at the end all of them have ended."""
    made = Traffic(port, book, chance, callers)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def repeated(book: Path) -> list[str]:
    """Ids that were begun more than once: a request that had reached user code was sent again."""
    return [id for id, times in Counter(book.read_text().split()).items() if times > 1]


def unbegun(book: Path, outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Answers to what no replica ever began."""
    begun = set(book.read_text().split())
    return [outcome for outcome in outcomes if outcome.answered and outcome.id not in begun]


class OneCall:
    """One request on a thread of its own."""

    def __init__(self, swell: PrivateSwell, pause_s: float, book: Path) -> None:
        self._swell = swell
        self._arguments = {"id": "long", "pause_s": pause_s, "book": str(book)}
        self.answer: Answer | None = None
        self.failure = ""
        self._thread = threading.Thread(target=self._call)
        self._thread.start()
        wait_until("it has begun", lambda: book.exists() and "long" in book.read_text().split(), wait_s=WAIT_S)

    def _call(self) -> None:
        try:
            with self._swell.connect() as client:
                self.answer = client.call(f"fire/{STEADY}", self._arguments)
        except Failed as failure:
            self.failure = str(failure)

    def join(self) -> None:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "it hangs"
