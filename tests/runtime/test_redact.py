"""Is a secret known again in what is printed, in whatever form and however the bytes arrive?"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import urllib.parse
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swell.model.secret import Revealed
from swell.runtime.runner.redact import SHORTEST, Redactor
from swell.runtime.runner.spool import Lines, LogPipe
from swell.wire.loglines import LINE_MAX, mark

LABEL = "[secret db.PASSWORD]"
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r\x1e\x1f\x85\u2028\u2029\x0b\x0c\x1c\x1d"))
values = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\n\r\x1e\x1f\x85\u2028\u2029\x0b\x0c\x1c\x1d[]"),
    min_size=SHORTEST,
    max_size=40,
)


def redactor(*given: str) -> Redactor:
    return Redactor([Revealed("default", "db", 1, tuple(("PASSWORD", value) for value in given))])


@given(value=values, before=texts, after=texts)
def test_it_is_found_in_every_form(value: str, before: str, after: str) -> None:
    redact = redactor(value)
    for form in (
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        urllib.parse.quote(value),
        urllib.parse.quote_plus(value),
        base64.b64encode(value.encode()).decode().rstrip("="),
        base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
    ):
        assert value not in redact(f"{before}{form}{after}")
        assert LABEL in redact(form)


@pytest.mark.parametrize("before", ["", "u", "us", "user", "user:", "Basic me:"])
def test_it_is_found_in_base64_of_more_than_itself(before: str) -> None:
    value = "hunter2-hunter2"
    coded = base64.b64encode(f"{before}{value}@host".encode()).decode()
    told = redactor(value)(f"Authorization: Basic {coded} sent")
    assert LABEL in told
    pieces = told.removeprefix("Authorization: Basic ").removesuffix(" sent").split(LABEL)
    assert all(len(piece) <= 4 * (len(before) // 3 + 3) for piece in pieces)


@given(data=st.data(), value=values, around=texts, count=st.integers(1, 3))
def test_it_is_found_however_the_bytes_are_cut(data: st.DataObject, value: str, around: str, count: int) -> None:
    lines = Lines(redactor(value))
    sent = (f"{around}{value}" * count + "\n").encode()
    got = []
    while sent:
        size = data.draw(st.integers(1, len(sent)))
        got += lines.feed(sent[:size])
        sent = sent[size:]
    assert len(got) == 1
    assert value not in got[0]
    assert got[0].count(LABEL) >= 1


@given(value=values.filter(lambda text: len(text) > SHORTEST), at=st.integers(1, 39))
@example(value="00000000", at=1)
def test_no_piece_of_it_is_left_where_a_long_line_was_cut(value: str, at: int) -> None:
    at = min(at, len(value) - 1)
    filler = next(character for character in "#%~^" if character not in value)
    lines = Lines(redactor(value))
    (line,) = lines.feed((filler * (LINE_MAX - at) + value + "\n").encode())
    kept = line.partition(" … [")[0].lstrip(filler)
    assert kept == LABEL or (at < SHORTEST and kept == value[:at])
    redact = redactor(value)
    rest = redact(value[at:] + filler)
    assert rest == LABEL + filler or len(value) - at < SHORTEST


def test_each_line_of_a_long_value_is_found() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nab\n-----END KEY-----"
    redact = redactor(key)
    assert [redact(line) for line in key.splitlines()] == [LABEL, LABEL, "ab", LABEL]
    assert redact(json.dumps({"key": key})) == f'{{"key": "{LABEL}"}}'


def test_values_of_former_versions_are_found_and_short_ones_are_not_looked_for() -> None:
    redact = Redactor([Revealed("default", "db", 2, (("A", "newest"), ("PIN", "12345")), (("A", "former"),))])
    assert redact("newest former 12345") == "[secret db.A] [secret db.A] 12345"
    assert Redactor([])("nothing is known") == "nothing is known"


def test_a_longer_value_is_not_hidden_by_a_shorter_one_in_it() -> None:
    redact = Redactor([Revealed("default", "db", 1, (("SHORT", "abcdef"), ("LONG", "abcdef-ghijkl")))])
    assert redact("abcdef-ghijkl, abcdef") == "[secret db.LONG], [secret db.SHORT]"


def test_what_a_program_brought_along_is_called_after_its_app() -> None:
    redact = Redactor([Revealed("default", "app:shop:0123", 1, (("TOKEN", "abc-def"),))])
    assert redact("abc-def") == "[secret shop.TOKEN]"


def test_a_pipe_keeps_whose_line_it_is_and_its_last_words_have_no_secret(tmp_path: Path) -> None:
    async def read() -> tuple[list[tuple[str, str, str]], list[str]]:
        heard: list[tuple[str, str, str]] = []
        pipe = LogPipe(tmp_path / "pipe", heard.extend)
        pipe.redact = redactor("hunter2-hunter2")
        end = pipe.open_end()
        os.write(end, (mark("e", "r1", "hunter2-hunter2 failed") + "\nplain hunter2-hunter2\n").encode())
        os.close(end)
        pipe.close()
        return heard, pipe.last_words()

    heard, last = asyncio.run(read())
    assert heard == [("err", "r1", f"{LABEL} failed"), ("out", "", f"plain {LABEL}")]
    assert last == [f"{LABEL} failed", f"plain {LABEL}"]
