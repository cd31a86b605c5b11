"""Is the tree tidy, and would the rules notice if it were not?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

import tidy
from tidy import Complaint, Source

BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def tree() -> list[Source]:
    return tidy.sources()


@pytest.mark.slow
@pytest.mark.parametrize("rule", tidy.RULES, ids=lambda rule: rule.__name__)
def test_tree_keeps_the_rule(rule: Callable[[Source], Iterable[Complaint]], tree: list[Source]) -> None:
    assert [str(complaint) for source in tree for complaint in rule(source)] == []


def test_tree_has_no_import_cycle(tree: list[Source]) -> None:
    assert [str(complaint) for complaint in tidy.cycles(tree)] == []


BREACHES = [
    (tidy.sizes, "src/swell/wire/a.py", "x = 1\n" * 501),
    (tidy.sizes, "src/swell/wire/a.py", "def f():\n" + "    x = 1\n" * 61),
    (tidy.floors, "src/swell/model/a.py", "from swell.wire import frames"),
    (tidy.floors, "src/swell/decide/a.py", "def f():\n    from swell.store import memory"),
    (tidy.floors, "src/swell/sdk/a.py", "import swell.serve"),
    (tidy.floors, "src/swell/control/a.py", "from swell.engines.fake import Fake"),
    (tidy.floors, "src/swell/supervise.py", "from swell.wire.settings import load"),
    (tidy.floors, "src/swell/attic/a.py", "x = 1"),
    (tidy.floors, "src/swell/gateway/a.py", "from ..control import loop"),
    (tidy.outside, "src/swell/runtime/a.py", "import starlette"),
    (tidy.outside, "src/swell/supervise.py", "import msgspec"),
    (tidy.outside, "src/swell/runtime/a.py", "import uvloop"),
    (tidy.outside, "src/swell/runtime/a.py", "from fastapi import FastAPI"),
    (tidy.purity, "src/swell/decide/a.py", "import time"),
    (tidy.purity, "src/swell/model/a.py", "def f():\n    from random import random"),
    (tidy.purity, "src/swell/decide/a.py", "x = open('f')"),
    (tidy.prints, "src/swell/control/a.py", "print(1)"),
    (tidy.names, "src/swell/gateway/utils.py", "x = 1"),
    (tidy.names, "src/swell/helpers/a.py", "x = 1"),
    (tidy.docstrings, "bench/a.py", "x = 1"),
    (tidy.stubs, "src/swell/sdk/a.py", "def f():\n    raise NotImplementedError"),
    (tidy.assertions, "tests/test_a.py", "def test_a():\n    x = 1"),
    (tidy.words, "docs/a.md", "TO" + "DO: say more"),
    (tidy.words, "docs/a.md", "cd /ho" + "me/me/swell"),
    (tidy.words, "Makefile", "curl https://py" + "pi.org/simple"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BREACHES)
def test_rule_notices(rule: Callable[[Source], Iterable[Complaint]], path: str, text: str) -> None:
    modules = frozenset({"swell.wire.frames", "swell.serve", "swell.store.memory", "swell.control.loop"})
    assert list(rule(Source(path, text, modules)))


ALLOWED = [
    (tidy.floors, "src/swell/cli/a.py", "from swell import serve"),
    (tidy.floors, "src/swell/supervise.py", "from swell.wire.paths import Home"),
    (tidy.floors, "src/swell/sdk/a.py", "from swell.sdk.image import Image\nfrom swell.model import workload"),
    (tidy.outside, "src/swell/sdk/a.py", "import json, msgspec\ndef f():\n    import httpx2"),
    (tidy.outside, "src/swell/runtime/a.py", "try:\n    import uvloop\nexcept ImportError:\n    uvloop = None"),
    (tidy.outside, "src/swell/api/a.py", "import starlette"),
    (tidy.purity, "src/swell/decide/a.py", "from math import ceil"),
    (tidy.prints, "src/swell/cli/a.py", "print(1)"),
]


@pytest.mark.parametrize(("rule", "path", "text"), ALLOWED)
def test_rule_lets_pass(rule: Callable[[Source], Iterable[Complaint]], path: str, text: str) -> None:
    assert list(rule(Source(path, text))) == []


def test_cycles_are_noticed_also_where_an_import_is_made_late() -> None:
    modules = frozenset({"swell.wire.a", "swell.wire.b"})
    there = Source("src/swell/wire/a.py", "from swell.wire import b", modules)
    back = Source("src/swell/wire/b.py", "from swell.wire.a import x", modules)
    late = Source("src/swell/wire/b.py", "def f():\n    from swell.wire.a import x", modules)
    none = Source("src/swell/wire/b.py", "import swell.model", modules)
    ring = ["import cycle: swell.wire.a → swell.wire.b → swell.wire.a"]
    assert [c.words for c in tidy.cycles([there, back])] == ring
    assert [c.words for c in tidy.cycles([there, late])] == ring
    assert list(tidy.cycles([there, none])) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "tool", [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",), ("lint-imports",)], ids=" ".join
)
def test_tool_is_content(tool: tuple[str, ...]) -> None:
    """What `make check` runs besides this file's rules."""
    done = subprocess.run([BIN / tool[0], *tool[1:]], cwd=tidy.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
