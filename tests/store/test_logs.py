"""Are the lines of a log all there, once and in order, whatever is asked and whatever happens to the file?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swell.model.errors import SwellError
from swell.store import logs

WAIT_S = 60.0


def row(at: float, text: str = "", request: str = "") -> bytes:
    """As the runner writes it."""
    fields = {"at": at, "pool": "p", "replica": "r", "request": request, "stream": "out", "text": text}
    return json.dumps(fields).encode() + b"\n"


def write(folder: Path, app: str, *rows: bytes, old: list[bytes] | None = None) -> Path:
    path = folder / "default" / f"{app}.ndjson"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(rows))
    older = path.with_name(f"{path.name}.1")
    older.unlink(missing_ok=True)
    if old is not None:
        older.write_bytes(b"".join(old))
    return path


def read(folder: Path, app: str = "a", **options: Any) -> list[Any]:
    async def collect() -> list[Any]:
        return [json.loads(line) async for line in logs.lines(folder, "default", app, **options)]

    return asyncio.run(collect())


def texts(rows: list[Any]) -> list[str]:
    return [row["text"] for row in rows]


sizes = st.lists(st.integers(0, 200), max_size=30)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=sizes,
    turned=st.integers(0, 30),
    tail=st.none() | st.integers(0, 40),
    since=st.integers(0, 30),
    request=st.sampled_from(["", "q1", "q2"]),
    half=st.booleans(),
    block=st.integers(1, 300),
)
def test_any_question_is_answered_as_if_all_lines_were_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int], turned: int, tail: int | None, since: int,
    request: str, half: bool, block: int,
) -> None:  # fmt: skip
    rows = [(at, "x" * size, f"q{at % 3}") for at, size in enumerate(sizes)]
    encoded = [row(at, text, asked) for at, text, asked in rows]
    rest = [row(99.0, "half")[:20]] if half else []
    write(tmp_path, "a", *encoded[turned:], *rest, old=encoded[:turned])
    with monkeypatch.context() as patch:
        patch.setattr(logs, "BLOCK", block)
        got = read(tmp_path, tail=tail, since=since, request=request)
    wanted = [(at, text, asked) for at, text, asked in rows if at >= since and request in ("", asked)]
    if tail is not None:
        wanted = wanted[len(wanted) - min(tail, len(wanted)) :]
    assert [(r["at"], r["text"], r["request"]) for r in got] == wanted


BATCHED = [
    *(row(1, "own", "q1"), row(2, "q1 q2", "q1-b"), row(3, "of both", "q1-b"), row(4, "other", "q3")),
    *(row(5, "q2 q4", "q2-b"), row(6, "again", "q2-b"), row(7, "end", "q4")),
]


@pytest.mark.parametrize(
    ("request_id", "said"),
    [
        ("q1", ["own", "of both"]),
        ("q2", ["of both", "again"]),
        ("q4", ["again", "end"]),
        ("q3", ["other"]),
        ("q5", []),
        ("", ["own", "of both", "other", "again", "end"]),
    ],
)
@pytest.mark.parametrize("tail", [None, 100, 1])
def test_what_a_batch_printed_is_found_by_each_of_its_requests(
    tmp_path: Path, request_id: str, said: list[str], tail: int | None
) -> None:
    marked = [each.replace(b'"stream": "out"', b'"stream": "batch"') if b"q" in each.split(b'"text"')[1] else each
              for each in BATCHED]  # fmt: skip
    write(tmp_path, "a", *marked[3:], old=marked[:3])
    assert texts(read(tmp_path, request=request_id, tail=tail)) == (said if tail is None else said[-tail:])
    # Who was in it counts, whenever that was.
    late = [text for text in said if text in ("again", "end")]
    if request_id in ("q2", "q4"):
        assert texts(read(tmp_path, request=request_id, tail=tail, since=5.5)) == (
            late if tail is None else late[-tail:]
        )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.sampled_from(["a", "b", "c"]), max_size=20), tail=st.none() | st.integers(0, 25))
def test_all_apps_of_a_namespace_are_merged_by_time(tmp_path: Path, places: list[str], tail: int | None) -> None:
    for app in ("a", "b", "c"):
        write(tmp_path, app, *(row(at, app) for at, place in enumerate(places) if place == app))
    wanted = places if tail is None else places[len(places) - min(tail, len(places)) :]
    assert texts(read(tmp_path, app="", tail=tail)) == wanted


def test_what_is_no_json_is_passed_over(tmp_path: Path) -> None:
    write(
        tmp_path, "a", row(1, "one"), b"\n", b"nonsense\n", b"[1]\n", b'{"text": "no time"}\n', b"\xff\n", row(2, "two")
    )
    assert texts(read(tmp_path)) == ["one", "two"]
    assert texts(read(tmp_path, tail=None)) == ["one", "two"]


def test_an_app_that_never_printed_has_no_lines(tmp_path: Path) -> None:
    assert read(tmp_path, app="nobody") == []
    assert read(tmp_path, app="") == []


@pytest.mark.parametrize("name", ["../a", "a/b", ".hidden", "/etc/passwd"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SwellError, match="no name"):
        read(tmp_path, app=name)


def follow(folder: Path, app: str, steps: list[Callable[[], object]], each: int, tail: int | None = 100) -> list[str]:
    """Follow a log; after every `each` lines (and once before) do the next step. Ends after the last step's lines."""

    async def run() -> list[str]:
        got: list[str] = []
        async with asyncio.timeout(WAIT_S), aclosing(
            logs.lines(folder, "default", app, tail=tail, follow=True)
        ) as lines:  # fmt: skip
            written = (line async for line in lines if line)
            for step in steps:
                step()
                got += [json.loads(await anext(written))["text"] for _ in range(each)]
        return got

    return asyncio.run(run())


def add(path: Path, *rows: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.write(b"".join(rows))


def turn(path: Path) -> None:
    path.replace(path.with_name(f"{path.name}.1"))


def test_an_empty_line_stands_between_what_was_written_before_and_what_comes(tmp_path: Path) -> None:
    path = write(tmp_path, "a", row(1, "1"), row(2, "2"))

    async def run() -> list[bytes]:
        async with asyncio.timeout(WAIT_S), aclosing(logs.lines(tmp_path, "default", "a", follow=True)) as lines:
            got = [await anext(lines) for _ in range(3)]
            add(path, row(3, "3"))
            return [*got, await anext(lines)]

    assert [json.loads(line)["text"] if line else None for line in asyncio.run(run())] == ["1", "2", None, "3"]
    assert b"" not in read(tmp_path, app="a")


def test_following_goes_on_over_turned_over_files(tmp_path: Path) -> None:
    path = write(tmp_path, "a", row(1, "1"), row(2, "2"))
    steps = [
        lambda: None,
        lambda: add(path, row(3, "3"), row(4, "4")),
        lambda: (add(path, row(5, "5")), turn(path), add(path, row(6, "6"))),
        lambda: (turn(path), add(path, row(7, "7"), row(8, "8"))),
    ]
    assert follow(tmp_path, "a", steps, each=2) == [str(n) for n in range(1, 9)]


def test_following_waits_for_a_line_to_be_whole(tmp_path: Path) -> None:
    path = write(tmp_path, "a", row(1, "1"), row(2, "2")[:10])
    steps = [lambda: None, lambda: add(path, row(2, "2")[10:], row(3, "3")[:5]), lambda: add(path, row(3, "3")[5:])]
    assert follow(tmp_path, "a", steps, each=1) == ["1", "2", "3"]


def test_following_begins_with_files_that_are_made_later(tmp_path: Path) -> None:
    path = tmp_path / "default" / "late.ndjson"
    other = tmp_path / "default" / "later.ndjson"
    steps = [lambda: add(path, row(1, "1")), lambda: add(other, row(2, "2")), lambda: add(path, row(3, "3"))]
    assert follow(tmp_path, "", steps, each=1) == ["1", "2", "3"]


def test_following_takes_a_large_addition_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "STEP", 500)
    path = write(tmp_path, "a")
    wanted = [str(n) for n in range(100)]
    assert follow(tmp_path, "a", [lambda: add(path, *(row(int(t), t) for t in wanted))], each=100) == wanted


def test_only_the_end_of_a_file_is_read_for_its_tail(tmp_path: Path) -> None:
    path = write(tmp_path, "a")
    with path.open("wb") as file:
        # A hole of 64 GiB, which nobody could read through in time.
        file.seek(1 << 36)
        file.write(b"\n" + b"".join(row(n) for n in range(5)))
    assert [r["at"] for r in read(tmp_path, tail=3)] == [2, 3, 4]
