"""Is it known of every annotation what one caller gives?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Optional

import pytest

from swell.wire.single import single


@pytest.mark.parametrize(
    ("hint", "one"),
    [
        (list[int], int),
        (list[list[float]], list[float]),
        (Sequence[str], str),
        (Iterable[bytes], bytes),
        (list[int] | None, int),
        (Optional[list[int]], int),  # noqa: UP045 — as people write it
        (Annotated[list[int], "pixels"], int),
        (list[int | None], int | None),
        (list, Any),
        (list[Any], Any),
        (Any, Any),
        (int, Any),
        (dict[str, int], Any),
        (tuple[int, ...], Any),
    ],
)
def test_what_is_in_a_list_is_what_one_gives(hint: Any, one: Any) -> None:
    assert single(hint) == one
