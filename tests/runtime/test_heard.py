"""Is what a process says kept up to a size, whatever it says?"""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from node import Node, run

from swell.model.secret import Revealed
from swell.runtime.runner.heard import DETAIL_MAX, abridged
from swell.runtime.runner.redact import Redactor
from swell.wire.child import Failed, Ready, Stuck, Unforked, Up

VALUE = "correct-horse-battery"
redact = Redactor([Revealed("default", "db", 1, (("A", VALUE),))])
times = st.integers(1, 3000)
texts = st.builds(lambda text, n: text * n, st.text(max_size=200), times)
lists = st.builds(lambda names, n: tuple(names * n), st.lists(st.text(max_size=200), max_size=5), times)


@given(
    st.one_of(
        st.builds(Failed, texts, texts),
        st.builds(Ready, st.just(1), lists.map(lambda names: tuple((name, 1.0) for name in names)), lists, texts),
        st.builds(Unforked, st.just("r"), texts),
        st.builds(Stuck, lists, st.booleans()),
    )
)
def test_what_is_said_has_a_bound(message: Up) -> None:
    kept = abridged(message, str)
    assert len(msgspec.msgpack.encode(kept)) < 1 << 20
    if len(msgspec.msgpack.encode(message)) < 100:
        assert kept == message


@given(st.integers(-30, 30), st.booleans())
def test_no_piece_of_a_secret_stays_where_a_traceback_is_cut(at: int, behind: bool) -> None:
    before = DETAIL_MAX // 2 + at
    text = "x" * before + VALUE + "x" * DETAIL_MAX
    kept = abridged(Failed("enter_error", text[::-1] if behind else text), redact)
    assert isinstance(kept, Failed)
    assert "horse" not in kept.detail
    assert len(kept.detail) < DETAIL_MAX + 200
    assert "more characters" in kept.detail


@pytest.mark.slow
def test_a_start_that_fails_with_a_long_message_is_told_with_its_ends() -> None:
    async def scenario(node: Node) -> None:
        over = await node.gone(node.start(node.revision("raise ValueError('x' * 2_000_000 + 'the end')\n")))
        assert over.reason == "import_error"
        assert "the end" in over.detail
        assert len(over.detail) < DETAIL_MAX + 200

    run(scenario)
