"""Is what a build prints kept, up to a size?"""

from __future__ import annotations

from pathlib import Path

from swell.runtime.runner.build_calls import LOG_MAX, Log


def test_what_is_printed_on_and_on_does_not_fill_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w", encoding="utf-8") as file:
        log = Log(file)
        log.write("first")
        for _ in range(40):
            log.write("é" * (LOG_MAX // 60))
    first, *others, last = path.read_text(encoding="utf-8").splitlines()
    assert first == "first"
    assert len(others) == 29
    assert last == f"[more was printed than the {LOG_MAX} bytes that are kept]"
    assert path.stat().st_size < LOG_MAX
