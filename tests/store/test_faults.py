"""Is a full disk told as one, also where the database has another name for it?"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from swell.store.sqlite import SqliteStore

WAIT_S = 60.0
SOURCE = Path(__file__).parents[2] / "src"

CROWDED = """
    import resource, sys
    from pathlib import Path
    from swell.model.errors import SwellError
    from swell.store.sqlite import SqliteStore

    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))
    try:
        SqliteStore(Path(sys.argv[1]))
    except SwellError as error:
        print(error.code, error.__cause__.sqlite_errorname)
"""


def test_a_disk_that_has_no_room_for_what_opening_takes_is_a_full_one(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    SqliteStore(path).close()
    assert not (tmp_path / "control.db-shm").exists()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CROWDED), str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=WAIT_S,
    )
    assert done.stdout == "state_full SQLITE_IOERR_SHMSIZE\n"
    SqliteStore(path).close()
