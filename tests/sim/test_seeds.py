"""Which seeds are meant, and is it refused to try none?"""

from __future__ import annotations

import argparse

import pytest

from swell.sim.__main__ import seeds


def test_one_or_the_first_and_the_last() -> None:
    assert seeds("7") == range(7, 8)
    assert seeds("5-5") == range(5, 6)
    assert seeds("100-199") == range(100, 200)


@pytest.mark.parametrize("words", ["5-1", "", "-", "-5", "x", "1-x", "1-2-3"])
def test_no_seeds_keep_no_promise(words: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="the lesser first"):
        seeds(words)
