"""Is what is not UTF-8 refused in a sentence, wherever it comes from, without showing what may be secret?"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from swell.cli.main import run

SAID = 'K=["hunterü"]'.encode("latin-1")
WORD = SAID.decode(errors="surrogateescape")
"""As Python has what stands on a command line."""


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
@pytest.mark.parametrize(
    "words",
    [
        ["secret", "create", "s", "--from-dotenv", "FILE"],
        ["secret", "create", "s", "--from-dotenv", "-"],
        ["secret", "create", "s", "--from-stdin"],
        ["secret", "rotate", "s", "--from-stdin"],
        ["secret", "create", "s", WORD],
        ["call", "a/f", "@FILE"],
        ["call", "a/f", "-"],
        ["call", "a/f", WORD.removeprefix("K=")],
        ["call", "a/f", "--param", WORD],
        ["call", f"a/{WORD}"],
    ],
)
def test_it_is_refused(
    words: list[str],
    errors: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "latin.env"
    file.write_bytes(SAID)
    # A locale without an encoding of its own has bytes that are no UTF-8 kept as halves of characters.
    monkeypatch.setenv("SWELL_HOME", str(tmp_path / "h"))
    with io.TextIOWrapper(file.open("rb"), "utf-8", errors) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert run([word.replace("FILE", str(file)) for word in words]) == 2
    said = capsys.readouterr().err
    assert "it is not text in UTF-8." in said
    assert "hunter" not in said


def test_what_is_utf_8_is_read_whatever_the_locale_is_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "arguments.json"
    file.write_text('{"a": "ü"}', encoding="utf-8")
    monkeypatch.setenv("SWELL_HOME", str(tmp_path / "h"))
    monkeypatch.setenv("SWELL_PORT", "1")
    with file.open(encoding="ascii") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert run(["call", "a/f", "-"]) == 1
    assert "No Swell server" in capsys.readouterr().err
