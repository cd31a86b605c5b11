"""What does a plain caller see? HTTP requests whose answers may be refusals, and commands that may fail."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from private_swell import Answer, Failed, PrivateSwell, exchange, wait_until

APPS = Path(__file__).parent / "apps"
WAIT_S = 120.0


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str


def ask(
    swell: PrivateSwell, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """One request on a connection of its own, without the key unless `headers` has it."""
    connection = http.client.HTTPConnection("127.0.0.1", swell.port, timeout=WAIT_S)
    try:
        return exchange(connection, method, path, body, headers or {})
    finally:
        connection.close()


def call(swell: PrivateSwell, target: str, arguments: object = None, **headers: str) -> Answer:
    """Call `app/function` with JSON; `swell_timeout="1"` is the header Swell-Timeout."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask(swell, "POST", f"/call/{target}", json.dumps(arguments or {}).encode(), named)


def command(swell: PrivateSwell, *words: str, cwd: Path | None = None) -> Said:
    """Run `swell …`."""
    done = subprocess.run(["swell", *words], env=swell.environ, capture_output=True, text=True, timeout=WAIT_S, cwd=cwd)
    return Said(done.returncode, done.stdout, done.stderr)


def key(swell: PrivateSwell) -> dict[str, str]:
    """The header that makes a caller trusted."""
    return {"Authorization": f"Bearer {(swell.home / 'key').read_text().strip()}"}


@contextmanager
def opened_at_the_end(gate: Path) -> Iterator[None]:
    """Whatever happens, who waits for this file does so no longer than the block."""
    try:
        yield
    finally:
        gate.touch()


def why(swell: PrivateSwell, request: str) -> dict[str, Any]:
    """The record of a request, once it is there: what `swell why --json` prints."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        with suppress(Failed):
            found.append(swell.get(f"/api/requests/{request}"))
        return bool(found)

    wait_until(f"the record of {request}", there, wait_s=WAIT_S)
    return found[0]


def events(body: bytes) -> list[tuple[str, Any]]:
    """Server-sent events as (event, data from JSON)."""
    found = []
    for event in body.decode().strip().split("\n\n"):
        fields = dict(line.partition(":")[::2] for line in event.splitlines())
        data = fields.get("data", "").strip()
        found.append((fields.get("event", "message").strip(), json.loads(data) if data else None))
    return found
