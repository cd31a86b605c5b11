"""Where do secrets of a program come from, and are they kept out of what is shown?"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swell
from sdk import deployable
from swell.sdk import describe, dotenv, run
from swell.sdk.secret import values


@pytest.mark.shows("Secret.from_dict", "env_dict")
def test_values_of_the_program_itself() -> None:
    secret = swell.Secret.from_dict({"TOKEN": "abc", "NOT": None})
    assert values(secret) == {"TOKEN": "abc"}
    assert repr(secret) == "swell.Secret.from_dict({'TOKEN'})"
    with pytest.raises(swell.Error, match="'A' and its value must be text"):
        swell.Secret.from_dict({"A": 1})  # type: ignore[dict-item]
    with pytest.raises(swell.Error, match=r"from_dict\(\{\}\) cannot be a secret: it has no variable"):
        values(swell.Secret.from_dict())


@pytest.mark.shows("Secret.from_local_environ", "env_keys")
def test_variables_of_who_deploys_are_read_when_that_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = swell.Secret.from_local_environ(["MINE"])
    monkeypatch.setenv("MINE", "abc")
    assert values(secret) == {"MINE": "abc"}
    monkeypatch.delenv("MINE")
    with pytest.raises(swell.Error, match="MINE is not set here: export it first"):
        values(secret)


@pytest.mark.shows("Secret.from_dotenv", "path", "filename")
def test_a_file_is_looked_for_upwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / ".env").write_text("WHERE=top\n")
    (tmp_path / "a" / "mine.env").write_text("WHERE=mine\n")
    (below / "x.py").touch()
    monkeypatch.chdir(tmp_path)
    assert values(swell.Secret.from_dotenv()) == {"WHERE": "top"}
    assert values(swell.Secret.from_dotenv(below)) == {"WHERE": "top"}
    assert values(swell.Secret.from_dotenv(str(below / "x.py"), filename="mine.env")) == {"WHERE": "mine"}
    with pytest.raises(swell.Error, match=r"no nope\.env in .*, nor above it"):
        values(swell.Secret.from_dotenv(filename="nope.env"))
    (tmp_path / "packed.env").write_bytes(b"hunter2=\xff")
    with pytest.raises(swell.Error, match=r"packed\.env is not text\.$"):
        values(swell.Secret.from_dotenv(filename="packed.env"))


def test_those_of_the_app_come_before_those_of_its_functions() -> None:
    brought = swell.Secret.from_dict({"A": "b"})
    app = swell.App("a", secrets=[swell.Secret.from_name("one"), brought])
    app.function(secrets=[brought, swell.Secret.from_name("two", environment_name="prod")])(deployable.plain)
    prepared = run.prepare(app, describe.Place("a", "staging", {}))
    (revision,) = prepared.app.revisions
    uses = [(use.namespace, use.name) for use in revision.secrets]
    assert uses == [("staging", "one"), ("staging", "app:0"), ("staging", "app:0"), ("prod", "two")]
    assert prepared.brought == {"app:0": brought}
    named = describe.with_secret_names(prepared.app, {"app:0": "app:a:12"})
    assert [use.name for use in named.revisions[0].secrets] == ["one", "app:a:12", "app:a:12", "two"]
    assert named.workloads[0].revision == named.revisions[0].id != revision.id


def test_what_is_no_secret_is_told_by_its_kind() -> None:
    with pytest.raises(swell.Error, match=r"App\.function\(secrets=\[…\]\): .* not one of type str") as raised:
        swell.App("a").function(secrets=["hunter2"])(deployable.plain)  # type: ignore[list-item]
    assert "hunter2" not in str(raised.value)
    with pytest.raises(swell.Error, match="secret 'a/b' is no name"):
        swell.Secret.from_name("a/b")
    with pytest.raises(swell.Error, match="give a list of variables' names"):
        swell.Secret.from_name("a", required_keys="KEY")
    one: Any = swell.Secret.from_name("a")
    with pytest.raises(swell.Error, match=r"App\(secrets=\[…\]\): .* in a list, not one of type Secret"):
        swell.App("a", secrets=one)
    for wrong in ("KEY", 3, [3]):
        with pytest.raises(swell.Error, match="give a list of variables' names"):
            swell.Secret.from_local_environ(wrong)  # type: ignore[arg-type]
        with pytest.raises(swell.Error, match="give a list of variables' names"):
            swell.Secret.from_name("a", required_keys=wrong)  # type: ignore[arg-type]
    with pytest.raises(swell.Error, match="give names and values"):
        swell.Secret.from_dict(["KEY"])  # type: ignore[arg-type]
    wrong_paths: Any = ({"path": 3}, {"filename": 3}, {"filename": None})
    for arguments in wrong_paths:
        with pytest.raises(swell.Error, match="give it as text, or as a pathlib"):
            swell.Secret.from_dotenv(**arguments)
    with pytest.raises(swell.Error, match="swell secret"):
        swell.Secret.objects.create("a", {})


def test_lines_of_a_dotenv_file() -> None:
    text = """# first
A=plain value   # said behind
export B = "quoted \\"and\\" \\n escaped" # more

C='single # \\n'
D=
E="over
two lines"
F=a#b
  G=http://x?y=z\r
"""
    assert dotenv.parse(text, "x") == {
        "A": "plain value",
        "B": 'quoted "and" \n escaped',
        "C": "single # \\n",
        "D": "",
        "E": "over\ntwo lines",
        "F": "a#b",
        "G": "http://x?y=z",
    }


def test_a_line_that_cannot_be_read_is_named_by_its_number_alone() -> None:
    with pytest.raises(swell.Error, match=r"^mine\.env: line 2 is no KEY=VALUE\.$"):
        dotenv.parse("A=b\nhunter2\n", "mine.env")


@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True), st.text(max_size=20), max_size=4))
def test_what_is_written_quoted_is_read_back(told: dict[str, str]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    assert dotenv.parse("".join(f"{key}={quoted(value)}\n" for key, value in told.items()), "x") == told


@given(st.text(alphabet="A=\"'\\# \n\rx", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(swell.Error):
        assert all(key in text for key in dotenv.parse(text, "x"))
