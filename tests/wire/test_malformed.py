"""Is it told why a body is no JSON, and where?"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.model.errors import SwellError
from swell.wire.malformed import must_be_plain, why_not_json

HERE = "here it is"
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=5) | st.sampled_from(
    ["\\", '"', "\\ud800", '\\"', "1e999", "NaN", "😀", "a"]
)
plain: Any = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e300, 1e300) | texts


@st.composite
def around(draw: st.DrawFn) -> str:
    """A document with `HERE` in one place in it, as a value."""
    value: Any = HERE
    for _ in range(draw(st.integers(0, 4))):
        before, behind = draw(st.lists(plain, max_size=2)), draw(st.lists(plain, max_size=2))
        if draw(st.booleans()):
            value = [*before, value, *behind]
        else:
            value = {str(at): each for at, each in enumerate([*before, value, *behind])}
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


def why(body: bytes) -> str:
    """What is said of a body that is refused."""
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError, RecursionError)) as raised:
        msgspec.json.decode(body)
    return why_not_json(body, raised.value)


def planted(document: str, what: bytes) -> tuple[bytes, int]:
    """The document with something else in that place; and at which byte that is."""
    before, behind = document.encode().split(f'"{HERE}"'.encode())
    return before + what + behind, len(before)


@given(
    around(),
    st.sampled_from([rb"\ud800", rb"\uDBFF", rb"\udc00", rb"\ud800\u0041", rb"\udc00\ud800", rb"\ud800\n"]),
    texts,
)
def test_half_of_a_character_is_named_where_it_is(document: str, half: bytes, text: str) -> None:
    lead = json.dumps(text).encode()[:-1]
    body, at = planted(document, lead + half + b'"')
    said = why(body)
    assert f"the escape {half[:6].decode()} at byte {at + len(lead)} is half of a character" in said


@given(around(), st.sampled_from([b"1e999", b"-1e400", b"1.5E+309", b"9" * 400 + b".0", b"-" + b"9" * 5000]))
def test_a_number_out_of_range_is_named_where_it_is(document: str, number: bytes) -> None:
    body, at = planted(document, number)
    said = why(body)
    assert f"the number {number.decode()[:30]}" in said
    assert f" at byte {at} is out of range" in said


@given(around(), st.sampled_from(["NaN", "Infinity", "-Infinity", "None", "True", "False", "undefined"]))
def test_what_other_languages_write_is_named_with_what_json_has_for_it(document: str, word: str) -> None:
    body, at = planted(document, word.encode())
    instead = {"True": "true", "False": "false"}.get(word, "null")
    assert why(body) == f"{word} at byte {at} is not JSON: send {instead}"


@given(around(), st.binary(min_size=1, max_size=4), st.data())
def test_whatever_is_refused_is_told_in_a_line(document: str, more: bytes, data: st.DataObject) -> None:
    whole = document.encode()
    at = data.draw(st.integers(0, len(whole)))
    body = whole[:at] + more + whole[at + data.draw(st.integers(0, 3)) :]
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        said = why_not_json(body, error)
        assert 5 < len(said) < 200
        assert "\n" not in said


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\x1f\x8b\x08\x00", "looks compressed (gzip)"),
        (b"\x28\xb5\x2f\xfd", "looks compressed (zstd)"),
        (b'\xef\xbb\xbf{"x": 1}', "byte order mark"),
        ('{"x": 1}'.encode("utf-16"), "send UTF-8"),
        (b'{"x": "\xff"}', "byte 7 is not UTF-8"),
        (b"{'x': 1}", "double quotes"),
        (b'{"x": 1', "ends too soon"),
        (b" ", "it is empty"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"x": 1,}', "trailing comma in object (byte 8)"),
    ],
)
def test_what_people_send_is_told_with_the_way_out(body: bytes, words: str) -> None:
    assert words in why(body)


def refused(coding: bytes) -> tuple[int, str, bool]:
    try:
        must_be_plain(coding)
    except SwellError as error:
        return error.status, error.code, "send it as it is" in error.message
    return 0, "", False


def test_a_body_that_says_it_is_compressed_is_refused() -> None:
    for coding in (b"gzip", b"GZIP", b"br, gzip", b"identity, gzip", b"\xff", b"x" * 1000):
        assert refused(coding) == (415, "bad_body", True)
    for coding in (b"", b"identity", b"Identity"):
        assert refused(coding) == (0, "", False)
