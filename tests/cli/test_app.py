"""Does a list of apps fit a terminal, a line for each workload?"""

from __future__ import annotations

import io
import sys

import pytest

from swell.cli.app import HEADS, listing
from swell.wire.api import AppRow, WorkloadRow


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def workload(name: str, url: str) -> WorkloadRow:
    return WorkloadRow(name, "rv-0123456789ab", "function", (name,), url, 1, 2, 3, 4)


def test_one_line_for_each_workload_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "80")
    here = "http://127.0.0.1:8470"
    rows = [workload("recognise", f"{here}/call/documents/recognise"), workload("site", f"{here}/web/documents-site/")]
    text = listing([AppRow("default", "documents", 100.0, False, "", tuple(rows), (("team", "a"),))], 160.0)
    heads, call, web = [line.split() for line in text.splitlines()]
    assert heads == list(HEADS)
    # Where calls go follows from the names; a web endpoint's path does not.
    assert call == ["documents", "recognise", "1/2", "3", "4", "1m00s", "-", "team=a"]
    assert web[6] == "/web/documents-site/"
    assert max(map(len, text.splitlines())) <= 80
