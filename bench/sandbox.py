"""What does a sandbox cost a wake? The same class with and without one, in turn, each forked from its template."""

from __future__ import annotations

from bench import APPS
from bench.row import Options, Row, quantile, row
from private_swell import PrivateSwell, private_swell, wait_until

GONE_S = 30.0
KEY = {"key": "7"}


def run(options: Options) -> list[Row]:
    """Wakes of both, and each sandboxed one less the plain one right before it."""
    ms: dict[str, list[float]] = {"Plain": [], "Walled": []}
    with private_swell(template_idle_s=600) as here:
        here.run("deploy", str(APPS / "sandbox_app.py"))
        for name in ms:
            _wake(here, name)
        for _ in range(options.rounds(200, 5)):
            for name, all_of_it in ms.items():
                all_of_it.append(_wake(here, name))
    plain, walled = ms["Plain"], ms["Walled"]
    over = [one - other for one, other in zip(walled, plain, strict=True)]
    return [
        row("sandbox", "plain, from a template, request to answer", "ms", plain),
        row("sandbox", "in a sandbox, from a template", "ms", walled, "≤ 50"),
        row("sandbox", "over the plain one", "ms", over, note="each less the plain one right before it"),
        row("sandbox", "p99 of the plain one", "ms", [quantile(plain, 0.99)], note=f"of all {len(plain)}"),
        row("sandbox", "p99 in a sandbox", "ms", [quantile(walled, 0.99)], note=f"of all {len(walled)}"),
    ]


def _wake(here: PrivateSwell, name: str) -> float:
    with here.connect() as client:
        answer = client.call(f"bench-sandbox/{name}.look", KEY)
    wait_until("the replica is gone", lambda: not here.serving(), GONE_S)
    return answer.ms
