"""What does a user read of an error? Their own frames, and files by the names they gave them."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from itertools import dropwhile

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_IMPORT_FROZEN = "<frozen importlib"
_IMPORT_FILE = os.path.join(os.sep, "importlib", "__init__.py")

_format_warning = warnings.formatwarning
_bundle: list[str] = []
"""How files of the user's source begin here; empty until it is loaded."""


def unpacked_in(bundle_dir: str) -> None:
    """Where the user's source lies in this process: from now on its files are shown by their paths in it."""
    folders = {folder.rstrip(os.sep) + os.sep for folder in (bundle_dir, os.path.realpath(bundle_dir))}
    _bundle[:] = sorted(folders, key=len, reverse=True)
    warnings.formatwarning = _warning


def user_traceback(error: BaseException) -> str:
    """The error as Python prints it, causes included, without frames of ours and of the import machinery."""
    report = traceback.TracebackException.from_exception(error)
    seen: set[int] = set()
    waiting: list[traceback.TracebackException | None] = [report]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.stack = traceback.StackSummary.from_list([frame for frame in one.stack if not _is_ours(frame.filename)])
        waiting += [one.__cause__, one.__context__, *(getattr(one, "exceptions", None) or ())]
    return _as_known("".join(report.format()))


def user_stack(thread: int) -> str:
    """Where the user's code is now in a thread of ours (its ident), as a traceback puts it; empty where none runs."""
    frame = sys._current_frames().get(thread)
    frames = list(traceback.walk_stack(frame))[::-1] if frame is not None else []
    # Chosen before the files are read: that takes long where the stack is deep, or the machine busy.
    called = dropwhile(lambda one: not _is_ours(one[0].f_code.co_filename), frames)
    users = [one for one in called if not _is_ours(one[0].f_code.co_filename)]
    return _as_known("".join(traceback.StackSummary.extract(users).format()))


def exit_error(left: SystemExit) -> RuntimeError:
    """What `sys.exit()` in code that is not the whole program is: an error like others. Passed on as it is, it would
    end whichever thread or loop it came to, and nobody would be told."""
    error = RuntimeError(f"it called sys.exit({'' if left.code is None else repr(left.code)})")
    error.__cause__ = left
    return error


def summary(error: BaseException) -> str:
    """ "TypeError: what it says" in one line or, where it says nothing, its type alone."""
    name = type(error).__qualname__
    try:
        said = str(error)
    except Exception:
        said = "(its text cannot be made)"
    return _as_known(f"{name}: {said}" if said else name)


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return _as_known(_format_warning(message, category, filename, lineno, line))


def _as_known(text: str) -> str:
    """Errors name files in their messages, too ("cannot import name 'x' from 'y' (…/y.py)")."""
    for folder in _bundle:
        text = text.replace(folder, "")
    return sendable(text)


def sendable(text: str) -> str:
    """The text; of a half of a character, which is in no UTF-8, how Python writes it. What an error says may be of
    its caller's making, or the name of a file."""
    return text.encode("utf-8", "backslashreplace").decode()


def _is_ours(filename: str) -> bool:
    return filename.startswith((_OURS, _IMPORT_FROZEN)) or filename.endswith(_IMPORT_FILE)
