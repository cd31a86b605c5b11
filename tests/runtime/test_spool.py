"""Does every printed line arrive in its app's file, whole, marked, and bounded?"""

from __future__ import annotations

import asyncio
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.runtime.runner.spool import OPEN_MAX, TAIL_LINES, Lines, LogPipe, Spool
from swell.wire.loglines import LINE_MAX, LogLine, mark, mark_end

POOL = "default/app/f@rv-1"


def read(path: Path) -> list[LogLine]:
    return [msgspec.json.decode(line, type=LogLine) for line in path.read_bytes().splitlines()]


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=40)), st.data())
def test_lines_do_not_depend_on_how_the_pipe_cuts_them(texts: list[str], data: st.DataObject) -> None:
    whole = "".join(text + "\n" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    lines = Lines()
    got: list[str] = []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        got += lines.feed(whole[start:end])
    assert got + lines.feed(b"", final=True) == texts


@given(st.integers(LINE_MAX - 2, LINE_MAX + 5), st.integers(1, 5000))
def test_an_overlong_line_is_cut_and_says_by_how_much(length: int, piece: int) -> None:
    lines = Lines()
    text = b"x" * length + b"\nnext\n"
    got = [line for at in range(0, len(text), piece) for line in lines.feed(text[at : at + piece])]
    more = length - LINE_MAX
    assert got == ["x" * min(length, LINE_MAX) + (f" … [{more} more characters]" if more > 0 else ""), "next"]


def test_bytes_that_are_not_text_and_a_last_line_without_end() -> None:
    lines = Lines()
    assert lines.feed(b"\xff\xfe ok\nrest") == ["�� ok"]
    assert lines.feed(b"", final=True) == ["rest"]


def test_files_are_per_app_and_turned_over_keeping_one(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=1000)
    for n in range(40):
        spool.write([LogLine(float(n), POOL, "r1-1", "", "out", f"line {n}")])
    spool.note("other/web/g@rv-2", "r1-2", "two\nlines")
    spool.close()
    newest, older = tmp_path / "default/app.ndjson", tmp_path / "default/app.ndjson.1"
    assert newest.stat().st_size <= 1000
    assert older.stat().st_size <= 1000
    numbers = [int(line.text.split()[1]) for line in read(older) + read(newest)]
    assert numbers == list(range(numbers[0], 40))
    assert sorted(p.name for p in (tmp_path / "default").iterdir()) == ["app.ndjson", "app.ndjson.1"]
    assert [(line.stream, line.text) for line in read(tmp_path / "other/web.ndjson")] == [
        ("sys", "two"),
        ("sys", "lines"),
    ]


def test_what_cannot_be_written_is_counted_and_hurts_nobody(tmp_path: Path) -> None:
    (tmp_path / "default").write_text("a file where a folder should be")
    spool = Spool(tmp_path, max_bytes=1000)
    spool.write([LogLine(1.0, POOL, "r1-1", "", "out", "lost")])
    assert spool.lost == 1


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As if the disk were full once a file has this size: the last write that fits is a short one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=20), st.integers(1, 1500))
def test_a_full_disk_cuts_between_lines_and_every_lost_one_is_counted(texts: list[str], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder), max_bytes=100_000)
        lines = [LogLine(float(n), POOL, "r1-1", "", "out", text) for n, text in enumerate(texts)]
        with largest_file(size):
            spool.write(lines)
        after = LogLine(99.0, POOL, "r1-1", "", "out", "there is room again")
        spool.write([after])
        spool.close()
        kept = read(Path(folder) / "default/app.ndjson")
        assert kept == [*lines[: len(lines) - spool.lost], after]


def test_lost_lines_are_told_once_a_minute_and_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "default").write_text("a file where a folder should be")
    now = [0.0]
    spool = Spool(tmp_path, max_bytes=1000, now=lambda: now[0])
    for now[0] in (0.0, 10.0, 20.0, 61.0, 62.0):
        spool.write([LogLine(1.0, POOL, "r1-1", "", "out", "lost")] * 2)
    assert [record.args[:2] for record in caplog.records] == [(2, 2), (6, 8)]
    spool.close()
    assert "2 lines that replicas printed are lost (10 in all): default/app.ndjson" in caplog.records[-1].getMessage()


def test_a_file_that_cannot_be_turned_over_is_opened_anew(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=200)
    line = LogLine(1.0, POOL, "r1-1", "", "out", "x" * 100)
    spool.write([line])
    (tmp_path / "default/app.ndjson").unlink()
    spool.write([line])
    assert spool.lost == 1
    spool.write([line])
    spool.close()
    assert read(tmp_path / "default/app.ndjson") == [line]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_apps_that_come_and_go_leave_no_descriptors_and_lose_no_line(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=100_000)
    before = descriptors()
    pools = [f"default/app-{n}/f@rv-1" for n in range(OPEN_MAX + 20)]
    for at in (1.0, 2.0):
        for pool in pools:
            spool.write([LogLine(at, pool, "r1-1", "", "out", "said")])
    assert descriptors() - before == OPEN_MAX
    spool.close()
    for n in range(len(pools)):
        assert [line.at for line in read(tmp_path / f"default/app-{n}.ndjson")] == [1.0, 2.0]


def test_logs_that_nobody_has_written_to_for_long_go(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=150)
    for text in ("x" * 100, "old"):
        spool.write([LogLine(1.0, POOL, "r1-1", "", "out", text)])
    spool.write([LogLine(1.0, "default/new/f@rv-1", "r1-2", "", "out", "new")])
    (tmp_path / "swell.log").write_text("ours")
    for path in (*(tmp_path / "default").glob("app.*"), tmp_path / "swell.log"):
        os.utime(path, (1000.0, 1000.0))
    before = descriptors()
    spool.forget(before=2000.0)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("**/*.*")) == [
        "default/new.ndjson",
        "swell.log",
    ]
    assert descriptors() == before - 1
    # One that speaks again has a log again.
    again = LogLine(2.0, POOL, "r1-3", "", "out", "again")
    spool.write([again])
    spool.close()
    assert read(tmp_path / "default/app.ndjson") == [again]


def test_a_pipe_is_read_on_by_the_next_reader_and_writing_never_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        got: list[tuple[str, str, str]] = []
        both = asyncio.Event()

        def heard(parts: list[tuple[str, str, str]]) -> None:
            got.extend(parts)
            both.set()

        first = LogPipe(tmp_path / "p", heard)
        end = first.open_end()
        os.write(end, (mark("e", "q7", "said") + "\nplain\n").encode())
        await asyncio.wait_for(both.wait(), 30)
        # The first reader dies without a word, as a killed runner does.
        asyncio.get_running_loop().remove_reader(first._reading)
        os.close(first._reading)
        os.write(end, b"meanwhile\n")
        second = LogPipe(tmp_path / "p", got.extend)
        os.write(end, b"".join(b"%d\n" % n for n in range(30)) + b"unfinished")
        os.close(end)
        second.close()
        assert got[:3] == [("err", "q7", "said"), ("out", "", "plain"), ("out", "", "meanwhile")]
        assert got[-1] == ("out", "", "unfinished")
        assert len(second.last_words()) == TAIL_LINES
        assert not (tmp_path / "p").exists()

    asyncio.run(scenario())


def test_last_words_are_not_those_of_a_request_that_ended_long_before(tmp_path: Path) -> None:
    async def scenario() -> None:
        heard: list[tuple[str, str, str]] = []
        pipe = LogPipe(tmp_path / "p", heard.extend)
        end = pipe.open_end()
        said = [mark("e", "q7", "handled, long ago"), mark("e", "q8", "still at it"), mark_end("q7")]
        os.write(end, "".join(line + "\n" for line in [*said, mark("o", "", "of no request"), "of C code"]).encode())
        os.close(end)
        pipe.close()
        assert pipe.last_words() == ["still at it", "of no request", "of C code"]
        assert len(heard) == 4, "an end is no line"

    asyncio.run(scenario())


def test_what_a_process_left_behind_writes_on_does_not_hold_who_closes_the_pipe(tmp_path: Path) -> None:
    async def scenario() -> None:
        heard: list[tuple[str, str, str]] = []

        def written_on(parts: list[tuple[str, str, str]]) -> None:
            heard.extend(parts)
            assert len(heard) < 100, "it is read for ever"
            os.write(end, b"and on\n")

        pipe = LogPipe(tmp_path / "p", written_on)
        end = pipe.open_end()
        os.write(end, b"its own\nlast words\n")
        pipe.close()
        os.close(end)
        assert [text for _, _, text in heard[:2]] == ["its own", "last words"]
        assert not (tmp_path / "p").exists()

    asyncio.run(scenario())
