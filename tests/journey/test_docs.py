"""Do the README and docs/ tell the truth? Their blocks are run, their tables compared, their links followed.

In a document, in order: a ```python block after `<!-- file: name.py -->` is saved under that name; any other
```python block is run; a ```bash block is run with `bash -e`, and each `# → words` line in it must appear in
the output, in order; a ```toml block must parse. A block that is not to be run is preceded by
`<!-- not run: why -->`. `python tests/journey/test_docs.py` writes the tables of settings and metrics.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))

from private_swell import PrivateSwell, unstarted_swell  # noqa: E402 - also when run as a script
from swell.cli.main import COMMANDS  # noqa: E402
from swell.cli.main import swell as program  # noqa: E402
from swell.model.metrics import METRICS  # noqa: E402
from swell.model.policy import Policy  # noqa: E402
from swell.model.request import Prices  # noqa: E402
from swell.wire.settings import Settings, load  # noqa: E402

DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")])
OPERATIONS = ROOT / "docs" / "operations.md"
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
RUNNABLE = {"bash", "python", "toml"}
SHOWN_ONLY = {"", "text", "http", "json", "yaml"}
BLOCK = re.compile(r"(?:<!-- (?P<note>[^>]*) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
DEFAULT_ADDRESS = "127.0.0.1:8470"
BLOCK_WAIT_S = 300


class Block(NamedTuple):
    """One fenced block, the comment right above it, and its line."""

    kind: str
    text: str
    note: str
    line: int


def blocks(document: Path) -> list[Block]:
    text = document.read_text()
    return [
        Block(found["kind"], found["text"], found["note"] or "", text.count("\n", 0, found.start("kind")) + 1)
        for found in BLOCK.finditer(text)
    ]


def names(documents: list[Path]) -> list[str]:
    return [str(document.relative_to(ROOT)) for document in documents]


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_block_is_run_or_says_why_not(document: Path) -> None:
    for block in blocks(document):
        assert block.kind in RUNNABLE | SHOWN_ONLY, f"{document.name}:{block.line}: what is {block.kind!r}?"
        if block.note.startswith("not run"):
            assert re.fullmatch(r"not run: \S.{9,}", block.note), f"{document.name}:{block.line}: why is it not run?"
    assert document.read_text().count("\n```") % 2 == 0, "a block is not closed"


WITH_BLOCKS = [d for d in DOCUMENTS if any(b.kind in ("bash", "python") for b in blocks(d))]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("document", WITH_BLOCKS, ids=names(WITH_BLOCKS))
def test_blocks_do_what_they_say(document: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    with unstarted_swell() as swell:
        for block in blocks(document):
            if not block.note.startswith("not run"):
                run(block, document, tmp_path, swell)


def run(block: Block, document: Path, folder: Path, swell: PrivateSwell) -> None:
    """Do what the block says, against this platform instead of the one at the usual port."""
    text = block.text.replace(DEFAULT_ADDRESS, f"127.0.0.1:{swell.port}")
    where = f"{document.name}:{block.line}"
    if block.note.startswith("file: "):
        (folder / block.note.removeprefix("file: ")).write_text(text)
    elif block.kind in ("bash", "python"):
        words = ["bash", "-e", "-c"] if block.kind == "bash" else [sys.executable, "-c"]
        done = subprocess.run(
            [*words, text], cwd=folder, env=swell.environ, capture_output=True, text=True, timeout=BLOCK_WAIT_S
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"{where} ended with {done.returncode}:\n{said}\n{swell.log()}"
        for expected in re.findall(r"^# → (.*)$", block.text, re.MULTILINE):
            before, found, said = said.partition(expected)
            assert found, f"{where}: expected {expected!r} in:\n{before}"


TOML = [(document, block) for document in DOCUMENTS for block in blocks(document) if block.kind == "toml"]


@pytest.mark.parametrize(("document", "block"), TOML, ids=[f"{d.name}:{b.line}" for d, b in TOML])
def test_toml_blocks_are_settings_or_prices(document: Path, block: Block, tmp_path: Path) -> None:
    if "usd" in block.text:
        assert msgspec.convert(tomllib.loads(block.text), Prices) == Prices()
    else:
        (tmp_path / "swell.toml").write_text(block.text)
        assert load(environ={"SWELL_HOME": "/tmp/s"}, cwd=tmp_path) != load(environ={"SWELL_HOME": "/tmp/s"}, cwd=ROOT)


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        assert target.startswith("https://") or (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_page_is_in_the_readme() -> None:
    shown = set(LINK.findall((ROOT / "README.md").read_text()))
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f"docs/{page.name}" not in shown] == []


def test_the_licence_is_the_one_that_is_named() -> None:
    text = " ".join((ROOT / "LICENSE").read_text().split())
    assert text.startswith("Apache License Version 2.0, January 2004 http://www.apache.org/licenses/")
    assert "END OF TERMS AND CONDITIONS" in text
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"
    assert (ROOT / "README.md").read_text().rstrip().endswith("Apache-2.0.")


def test_every_make_target_is_in_the_readme() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)) - {"help"}
    readme = (ROOT / "README.md").read_text()
    assert targets == {
        target for target in targets if re.search(rf"`(?:make )?{target}`|^make {target} ", readme, re.M)
    }


def test_every_command_is_in_operations() -> None:
    text = OPERATIONS.read_text()
    assert [command for command in COMMANDS if f"`swell {command}" not in text] == []


def test_every_flag_is_in_operations() -> None:
    text = OPERATIONS.read_text()
    flags = {
        flag
        for command in (program.get_command(click.Context(program), name) for name in COMMANDS)
        for one in (command, *getattr(command, "commands", {}).values())
        for parameter in one.params
        for flag in parameter.opts
        if isinstance(parameter, click.Option) and flag != "--help"
    }
    assert {"--now", "--attach-pid", "-f"} <= flags
    assert sorted(flag for flag in flags if f"`{flag}" not in text) == []


def test_settings_table_is_the_code() -> None:
    _, table, _ = section("settings")
    assert table == settings_table(), "run `python tests/journey/test_docs.py` to write it anew"


def test_metrics_table_is_the_code() -> None:
    _, table, _ = section("metrics")
    assert table == metrics_table(), "run `python tests/journey/test_docs.py` to write it anew"


def section(name: str) -> tuple[str, str, str]:
    """What is before a table in docs/operations.md, the table, and what is after it."""
    text = OPERATIONS.read_text()
    begin = text.index("-->\n", text.index(f"<!-- {name}:")) + 4
    end = text.index(f"<!-- end of {name} -->")
    return text[:begin], text[begin:end], text[end:]


def metrics_table() -> str:
    """All metrics as they are declared."""
    rows = ["| metric | kind | labels | |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join(rows) + "\n"


def settings_table() -> str:
    """All settings with their defaults and what the code says of them."""
    rows = ["| setting | default | |", "|---|---|---|"]
    for kind, mark in ((Settings, ""), (Policy, "*")):
        for field in msgspec.structs.fields(kind):
            if field.name not in ("policy", "sources"):
                default = "" if field.default in (msgspec.NODEFAULT, "", ()) else f"`{_shown(field.default)}`"
                rows.append(f"| {mark}{field.name}{mark} | {default} | {meanings(kind)[field.name]} |")
    return "\n".join(rows) + "\n"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:_}" if isinstance(value, int) and value >= 1_000_000 else str(value)


def meanings(kind: type) -> dict[str, str]:
    """The string after each field of a class, in one line."""

    def documented() -> Iterator[tuple[str, str]]:
        source = Path(sys.modules[kind.__module__].__file__ or "").read_text()
        (body,) = (n.body for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == kind.__name__)
        for field, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
                yield ast.unparse(field.target), " ".join(ast.literal_eval(after.value).split())

    return dict(documented())


if __name__ == "__main__":
    for name, written in (("settings", settings_table), ("metrics", metrics_table)):
        before, _, after = section(name)
        OPERATIONS.write_text(before + written() + after)
