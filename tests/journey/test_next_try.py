"""A service that could not be started: who calls is told when to come back, and finds it mended then."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from journey.callers import call
from private_swell import private_swell

SOURCE = """
from pathlib import Path
import swell

app = swell.App("fragile")


@app.cls(scaledown_window=60)
class Fragile:
    @swell.enter()
    def load(self):
        if not Path({weights!r}).exists():
            raise FileNotFoundError("no weights yet")

    @swell.method()
    def answer(self) -> int:
        return 42
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_kept_failing_is_tried_again_for_the_first_caller_after_its_time(tmp_path: Path) -> None:
    """Nothing else happens meanwhile: no deploy, and nobody who asks for it."""
    weights = tmp_path / "weights"
    file = tmp_path / "fragile.py"
    file.write_text(SOURCE.format(weights=str(weights)))
    with private_swell(restart_backoff_s=0.1, restart_backoff_max_s=2) as here, here.connect() as client:
        here.run("deploy", str(file))
        refused = call(here, "fragile/Fragile.answer")
        assert (refused.status, refused.error["code"]) == (503, "no_replica")
        assert "no weights yet. Try again in" in refused.error["message"]
        again_s = int(refused.headers["retry-after"])
        assert 1 <= again_s <= 2
        weights.write_text("")
        time.sleep(again_s)
        assert client.call("fragile/Fragile.answer").value == 42
