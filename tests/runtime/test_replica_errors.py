"""Is what the user's classes and functions raise told as it is, whatever it is and whatever it says?"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from replica_harness import ReplicaProcess, cls, ready_replica, until

SOURCE = """
    import msgspec

    class Choosy(msgspec.Struct):
        name: str

        def __post_init__(self):
            raise {"key": KeyError, "value": ValueError}[self.name](f"no model {self.name} \\ud800")

    class Thing:
        def half(self):
            raise ValueError("no model \\ud800")

        async def half_async(self):
            raise ValueError("no model \\ud800")

        def items(self):
            yield 1
            raise ValueError("no model \\ud800")

        def choose(self, choosy: Choosy):
            raise AssertionError

        async def choose_async(self, choosy: Choosy):
            raise AssertionError
"""


@pytest.fixture(scope="module")
def replica() -> Iterator[ReplicaProcess]:
    with ready_replica(SOURCE, cls("half", "half_async", "items", "choose", "choose_async")) as process:
        yield process


@pytest.mark.parametrize("method", ["half", "half_async"])
def test_half_a_character_in_an_error_is_written_as_python_writes_it(replica: ReplicaProcess, method: str) -> None:
    """The standard library reads one from JSON, and has one for a byte in a file's name: it is in no UTF-8."""
    status, _, body = replica.request(f"/call/{method}")
    error = msgspec.json.decode(body)["error"]
    assert (status, error["code"], error["message"]) == (500, "exception", r"ValueError: no model \ud800")


def test_so_it_is_in_a_stream(replica: ReplicaProcess) -> None:
    status, _, body = replica.request("/call/items")
    assert status == 200
    assert rb"ValueError: no model \\ud800" in body


@pytest.mark.parametrize("method", ["choose", "choose_async"])
def test_what_a_class_raises_that_arguments_are_made_into_is_told_as_it_is(
    replica: ReplicaProcess, method: str
) -> None:
    """It is the caller's fault where it says so by a ValueError, and the code's otherwise."""
    for name, status, code, words in (
        ("key", 500, "exception", r"KeyError: 'no model key \ud800'"),
        ("value", 422, "bad_arguments", r"no model value \ud800"),
    ):
        got, _, body = replica.request(f"/call/{method}", msgspec.json.encode({"choosy": {"name": name}}))
        error = msgspec.json.decode(body)["error"]
        assert (got, error["code"]) == (status, code), error
        assert words in error["message"]
    until(lambda: replica.printed("KeyError: 'no model"), "the traceback")
