"""Where do these tests find what they share?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for _folder in (Path(__file__).parent, Path(__file__).parent.parent / "conformance"):
    sys.path.insert(0, str(_folder))


@pytest.fixture(scope="module")
def somewhere(request: pytest.FixtureRequest) -> Iterator[object]:
    """A place of the kind that is asked for."""
    # Found by what is above.
    from places import place

    with place(request.param) as made:
        yield made
