"""Does a list of apps fit a terminal, a line for each workload?"""

from __future__ import annotations

import io
import json
import sys
from typing import cast

import msgspec
import pytest
from click.testing import CliRunner

from swell.cli import options
from swell.cli.app import HEADS, app, listing
from swell.cli.output import json_text
from swell.sdk.client import Client
from swell.wire.api import AppRow, WorkloadRow


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def workload(name: str, url: str, ready: int | None = 1, live: int | None = 2) -> WorkloadRow:
    return WorkloadRow(name, "rv-0123456789ab", "function", (name,), url, ready, live, 3, 4)


def test_one_line_for_each_workload_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "80")
    here = "http://127.0.0.1:8470"
    rows = [workload("recognise", f"{here}/call/documents/recognise"), workload("site", f"{here}/web/documents-site/")]
    text = listing([AppRow("default", "documents", 100.0, False, "", tuple(rows), (("team", "a"),), 12)], 160.0)
    heads, call, web = [line.split() for line in text.splitlines()]
    assert heads == list(HEADS)
    # Where calls go follows from the names; a web endpoint's path does not.
    assert call == ["documents", "12", "recognise", "1/2", "3", "4", "1m00s", "-", "team=a"]
    assert web[7] == "/web/documents-site/"
    assert max(map(len, text.splitlines())) <= 80


def test_when_schedules_call_next_is_told_where_there_are_any() -> None:
    url = "http://127.0.0.1:8470/call/a/f"
    plain, nightly = workload("f", url), msgspec.structs.replace(workload("g", url), next_at=160.0 + 3700)
    apps = [AppRow("default", "a", 100.0, False, "", (plain, nightly))]
    heads, *lines = [line.split() for line in listing(apps, 160.0).splitlines()]
    assert heads == [*HEADS[:7], "NEXT", *HEADS[7:]]
    assert [line[6:8] for line in lines] == [["1m00s", "-"], ["1m00s", "1h01m"]]
    assert [len(line) for line in lines] == [len(heads)] * 2
    assert "NEXT" not in listing([msgspec.structs.replace(apps[0], workloads=(plain,))], 160.0)


def test_replicas_that_are_not_known_are_not_shown_as_none() -> None:
    url = "http://127.0.0.1:8470/call/a/f"
    rows = (workload("f", url, None, None), workload("g", url, 0, 0), workload("h", url, 0, 1))
    apps = [AppRow("default", "a", 100.0, False, "", rows)]
    _, *lines = listing(apps, 160.0).splitlines()
    assert [line.split()[3] for line in lines] == ["?", "0", "0/1"]
    told = json.loads(json_text(apps))[0]["workloads"]
    assert [(row["ready"], row["live"]) for row in told] == [(None, None), (0, 0), (0, 1)]


def test_only_a_listing_waits_for_the_counts_of_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Server:
        url = "http://127.0.0.1:8470"

        def apps(self, *, counts: bool = False) -> list[AppRow]:
            asked.append(counts)
            return [AppRow("default", "a", 100.0, False, "", (workload("f", f"{self.url}/call/a/f", None, None),))]

    monkeypatch.setattr(options, "connect", lambda _: Server())
    listed = CliRunner().invoke(app, ["list"])
    assert (listed.exit_code, listed.output.splitlines()[1].split()[3]) == (0, "?")
    assert options.deployed(cast("Client", Server()), "a", "default").name == "a"
    assert asked == [True, False]
