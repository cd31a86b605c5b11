"""Is what was said of the machine's going read as it was said, and nothing else taken for that?"""

from __future__ import annotations

from pathlib import Path

import pytest

from swell.runtime.runner import departure


@pytest.mark.parametrize(
    ("text", "at"),
    [("1700000000.5\n", 1_700_000_000.5), ("", None), ("soon", None), ("nan", None), ("inf", None), (None, None)],
)
def test_when_the_node_goes_is_what_the_file_says_where_it_says_that(
    tmp_path: Path, text: str | None, at: float | None
) -> None:
    if text is not None:
        (tmp_path / "leaving").write_text(text)
    assert departure.leaving_at(tmp_path / "leaving") == at
