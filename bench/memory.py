"""How much memory does one more replica take, when it is forked from a template?

Measured from outside, by what the kernel says is private to the process.
"""

from __future__ import annotations

from bench import APPS, EXAMPLES
from bench.kernel import memory_mib
from bench.row import Options, Row, row
from private_swell import PrivateSwell, private_swell, wait_until


def run(options: Options) -> list[Row]:
    """A large replica after 100 requests and a full collection; the OCR example after some pictures."""
    requests = options.rounds(100, 10)
    with private_swell(template_idle_s=600) as here:
        here.run("deploy", str(APPS / "memory_app.py"))
        _park(here, "bench-memory/Large.look", {"number": 0})
        with here.connect() as client:
            for number in range(requests):
                client.call("bench-memory/Large.look", {"number": number * 997})
            client.call("bench-memory/Large.collect")
        rows = _seen(here, "500 MB array and 200k dicts", f"after {requests} requests and gc.collect()", "≤ 10")
    with private_swell(template_idle_s=600) as here:
        here.run("deploy", str(EXAMPLES / "ocr.py"))
        picture = (EXAMPLES / "receipt.png").read_bytes()
        _park(here, "ocr/Reader.read", body=picture)
        with here.connect() as client:
            for _ in range(options.rounds(10, 2)):
                client.call("ocr/Reader.read", body=picture)
        return rows + _seen(here, "OCR example", f"after {options.rounds(10, 2)} pictures")


def _park(here: PrivateSwell, target: str, arguments: object = None, body: bytes | None = None) -> None:
    """Call once and wait for the template, so that the next replica is forked from it."""
    with here.connect() as client:
        client.call(target, arguments, body)
    wait_until("a loaded template and nothing else", here.parked, pause_s=0.2)


def _seen(here: PrivateSwell, what: str, note: str, goal: str = "") -> list[Row]:
    (replica,) = here.serving()
    sizes = memory_mib(replica["pid"])
    share = 100 * sizes["private"] / sizes["rss"]
    return [
        row("memory", f"{what}: resident", "MiB", [sizes["rss"]], note=note),
        row("memory", f"{what}: private", "MiB", [sizes["private"]]),
        row("memory", f"{what}: private share", "%", [share], goal),
    ]
