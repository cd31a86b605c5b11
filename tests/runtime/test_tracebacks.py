"""Does a user read their own frames, and files by the names they know?"""

from __future__ import annotations

import importlib
import linecache
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from swell.model.workload import Entry
from swell.runtime import tracebacks
from swell.runtime.load import Program
from swell.runtime.tracebacks import summary, unpacked_in, user_stack, user_traceback


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A bundle's folder, reached by a symbolic link, as the state directory may be."""
    (tmp_path / "real" / "traced_parcel").mkdir(parents=True)
    (tmp_path / "bundle").symlink_to(tmp_path / "real")
    monkeypatch.setattr(tracebacks, "_bundle", [])
    monkeypatch.setattr(sys, "path", [str(tmp_path / "bundle"), *sys.path])
    importlib.invalidate_caches()
    modules = set(sys.modules)
    yield tmp_path / "bundle"
    for name in set(sys.modules) - modules:
        if name.startswith("traced_"):
            del sys.modules[name]


def raised_by(folder: Path, source: str) -> BaseException:
    (folder / "traced_parcel" / "part.py").write_text(source)
    unpacked_in(str(folder))
    with pytest.raises(BaseException) as raised:  # noqa: PT011
        importlib.import_module("traced_parcel.part")
    return raised.value


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("def f():\n    return 1 / 0\nf()\n", 2),
        ("def f(:\n", 1),
        ("try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('worse') from error\n", 2),
    ],
)
def test_files_of_the_bundle_are_named_by_their_paths_in_it(unpacked: Path, source: str, line: int) -> None:
    text = user_traceback(raised_by(unpacked, source))
    assert f'File "traced_parcel/part.py", line {line}' in text
    assert str(unpacked) not in text
    assert str(unpacked.resolve()) not in text
    assert "<frozen" not in text


def test_messages_name_them_so_too(unpacked: Path) -> None:
    error = raised_by(unpacked, "from traced_parcel.part import nothing_like_it\n")
    assert "(traced_parcel/part.py)" in summary(error)
    assert str(unpacked) not in summary(error) + user_traceback(error)
    missing = raised_by(unpacked, "open(__file__ + '.txt')\n")
    assert summary(missing) == "FileNotFoundError: [Errno 2] No such file or directory: 'traced_parcel/part.py.txt'"


def test_frames_of_the_platform_are_left_out_wherever_they_are(unpacked: Path) -> None:
    source = "import swell\ndef ask():\n    swell.Function.from_name('a', 'f').local()\nask()\n"
    text = user_traceback(raised_by(unpacked, source))
    assert "line 3, in ask" in text
    assert "swell/sdk" not in text


def test_only_the_users_files_are_read_to_tell_where_a_thread_is(unpacked: Path) -> None:
    (unpacked / "traced_parcel" / "waits.py").write_text("class Thing:\n    def hook(self):\n        self.ask()\n")
    unpacked_in(str(unpacked))
    thing = importlib.import_module("traced_parcel.waits").Thing()
    told: list[str] = []
    thing.ask = lambda: told.append(user_stack(threading.get_ident()))
    linecache.clearcache()
    Program(Entry("traced_parcel.waits", "Thing", "cls", (), enter_snap=("hook",)), thing).snap()
    assert told[0].startswith('  File "traced_parcel/waits.py", line 3, in hook\n    self.ask()\n')
    assert not any("swell/runtime" in file for file in linecache.cache)


def test_a_warning_names_the_file_as_a_traceback_does(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    unpacked_in(str(unpacked))
    place = str(unpacked / "nest.py")
    (unpacked / "nest.py").write_text("old = 1\n")
    told = warnings.formatwarning("old", DeprecationWarning, place, 1)
    assert told == "nest.py:1: DeprecationWarning: old\n  old = 1\n"
