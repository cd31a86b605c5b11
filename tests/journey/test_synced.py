"""Is a call on disk before anybody is told that it was accepted? Looked at from outside, call by call of the kernel."""

from __future__ import annotations

import http.client
import json
import threading
from pathlib import Path

import pytest

from private_swell import WAIT_S, PrivateSwell, exchange, private_swell, wait_until
from tracing import Step, traced

pytestmark = pytest.mark.slow

APP = """
import swell

app = swell.App("synced")


@app.function()
def same(mark: str) -> str:
    return mark
"""
THREADS, EACH = 8, 12


def accepted(swell: PrivateSwell, number: int, ids: dict[str, str]) -> None:
    """Some calls by one connection, each with a mark of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", swell.port, timeout=WAIT_S)
    for turn in range(EACH):
        mark = f"mark-{number}-{turn}."
        headers = {"Swell-Async": "true", "Swell-Delay": "1d"}
        answer = exchange(connection, "POST", "/call/synced/same", json.dumps({"mark": mark}).encode(), headers)
        assert answer.status == 202, answer.body
        ids[mark] = answer.value["id"]
    connection.close()


def first(steps: list[Step], kind: str, text: str, after: int = 0) -> int:
    """The place of the first such step."""
    return next(at for at in range(after, len(steps)) if steps[at].kind == kind and text in steps[at].text)


@pytest.mark.parametrize("threads", [1, THREADS], ids=["one by one", "side by side"])
def test_each_call_is_synced_before_its_gateway_is_told(tmp_path: Path, threads: int) -> None:
    (tmp_path / "synced.py").write_text(APP)
    with private_swell() as swell:
        swell.run("deploy", str(tmp_path / "synced.py"))
        ids: dict[str, str] = {}
        with traced(swell.server("control")) as trace:
            submitters = [threading.Thread(target=accepted, args=(swell, n, ids)) for n in range(threads)]
            for each in submitters:
                each.start()
            for each in submitters:
                each.join()
            assert len(ids) == threads * EACH
            last = list(ids.values())[-1]
            wait_until("the trace has all", lambda: any(last in s.text for s in trace.steps() if s.kind == "sent"))
            steps = trace.steps()
        # Side by side, a sync for another call may be taken for this one's: the proof is those that come one by one.
        for mark, id in ids.items():
            received = first(steps, "received", mark)
            told = first(steps, "sent", id, received)
            synced = [step for step in steps[received:told] if step.kind == "synced" and "control.db-wal" in step.text]
            assert synced, f"{id} was told without a sync after it came:\n{steps[received:told]}"
