"""How much memory does one more replica take, when it is forked from a template?

Measured from outside, by what the kernel says is private to the process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench import APPS, EXAMPLES
from bench.kernel import memory_mib
from bench.row import Options, Row, row
from private_swell import Client, PrivateSwell, private_swell, wait_until


def run(options: Options) -> list[Row]:
    """A large replica after 100 requests and a full collection; the OCR example after some pictures."""
    requests, pictures, replicas = options.rounds(100, 10), options.rounds(10, 2), options.rounds(3, 2)
    with private_swell(template_idle_s=600) as here:
        here.run("deploy", str(APPS / "memory_app.py"))
        _park(here, "bench-memory/Large.look", {"number": 0})

        def look(client: Client) -> None:
            for number in range(requests):
                client.call("bench-memory/Large.look", {"number": number * 997})
            client.call("bench-memory/Large.collect")

        seen = [_after(here, look) for _ in range(replicas)]
        rows = _rows(seen, "500 MB array and 200k dicts", f"after {requests} requests and gc.collect()", "≤ 10")
    with private_swell(template_idle_s=600) as here:
        here.run("deploy", str(EXAMPLES / "ocr.py"))
        picture = (EXAMPLES / "receipt.png").read_bytes()
        _park(here, "ocr/Reader.read", body=picture)

        def read(client: Client) -> None:
            for _ in range(pictures):
                client.call("ocr/Reader.read", body=picture)

        seen = [_after(here, read) for _ in range(replicas)]
        return rows + _rows(seen, "OCR example", f"after {pictures} pictures")


def _park(here: PrivateSwell, target: str, arguments: object = None, body: bytes | None = None) -> None:
    """Call once and wait for the template, so that the next replica is forked from it."""
    with here.connect() as client:
        client.call(target, arguments, body)
    wait_until("a loaded template and nothing else", here.parked, pause_s=0.2)


def _after(here: PrivateSwell, work: Callable[[Client], None]) -> dict[str, float]:
    """Memory of a fork that did the work, and then goes."""
    with here.connect() as client:
        work(client)
    (replica,) = here.serving()
    sizes = memory_mib(replica["pid"])
    wait_until("a loaded template and nothing else", here.parked, pause_s=0.2)
    return sizes


def _rows(seen: Sequence[dict[str, float]], what: str, note: str, goal: str = "") -> list[Row]:
    return [
        row("memory", f"{what}: resident", "MiB", [one["rss"] for one in seen], note=note),
        row("memory", f"{what}: private", "MiB", [one["private"] for one in seen], note="each time another fork"),
        row("memory", f"{what}: private share", "%", [100 * one["private"] / one["rss"] for one in seen], goal),
    ]
