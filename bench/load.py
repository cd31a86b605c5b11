"""How long do answers take at a fixed rate of requests? `python -m bench.load --port … --rate …` prints JSON.

Requests are due by a clock, not by the answers to earlier ones: a server that stalls is charged for every
request that came due meanwhile. Runs in a process of its own, so that what measures is not what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import deque

import msgspec

TICK_S = 0.001
"""How finely requests are spread; those due within one tick are sent together. uvloop counts in whole ms."""


class Load(msgspec.Struct, frozen=True):
    """What was seen. Latencies in ms, from the moment a request was due and seen to be, waiting for a free
    connection included."""

    sent: int
    answered: int
    errors: int
    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    late_ms: float
    """99th percentile of how late this client itself was: latencies of that size are its own."""


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request at a time. Answers must have a Content-Length."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.begun = 0.0
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.driver.free.append(self)

    def send(self, due: float) -> None:
        self.begun = due
        self.transport.write(self.driver.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, rest = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line[:15].lower() == b"content-length:")
        if len(rest) < length:
            return
        self.buffer = rest[length:]
        self.driver.answered(self, head.startswith(b"HTTP/1.1 200"))

    def connection_lost(self, _error: Exception | None) -> None:
        self.driver.errors += self.begun > 0


class Driver:
    """Sends what is due over the connections that are free."""

    def __init__(self, request: bytes, rate: float, seconds: float) -> None:
        self.request = request
        self.rate = rate
        self.seconds = seconds
        self.free: deque[Connection] = deque()
        self.waiting: deque[float] = deque()
        self.latencies: list[float] = []
        self.lateness: list[float] = []
        self.errors = 0
        self.sent = 0

    def answered(self, connection: Connection, fine: bool) -> None:
        if fine:
            self.latencies.append(time.perf_counter() - connection.begun)
        else:
            self.errors += 1
        connection.begun = 0.0
        self.free.append(connection)
        self._send()

    def _send(self) -> None:
        while self.waiting and self.free:
            self.free.popleft().send(self.waiting.popleft())

    async def run(self) -> None:
        """Until the time is over, and everything sent was answered or two seconds passed."""
        begun = time.perf_counter()
        while (now := time.perf_counter()) < begun + self.seconds:
            due = int((now - begun) * self.rate)
            if self.sent < due:
                self.lateness.append(now - begun - (self.sent + 1) / self.rate)
            for _ in range(due - self.sent):
                self.waiting.append(now)
                self.sent += 1
            self._send()
            await asyncio.sleep(TICK_S)
        for _ in range(int(2 / TICK_S)):
            if len(self.latencies) + self.errors == self.sent:
                break
            await asyncio.sleep(TICK_S)


async def measure(port: int, path: str, body: bytes, rate: float, seconds: float, connections: int) -> Load:
    """Open the connections, send at the rate, and say what was seen."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    driver = Driver(request, rate, seconds)
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(driver), "127.0.0.1", port)
    await driver.run()
    for connection in driver.free:
        connection.transport.close()
    ordered = sorted(driver.latencies) or [float("nan")]
    late = sorted(driver.lateness) or [0.0]

    def at(values: list[float], share: float) -> float:
        return values[min(int(share * len(values)), len(values) - 1)] * 1000

    return Load(
        sent=driver.sent,
        answered=len(driver.latencies),
        errors=driver.errors,
        rate=driver.sent / seconds,
        p50_ms=at(ordered, 0.5),
        p99_ms=at(ordered, 0.99),
        max_ms=ordered[-1] * 1000,
        late_ms=at(late, 0.99),
    )


def main() -> None:
    """Measure as told by the arguments; one JSON object on stdout."""
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--body", required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=64)
    told = parser.parse_args()
    seen = uvloop.run(measure(told.port, told.path, told.body.encode(), told.rate, told.seconds, told.connections))
    sys.stdout.write(msgspec.json.encode(seen).decode() + "\n")


if __name__ == "__main__":
    main()
