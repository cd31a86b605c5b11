"""What can be a secret, and does it keep itself out of what is printed?"""

from __future__ import annotations

import msgspec
import pytest

from swell.model.environment import Environment
from swell.model.secret import BYTES_MAX, KEYS_MAX, Revealed, SecretUse, problems
from swell.model.workload import Entry, Method, Revision


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "no variable: give KEY=VALUE"),
        ({"A B": "x"}, "'A B' is no variable's name"),
        ({"A=B": "x"}, "no variable's name"),
        ({"1A": "x"}, "no variable's name"),
        ({"A": "x\0y"}, "the value of A has a NUL"),
        ({"A": "\ud800"}, "cannot be written as UTF-8"),
        ({"A": "x" * BYTES_MAX}, f"more than {BYTES_MAX}"),
        ({f"A{n}": "x" for n in range(KEYS_MAX + 1)}, f"more than {KEYS_MAX}"),
    ],
)
def test_what_cannot_be_one_is_told_without_its_value(values: dict[str, str], why: str) -> None:
    told = "; ".join(problems(values))
    assert why in told
    assert "x\0y" not in told
    assert "xxxx" not in told


def test_anything_that_an_environment_takes_is_one() -> None:
    assert problems({"A": "", "_b": "ü\n\t'\"", "C" * 255: "x" * 60_000}) == []


def test_values_are_in_no_representation() -> None:
    secret = Revealed("default", "db", 3, (("PASSWORD", "hunter2"),), (("PASSWORD", "hunter1"),))
    assert repr(secret) == str(secret) == "Revealed(default/db v3)"
    assert "hunter" not in repr([secret]) + repr(secret.__rich_repr__()) + f"{secret}"
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(secret), type=Revealed) == secret


def test_a_revision_without_secrets_keeps_the_id_it_had_before_there_were_any() -> None:
    before = Revision(Environment("/usr/bin/python3", "3.11"), "sha256-0", Entry("m", "f", "function", (Method("f"),)))
    told = msgspec.to_builtins(before)
    del told["secrets"]
    assert msgspec.convert(told, Revision).id == before.id
    uses = [(SecretUse("a", "x"),), (SecretUse("b", "x"),), (SecretUse("a", "y"),), (SecretUse("a", "x", ("K",)),)]
    ids = {before.id, *(msgspec.structs.replace(before, secrets=use).id for use in uses)}
    assert len(ids) == 5
