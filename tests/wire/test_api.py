"""Does an older server take what a newer program sends it?"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from swell.wire import api

STRICT = [
    each
    for each in vars(api).values()
    if isinstance(each, type) and issubclass(each, msgspec.Struct) and each.__struct_config__.forbid_unknown_fields
]
GIVEN: dict[str, dict[str, Any]] = {"NewKey": {"name": "ci", "scopes": ("admin",)}}
"""Struct → what none of it goes without."""


@pytest.mark.parametrize("struct", STRICT, ids=lambda struct: struct.__name__)
def test_what_says_nothing_is_not_sent(struct: type[msgspec.Struct]) -> None:
    given = GIVEN.get(struct.__name__, {})
    assert msgspec.to_builtins(struct(**given)) == given
