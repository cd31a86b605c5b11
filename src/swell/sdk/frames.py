"""Which lines of a traceback are the user's own, here and in a replica?"""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

from swell.model.errors import SwellError

_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARY = os.path.dirname(os.__file__) + os.sep
_WAITING = tuple(
    _LIBRARY + each for each in ("asyncio" + os.sep, "concurrent" + os.sep, "contextlib.py", "functools.py")
)
_MACHINERY = ("<frozen importlib", "<string>", *_WAITING)
"""How files begin that are nobody's: the import system's, the constructors that dataclasses write, and what carries
an error from the thread that sends requests to the one that waits."""
_IMPORT_FILE = os.path.join(os.sep, "importlib", "__init__.py")


class RemoteTraceback(Exception):
    """The cause of an exception that was raised in a replica: its text is the traceback there."""

    def __str__(self) -> str:
        return f"in a replica\n{super().__str__().rstrip()}"


# As it stands above the text.
RemoteTraceback.__module__ = "swell"


def is_own(filename: str) -> bool:
    """Is it a file of ours, or of what lies between ours and the user's?"""
    return filename.startswith((_OWN, *_MACHINERY)) or filename.endswith(_IMPORT_FILE)


def users(tb: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames that are not the user's; None when nothing is left. It is changed in place."""
    while tb is not None and is_own(tb.tb_frame.f_code.co_filename):
        tb = tb.tb_next
    last = tb
    while last is not None:
        while last.tb_next is not None and is_own(last.tb_next.tb_frame.f_code.co_filename):
            last.tb_next = last.tb_next.tb_next
        last = last.tb_next
    return tb


def listing(tb: TracebackType | None) -> str:
    """The user's frames with their lines of code, outermost first; empty where there are none."""
    return "".join(traceback.format_list([frame for frame in traceback.extract_tb(tb) if not is_own(frame.filename)]))


def caller() -> traceback.FrameSummary | None:
    """Where the user's code calls ours right now. Its line of code is read when it is shown."""
    frame = sys._getframe(1)
    while is_own(frame.f_code.co_filename):
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return traceback.FrameSummary(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, lookup_line=False)


def point(error: SwellError, where: traceback.FrameSummary | None) -> None:
    """Have an error say which line of the user's it is about, unless it does: in `detail`, and where it is printed."""
    if where is not None and not error.detail:
        error.detail = "".join(traceback.format_list([where])).rstrip()
        error.add_note(error.detail)


class _Hidden:
    """Around an entry to the SDK: what is meant for the user as it stands leaves it without our frames.

    What we did not foresee keeps them.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(error, SwellError) or (error is not None and isinstance(error.__cause__, RemoteTraceback)):
            error.__traceback__ = users(tb)


hidden = _Hidden()
