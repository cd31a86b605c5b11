"""Printed lines carry their request and never mix."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from contextvars import copy_context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.runtime import output
from swell.runtime.output import MarkedText, Outlet
from swell.wire.context import Input, InputCancellation, current
from swell.wire.loglines import unmark


class Pipe:
    """A marked stream and what came out of it."""

    def __init__(self) -> None:
        self._out, write_end = os.pipe()
        self._write_end = write_end
        self.stream = MarkedText("o", write_end)
        self._data = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while data := os.read(self._out, 65536):
            self._data += data

    def lines(self) -> list[tuple[str, str, str]]:
        self.stream.end()
        os.close(self._write_end)
        self._reader.join()
        os.close(self._out)
        assert self._data.endswith(b"\n") or not self._data
        return [unmark(line) for line in self._data.decode().split("\n")[:-1]]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    return Pipe()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=20))
def test_however_a_text_is_written_its_lines_are_the_same(pieces: list[str]) -> None:
    pipe = Pipe()
    for piece in pieces:
        assert pipe.stream.write(piece) == len(piece)
    text = "".join(pieces)
    wanted = text.split("\n")
    assert [line[2] for line in pipe.lines()] == (wanted[:-1] if wanted[-1] == "" else wanted)


def test_lines_of_many_threads_do_not_mix(pipe: Pipe) -> None:
    def talk(name: str) -> None:
        current.set(Input(name, 0.0))
        for n in range(200):
            print(name, "x" * 50, n, sep="-", file=pipe.stream)

    threads = [threading.Thread(target=copy_context().run, args=(talk, f"q{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = pipe.lines()
    for n in range(8):
        mine = [text for _, request, text in lines if request == f"q{n}"]
        assert mine == [f"q{n}-{'x' * 50}-{i}" for i in range(200)]
    assert len(lines) == 1600


def test_long_lines_of_both_streams_do_not_mix(pipe: Pipe) -> None:
    """They go in pieces, to one pipe."""
    other = MarkedText("e", pipe.stream.fileno(), pipe.stream._outlet)

    def talk(stream: MarkedText, letter: str) -> None:
        for _ in range(100):
            stream.write(letter * 3 * select.PIPE_BUF + "\n")

    threads = [threading.Thread(target=talk, args=words) for words in ((pipe.stream, "o"), (other, "e"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = pipe.lines()
    assert len(lines) == 200
    assert all(text == stream[0] * 3 * select.PIPE_BUF for stream, _, text in lines)


def test_what_has_no_newline_comes_when_its_input_ends(pipe: Pipe) -> None:
    def talk() -> None:
        current.set(Input("q1", 0.0))
        print("half", end="", file=pipe.stream)

    copy_context().run(talk)
    print("whole", file=pipe.stream)
    pipe.stream.end_input("q1")
    assert pipe.lines() == [("out", "", "whole"), ("out", "q1", "half"), ("end", "q1", "")]


def test_bytes_written_below_are_lines_too(pipe: Pipe) -> None:
    pipe.stream.buffer.write("grüße\n".encode())
    pipe.stream.write("\ud800\n")
    assert [text for _, _, text in pipe.lines()] == ["grüße", "\\ud800"]
    assert not pipe.stream.isatty()


def test_install_takes_prints_and_log_handlers_from_before_and_after() -> None:
    script = """
import logging, sys
early = logging.StreamHandler()
logging.getLogger("early").addHandler(early)
logging.getLogger("early").propagate = False
from swell.runtime import output
streams = output.install()
logging.basicConfig(level="INFO")
logging.getLogger("late").info("late one")
logging.getLogger("early").warning("early one")
print("printed")
print("cut", end="")
assert sys.stdout.fileno() == 1 and sys.stderr.fileno() == 2
for stream in streams: stream.end()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60)
    assert [unmark(line) for line in done.stdout.decode().split("\n")[:-1]] == [
        ("out", "", "printed"),
        ("out", "", "cut"),
    ]
    assert [unmark(line)[::2] for line in done.stderr.decode().split("\n")[:-1]] == [
        ("err", "INFO:late:late one"),
        ("err", "early one"),
    ]


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, MarkedText]]:
    """A pipe that is full, and that nobody reads: the end to read, and a stream on the other."""
    monkeypatch.setattr(output, "FULL_S", 0.02)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while os.write(writing, b"x" * select.PIPE_BUF):
            pass
    os.set_blocking(writing, True)
    yield reading, MarkedText("o", writing)
    os.close(writing)
    os.close(reading)


def test_lines_for_a_pipe_that_nobody_reads_are_lost_and_keep_nobody(unread: tuple[int, MarkedText]) -> None:
    reading, stream = unread
    writer = threading.Thread(target=lambda: print("lost", file=stream), daemon=True)
    writer.start()
    writer.join(30)
    assert not writer.is_alive()
    os.set_blocking(reading, False)
    with suppress(BlockingIOError):
        while os.read(reading, 65536).strip(b"x") == b"":
            pass
    print("kept", file=stream)
    told = [unmark(line) for line in os.read(reading, 65536).decode().split("\n")[:-1]]
    assert told == [("out", "", output.LOST), ("out", "", "kept")]


def test_half_of_a_line_that_was_lost_does_not_spoil_the_next(unread: tuple[int, MarkedText]) -> None:
    reading, stream = unread
    assert len(os.read(reading, 2 * select.PIPE_BUF)) == 2 * select.PIPE_BUF
    print("first\n" + "x" * 4 * select.PIPE_BUF, file=stream)
    os.set_blocking(reading, False)
    with suppress(BlockingIOError):
        while os.read(reading, 65536):
            pass
    print("kept", file=stream)
    told = [unmark(line) for line in os.read(reading, 65536).decode().split("\n")]
    assert told == [("out", "", ""), ("out", "", output.LOST), ("out", "", "kept"), ("out", "", "")]


def test_a_print_that_is_cut_off_between_two_pieces_spoils_no_other_line(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deadline's exception is raised wherever the input's thread is."""
    asked = iter((True, True))

    def cut_off(_outlet: Outlet, _descriptor: int) -> bool:
        for has_room in asked:
            return has_room
        raise InputCancellation

    with monkeypatch.context() as late:
        late.setattr(Outlet, "_has_room", cut_off)
        with pytest.raises(InputCancellation):
            pipe.stream.write("x" * 4 * select.PIPE_BUF + "\n")
    print("whole", file=pipe.stream)
    half, *rest = pipe.lines()
    assert half[:2] == ("out", "")
    assert set(half[2]) == {"x"}
    assert rest == [("out", "", output.LOST), ("out", "", "whole")]


def test_what_prints_while_its_own_thread_does_is_not_waited_for(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a signal's handler does."""
    other = MarkedText("e", pipe.stream.fileno(), pipe.stream._outlet)
    has_room = Outlet._has_room
    interrupts = ["between", "before"]

    def interrupted(outlet: Outlet, descriptor: int) -> bool:
        if len(interrupts) == 2 or (interrupts and outlet._half):
            print(interrupts.pop(), file=other)
        return has_room(outlet, descriptor)

    monkeypatch.setattr(Outlet, "_has_room", interrupted)
    writer = threading.Thread(target=lambda: print("x" * 2 * select.PIPE_BUF, file=pipe.stream), daemon=True)
    writer.start()
    writer.join(30)
    assert not writer.is_alive()
    before, half, between, rest = pipe.lines()
    assert (before, between) == (("err", "", "before"), ("err", "", "between"))
    assert half[2] + rest[2] == "x" * 2 * select.PIPE_BUF


def test_it_is_waited_for_once_and_not_at_each_line(
    unread: tuple[int, MarkedText], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, stream = unread
    print("lost", file=stream)
    monkeypatch.setattr(output, "FULL_S", 3600.0)
    writer = threading.Thread(target=lambda: print("lost", "again", sep="\n", file=stream), daemon=True)
    writer.start()
    writer.join(30)
    assert not writer.is_alive()


@given(st.lists(st.integers(0, 3 * select.PIPE_BUF), max_size=6))
def test_long_output_comes_whole_in_pieces_that_end_with_a_line_where_they_can(lengths: list[int]) -> None:
    data = b"".join(b"x" * length + b"\n" for length in lengths)
    pieces, at = [], 0
    while at < len(data):
        end = output._piece_end(data, at)
        pieces.append(data[at:end])
        at = end
    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= select.PIPE_BUF for piece in pieces)
    assert all(piece.endswith(b"\n") or b"\n" not in piece for piece in pieces)
