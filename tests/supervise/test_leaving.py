"""Does a server know that its machine went, as had been said, before it was started here again?"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from swell.supervise.server import _files
from swell.wire.paths import Home


def test_what_was_said_of_the_machine_is_over_with_the_next_server_and_known_to_that_one_alone(tmp_path: Path) -> None:
    home, lock = Home(tmp_path), SimpleNamespace(there=False)
    home.run.mkdir()
    home.leaving.write_text("1700000000.0\n")
    for left in (True, False):
        with _files(home, lock):  # type: ignore[arg-type]  # what is used
            assert (home.leaving.exists(), home.left.exists()) == (False, left)
