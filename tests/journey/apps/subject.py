"""A function and a class that are deployed with arguments of all kinds: what they find shows what those did."""

import importlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import swell

FOLDER = Path(__file__).parent


def pid() -> int:
    return os.getpid()


def echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [list(args), kwargs]


def variables(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def files() -> dict[str, str]:
    """What came along beside this file, by its place."""
    found = {str(path.relative_to(FOLDER)): path for path in sorted(FOLDER.rglob("*")) if path.is_file()}
    return {place: path.read_text() for place, path in found.items() if path.suffix not in (".py", ".pyc")}


def value(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def folder() -> str:
    return os.getcwd()


def sleep(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def goes_on(seconds: float) -> int:
    """At work for so long, and says so."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        swell.progress(seconds - left, seconds)
        time.sleep(0.02)
    return os.getpid()


def until(file: str) -> int:
    """At work until the file is there."""
    while not os.path.exists(file):
        time.sleep(0.01)
    return os.getpid()


def note(file: str, text: str) -> None:
    with open(file, "a") as notes:
        notes.write(text)


def fill(mib: int) -> int:
    return len(b"x" * (mib * 1024 * 1024))


def spin(seconds: float) -> float:
    """CPU seconds that a loop got in so many seconds."""
    ended, began = time.monotonic() + seconds, time.process_time()
    while time.monotonic() < ended:
        pass
    return time.process_time() - began


def fail(file: str, times: int) -> list[float]:
    """When each try began; it succeeds after this many failures."""
    note(file, f"{time.time()}\n")
    began = [float(line) for line in Path(file).read_text().splitlines()]
    if len(began) <= times:
        raise ConnectionError(f"try {len(began)}")
    return began


def hang(file: str, times: int) -> int:
    """It hangs this many times, and then says how often it began."""
    note(file, ".")
    began = len(Path(file).read_text())
    if began <= times:
        time.sleep(60)
    return began


def reach(port: int) -> str:
    """How it ends to connect to a port of the node."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=20).close()
    except OSError as error:
        return type(error).__name__
    return "reached"


def ask_another() -> str:
    """How a call of a function ends that is not there."""
    try:
        swell.Function.from_name("nobody", "nothing").remote()
    except swell.Error as error:
        return error.code
    return "answered"


DOINGS = {
    f.__name__: f
    for f in (
        hang,
        pid,
        echo,
        variables,
        files,
        value,
        folder,
        sleep,
        goes_on,
        until,
        note,
        fill,
        spin,
        fail,
        reach,
        ask_another,
    )
}


def do(what: str, *args: Any, **kwargs: Any) -> Any:
    return DOINGS[what](*args, **kwargs)


@swell.concurrent(max_inputs=10, target_inputs=1)
def spread(file: str) -> int:
    return until(file)


def numbers(first: int, *, to: int) -> Iterator[int]:
    yield from range(first, to)


def listed(to: int) -> Iterator[int]:
    """No generator function, and yet one to its callers."""
    return iter(range(to))


class Subject:
    @swell.method()
    def do(self, what: str, *args: Any, **kwargs: Any) -> Any:
        return do(what, *args, **kwargs)


class Lister:
    @swell.method(is_generator=True)
    def count(self, to: int) -> Iterator[int]:
        return listed(to)
